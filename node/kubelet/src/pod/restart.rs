//! Which containers are started again when they have ended: as they say themselves, by the codes
//! with which they end (KEP-5307), or as their Pod says. A container may have all others begin anew
//! with it (KEP-5532).

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::{Role, spec};

/// When a container is started again after it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn named(name: Option<&str>) -> Self {
        match name {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// The restart policy of a container in its role, whatever its code.
pub(crate) fn restart_policy(pod: &Pod, container: &Container, role: Role) -> RestartPolicy {
    let own = container.restart_policy.as_deref();
    let policy = RestartPolicy::named(own.or(spec(pod).restart_policy.as_deref()));
    match (role, policy) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Ephemeral, _) => RestartPolicy::Never,
        // An init container that succeeded is done, whatever the Pod says.
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

/// Whether a container that ended with `code` is started again.
pub(crate) fn restarts(pod: &Pod, container: &Container, role: Role, code: i32) -> bool {
    if role == Role::Init && code == 0 {
        return false;
    }
    let ruled = rule(container, code).map(|rule| rule.action.as_str());
    matches!(ruled, Some("Restart" | ALL)) || restart_policy(pod, container, role).restarts(code)
}

/// The action of a rule by which all containers of the Pod begin anew.
const ALL: &str = "RestartAllContainers";

/// Whether all of its Pod begins anew where a container has ended with `code`.
pub(crate) fn restarts_all(container: &Container, role: Role, code: i32) -> bool {
    let done = role == Role::Init && code == 0;
    !done && rule(container, code).is_some_and(|rule| rule.action == ALL)
}

/// Whether that may ever be.
pub(crate) fn may_begin_anew(pod: &Pod) -> bool {
    let mut containers = super::containers(pod);
    containers.any(|(container, _)| rules(container).any(|rule| rule.action == ALL))
}

/// The first rule counts.
fn rule(container: &Container, code: i32) -> Option<&ContainerRestartRule> {
    rules(container).find(|rule| fits(rule, code))
}

/// Rules are beside a policy of the container's own only.
fn rules(container: &Container) -> impl Iterator<Item = &ContainerRestartRule> {
    let own = container.restart_policy.is_some();
    let rules = container.restart_policy_rules.iter().flatten();
    rules.filter(move |_| own)
}

fn fits(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else {
        return false;
    };
    let listed = codes.values.iter().flatten().any(|value| *value == code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_containers_own_rules_and_policy_go_before_its_pods() {
        use Role::{App, Ephemeral, Init, Sidecar};
        let rule = |operator: &str, code: i32| {
            let codes = json!({"operator": operator, "values": [code]});
            json!([{"action": "Restart", "exitCodes": codes}])
        };
        let none = json!([]);
        // Of the Pod, of the container, its rules, its role; whether it restarts after 0, 1, 42.
        for (of_pod, own, rules, role, expected) in [
            ("Always", None, &none, App, [true, true, true]),
            ("OnFailure", None, &none, App, [false, true, true]),
            ("Never", None, &none, App, [false, false, false]),
            ("Never", Some("Always"), &none, App, [true, true, true]),
            ("Always", Some("OnFailure"), &none, App, [false, true, true]),
            ("Always", Some("Never"), &none, App, [false, false, false]),
            (
                "Always",
                Some("Never"),
                &rule("In", 42),
                App,
                [false, false, true],
            ),
            (
                "Always",
                Some("Never"),
                &rule("NotIn", 42),
                App,
                [true, true, false],
            ),
            (
                "Never",
                Some("OnFailure"),
                &rule("In", 0),
                App,
                [true, true, true],
            ),
            // Without a policy there are no rules.
            ("Never", None, &rule("In", 42), App, [false, false, false]),
            ("Always", None, &none, Init, [false, true, true]),
            ("Always", Some("Never"), &none, Init, [false, false, false]),
            (
                "Never",
                Some("Never"),
                &rule("NotIn", 42),
                Init,
                [false, true, false],
            ),
            ("Never", Some("Always"), &none, Sidecar, [true, true, true]),
            ("Always", None, &none, Ephemeral, [false, false, false]),
        ] {
            let container = json!({"name": "c", "restartPolicy": own, "restartPolicyRules": rules});
            let spec = json!({"restartPolicy": of_pod, "containers": [container]});
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let found = [0, 1, 42].map(|code| restarts(&pod, container, role, code));
            assert_eq!(found, expected, "{spec} {role:?}");
        }
    }
}
