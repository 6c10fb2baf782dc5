//! What a Pod says of isolation, as a runtime takes it. The container's own fields win over the
//! Pod's (SecurityContext and PodSecurityContext in the API reference).

use std::path::Path;

use coracle_runtime::{AppArmor, IdRange, Namespaces, Network, Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::app_armor;

/// What the Pod shares with the machine; `network` is the namespace that it was given, `users` its
/// own.
pub(crate) fn namespaces(pod: &Pod, network: Option<&Path>, users: Option<IdRange>) -> Namespaces {
    let spec = super::spec(pod);
    let context = spec.security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    Namespaces {
        network: match (spec.host_network, network) {
            (Some(true), _) => Network::Host,
            (_, Some(path)) => Network::Namespace(path.to_owned()),
            _ => Network::Loopback,
        },
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_processes: spec.share_process_namespace == Some(true),
        users,
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
            .collect(),
    }
}

/// As whom a container runs and what it may do; `profiles` is the folder of localhost profiles.
pub(crate) fn security(
    pod: &Pod,
    container: &Container,
    profiles: &Path,
) -> Result<Security, String> {
    let of_pod = super::spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let id = |field: &str, value: Option<i64>| match value.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(format!("{field} is no id")),
    };
    let groups = of_pod.iter().flat_map(|context| {
        let more = context.supplemental_groups.iter().flatten().copied();
        more.chain(context.fs_group)
    });
    let groups = groups.map(|group| id("a group", Some(group)));
    let groups: Vec<Option<u32>> = groups.collect::<Result<_, _>>()?;
    let user = own
        .and_then(|c| c.run_as_user)
        .or(of_pod.and_then(|c| c.run_as_user));
    let group = own
        .and_then(|c| c.run_as_group)
        .or(of_pod.and_then(|c| c.run_as_group));
    let non_root = own.and_then(|c| c.run_as_non_root);
    let non_root = non_root.or(of_pod.and_then(|c| c.run_as_non_root));
    let capabilities = own.and_then(|context| context.capabilities.as_ref());
    let list = |of: Option<&Vec<String>>| of.cloned().unwrap_or_default();
    let profile = own.and_then(|context| context.seccomp_profile.as_ref());
    let profile = profile.or(of_pod.and_then(|context| context.seccomp_profile.as_ref()));
    Ok(Security {
        user: id("runAsUser", user)?,
        group: id("runAsGroup", group)?,
        supplemental_groups: groups.into_iter().flatten().collect(),
        strict_groups: strict_groups(pod),
        non_root: non_root == Some(true),
        add_capabilities: list(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: list(capabilities.and_then(|c| c.drop.as_ref())),
        privileged: own.and_then(|context| context.privileged) == Some(true),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        read_only_root: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        unmasked_proc: own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked"),
        seccomp: seccomp(profile, profiles),
        app_armor: app_armor::profile(pod, container),
    })
}

/// Refuses a container that is to run as root and as nobody who is.
pub(crate) fn check_non_root(
    pod: &Pod,
    container: &Container,
    security: &Security,
) -> Result<(), String> {
    match (security.non_root, security.user) {
        (true, Some(0)) => Err(format!(
            "container's runAsUser breaks non-root policy (pod: \"{}\", container: {})",
            super::long_name(pod),
            container.name
        )),
        _ => Ok(()),
    }
}

/// Whether a container of the Pod has all rights of root on the machine.
pub(crate) fn has_privileged(pod: &Pod) -> bool {
    let privileged = |container: &Container| {
        let context = container.security_context.as_ref();
        context.and_then(|context| context.privileged) == Some(true)
    };
    super::containers(pod).any(|(container, _)| privileged(container))
}

/// Whether containers have no groups but those that the Pod names.
pub(crate) fn strict_groups(pod: &Pod) -> bool {
    let context = super::spec(pod).security_context.as_ref();
    let policy = context.and_then(|context| context.supplemental_groups_policy.as_deref());
    policy == Some("Strict")
}

/// The group to which the Pod's volumes are given.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let context = super::spec(pod).security_context.as_ref()?;
    context.fs_group?.try_into().ok()
}

/// The capability that a guest has the good of in any case.
const BIND: &str = "NET_BIND_SERVICE";

/// Refuses for a guest what is of the rights of a process on the machine, of which it has none.
pub(crate) fn check_for_guest(security: &Security) -> Result<(), String> {
    if security.privileged {
        return Err(
            "securityContext.privileged is not supported for WebAssembly, which has no rights on the \
             machine that could be widened"
                .into(),
        );
    }
    let mut added = security.add_capabilities.iter().map(String::as_str);
    let beyond = added.find(|name| name.strip_prefix("CAP_").unwrap_or(name) != BIND);
    if let Some(name) = beyond {
        return Err(format!(
            "capabilities.add: {name} is not supported for WebAssembly, which has no rights on the \
             machine that could be widened"
        ));
    }
    if security.unmasked_proc {
        return Err("procMount is not supported for WebAssembly, which has no /proc".into());
    }
    if let Some(AppArmor::Localhost(_)) = security.app_armor {
        return Err(
            "appArmorProfile of type Localhost is not supported for WebAssembly, whose rights are \
             those that the sandbox gives it; use RuntimeDefault"
                .into(),
        );
    }
    match security.seccomp {
        Seccomp::Localhost(_) => Err(
            "seccompProfile of type Localhost is not supported for WebAssembly, which makes no \
             system calls of its own; use RuntimeDefault"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// Containers without a profile get the runtime's, as with `seccompDefault` of the kubelet.
fn seccomp(profile: Option<&SeccompProfile>, profiles: &Path) -> Seccomp {
    match profile.map(|profile| (&*profile.type_, &profile.localhost_profile)) {
        Some(("Unconfined", _)) => Seccomp::Unconfined,
        Some(("Localhost", file)) => {
            Seccomp::Localhost(profiles.join(file.as_ref().map_or(Path::new(""), Path::new)))
        }
        _ => Seccomp::RuntimeDefault,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, own: Value) -> (Namespaces, Result<Security, String>) {
        let mut pod = json!({"spec": spec});
        pod["spec"]["containers"] = json!([{"name": "c", "securityContext": own}]);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = &super::super::spec(&pod).containers[0];
        let security = security(&pod, container, Path::new("/profiles"));
        (namespaces(&pod, None, None), security)
    }

    #[test]
    fn the_containers_own_context_wins() {
        let of_pod = json!({"securityContext": {
            "runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "fsGroup": 3,
            "supplementalGroups": [4], "supplementalGroupsPolicy": "Strict",
            "seccompProfile": {"type": "Unconfined"},
        }});
        let (_, inherited) = check(of_pod.clone(), Value::Null);
        let inherited = inherited.unwrap();
        assert_eq!((inherited.user, inherited.group), (Some(1), Some(2)));
        assert_eq!(inherited.supplemental_groups, [4, 3]);
        assert!(inherited.strict_groups);
        assert_eq!(inherited.seccomp, Seccomp::Unconfined);
        assert!(inherited.non_root && !inherited.no_new_privileges);
        let (_, own) = check(
            of_pod,
            json!({
                "runAsUser": 9, "runAsNonRoot": false, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"add": ["A"], "drop": ["B"]},
                "seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"},
            }),
        );
        let own = own.unwrap();
        assert_eq!(
            (own.user, own.group, own.non_root),
            (Some(9), Some(2), false)
        );
        assert!(own.no_new_privileges && own.read_only_root && !own.privileged);
        let pod = |privileged: bool| {
            let context = json!({"privileged": privileged});
            let containers = json!([{"name": "a"}, {"name": "b", "securityContext": context}]);
            serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
        };
        assert!(has_privileged(&pod(true)) && !has_privileged(&pod(false)));
        assert_eq!(own.add_capabilities, ["A"]);
        assert_eq!(own.drop_capabilities, ["B"]);
        assert_eq!(own.seccomp, Seccomp::Localhost("/profiles/p.json".into()));
    }

    #[test]
    fn guests_are_given_no_rights_on_the_machine() {
        let refused = |own: Value| {
            let (_, security) = check(json!({}), own);
            check_for_guest(&security.unwrap()).unwrap_err()
        };
        assert!(refused(json!({"privileged": true})).contains("privileged"));
        let profile = json!({"type": "Localhost", "localhostProfile": "p.json"});
        assert!(refused(json!({"seccompProfile": profile})).contains("Localhost"));
        let armored = refused(json!({"appArmorProfile": profile}));
        assert!(armored.contains("appArmorProfile"), "{armored}");
        let added = refused(json!({"capabilities": {"add": ["NET_BIND_SERVICE", "NET_ADMIN"]}}));
        assert!(added.contains("NET_ADMIN"), "{added}");
        assert!(refused(json!({"procMount": "Unmasked"})).contains("procMount"));
        let restricted = json!({
            "runAsUser": 7, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        });
        let (_, fine) = check(json!({}), restricted);
        assert_eq!(check_for_guest(&fine.unwrap()), Ok(()));
    }

    #[test]
    fn root_is_none_who_is_not_to_be_root() {
        for (user, non_root, fine) in [(0, true, false), (0, false, true), (7, true, true)] {
            let context = json!({"runAsUser": user, "runAsNonRoot": non_root});
            let (_, security) = check(json!({}), context);
            let container = Container::default();
            let checked = check_non_root(&Pod::default(), &container, &security.unwrap());
            assert_eq!(checked.is_ok(), fine, "{user} {non_root}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_shared() {
        let (namespaces, security) = check(json!({}), Value::Null);
        assert_eq!(namespaces, Namespaces::default());
        assert_eq!(security, Ok(Security::default()));
        let spec = json!({
            "hostNetwork": true, "hostPID": true, "shareProcessNamespace": true,
            "securityContext": {"sysctls": [{"name": "net.a", "value": "1"}], "runAsUser": -1},
        });
        let (namespaces, security) = check(spec, Value::Null);
        assert_eq!(namespaces.network, Network::Host);
        let own = Path::new("/run/netns/a");
        let users = Some(IdRange { first: 1 << 20 });
        let given = super::namespaces(&Pod::default(), Some(own), users);
        assert_eq!(given.network, Network::Namespace(own.to_owned()));
        assert_eq!(given.users, users);
        assert!(namespaces.host_pid && namespaces.users.is_none() && namespaces.share_processes);
        assert_eq!(namespaces.sysctls["net.a"], "1");
        assert_eq!(security, Err("runAsUser is no id".to_owned()));
    }
}
