//! Which flow a request is of: the rules of a FlowSchema against the user and what is asked for
//! (flowcontrol.apiserver.k8s.io/v1, PolicyRulesWithSubjects).

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use sha2::{Digest, Sha256};

use crate::auth::UserInfo;
use crate::request::info::RequestInfo;

const ALL: &str = "*";

/// Whether a schema is for this request.
pub(super) fn matches(spec: &FlowSchemaSpec, user: &UserInfo, info: &RequestInfo) -> bool {
    let rules = spec.rules.iter().flatten();
    rules.into_iter().any(|rule| rule_matches(rule, user, info))
}

fn rule_matches(rule: &PolicyRulesWithSubjects, user: &UserInfo, info: &RequestInfo) -> bool {
    if !rule.subjects.iter().any(|subject| is(subject, user)) {
        return false;
    }
    if info.is_resource {
        let mut rules = rule.resource_rules.iter().flatten();
        rules.any(|rule| resource_matches(rule, info))
    } else {
        let mut rules = rule.non_resource_rules.iter().flatten();
        rules.any(|rule| path_matches(rule, info))
    }
}

fn is(subject: &Subject, user: &UserInfo) -> bool {
    match subject.kind.as_str() {
        "User" => {
            let wanted = subject.user.as_ref();
            wanted.is_some_and(|wanted| wanted.name == ALL || wanted.name == user.name)
        }
        "Group" => {
            let wanted = subject.group.as_ref();
            wanted.is_some_and(|wanted| wanted.name == ALL || user.in_group(&wanted.name))
        }
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|wanted| {
            let account = user.name.strip_prefix("system:serviceaccount:");
            account
                .and_then(|account| account.split_once(':'))
                .is_some_and(|(namespace, name)| {
                    namespace == wanted.namespace && (wanted.name == ALL || wanted.name == name)
                })
        }),
        _ => false,
    }
}

fn lists(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

fn resource_matches(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let place = if info.namespace.is_empty() {
        rule.cluster_scope.unwrap_or(false)
    } else {
        let namespaces = rule.namespaces.as_deref().unwrap_or_default();
        lists(namespaces, &info.namespace)
    };
    place
        && lists(&rule.verbs, &info.verb)
        && lists(&rule.api_groups, &info.group)
        && lists(&rule.resources, &info.full_resource())
}

fn path_matches(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    let below = |pattern: &str| {
        let start = pattern.strip_suffix(ALL);
        start.is_some_and(|start| info.path.starts_with(start))
    };
    let urls = &rule.non_resource_urls;
    lists(&rule.verbs, &info.verb)
        && (lists(urls, &info.path) || urls.iter().any(|pattern| below(pattern)))
}

/// What tells the flows of a schema apart.
pub(super) fn distinguisher<'a>(
    spec: &FlowSchemaSpec,
    user: &'a UserInfo,
    info: &'a RequestInfo,
) -> &'a str {
    match spec.distinguisher_method.as_ref().map(|m| m.type_.as_str()) {
        Some("ByUser") => &user.name,
        Some("ByNamespace") => &info.namespace,
        _ => "",
    }
}

/// The hash by which a flow is dealt its queues.
pub(super) fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let sum = Sha256::new()
        .chain_update(schema)
        .chain_update([0])
        .chain_update(distinguisher)
        .finalize();
    sum.iter()
        .take(8)
        .rev()
        .fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::request::info::request_info;

    fn spec(subject: &Value, rule: &Value) -> FlowSchemaSpec {
        serde_json::from_value(json!({
            "priorityLevelConfiguration": {"name": "l"},
            "distinguisherMethod": {"type": "ByNamespace"},
            "rules": [{
                "subjects": [subject],
                "resourceRules": [rule],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/debug/*"]}],
            }],
        }))
        .unwrap()
    }

    #[test]
    fn subjects_are_users_groups_and_service_accounts() {
        let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "namespaces": ["*"], "clusterScope": true});
        let jane = UserInfo::new("jane", &["people"]);
        let account = UserInfo::new("system:serviceaccount:kube-system:dns", &[]);
        let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
        let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
        let of = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        let table = [
            (user("jane"), &jane, true),
            (user("*"), &jane, true),
            (user("jan"), &jane, false),
            (group("people"), &jane, true),
            (group("*"), &account, true),
            (group("jane"), &jane, false),
            (of("kube-system", "dns"), &account, true),
            (of("kube-system", "*"), &account, true),
            (of("kube", "*"), &account, false),
            (of("kube-system", "dn"), &account, false),
            (of("kube-system", "*"), &jane, false),
        ];
        let info = request_info(&Method::GET, "/api/v1/namespaces/a/pods", false);
        for (subject, who, want) in table {
            let spec = spec(&subject, &everything);
            assert_eq!(matches(&spec, who, &info), want, "{subject} {}", who.name);
        }
    }

    #[test]
    fn rules_name_verbs_groups_resources_and_namespaces() {
        let rule = |verbs: &[&str],
                    groups: &[&str],
                    resources: &[&str],
                    namespaces: &[&str],
                    cluster: bool| json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": namespaces, "clusterScope": cluster});
        let user = json!({"kind": "User", "user": {"name": "*"}});
        let jane = UserInfo::new("jane", &[]);
        let table = [
            (
                rule(&["list"], &[""], &["pods"], &["a"], false),
                "/api/v1/namespaces/a/pods",
                true,
            ),
            (
                rule(&["get"], &[""], &["pods"], &["a"], false),
                "/api/v1/namespaces/a/pods",
                false,
            ),
            (
                rule(&["list"], &["apps"], &["pods"], &["a"], false),
                "/api/v1/namespaces/a/pods",
                false,
            ),
            (
                rule(&["list"], &[""], &["pods"], &["b"], false),
                "/api/v1/namespaces/a/pods",
                false,
            ),
            (
                rule(&["list"], &[""], &["pods"], &["*"], false),
                "/api/v1/pods",
                false,
            ),
            (
                rule(&["list"], &[""], &["pods"], &[], true),
                "/api/v1/pods",
                true,
            ),
            (
                rule(&["get"], &[""], &["pods"], &["a"], false),
                "/api/v1/namespaces/a/pods/p/log",
                false,
            ),
            (
                rule(&["get"], &[""], &["pods/log"], &["a"], false),
                "/api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (rule(&["get"], &[""], &["x"], &[], false), "/healthz", true),
            (
                rule(&["get"], &[""], &["x"], &[], false),
                "/healthz/ping",
                false,
            ),
            (
                rule(&["get"], &[""], &["x"], &[], false),
                "/debug/flags/v",
                true,
            ),
            (rule(&["get"], &[""], &["x"], &[], false), "/metrics", false),
        ];
        for (rule, path, want) in table {
            let info = request_info(&Method::GET, path, false);
            let spec = spec(&user, &rule);
            assert_eq!(matches(&spec, &jane, &info), want, "{path} {rule}");
        }
    }

    #[test]
    fn flows_are_told_apart_by_namespace_or_user_or_not_at_all() {
        let mut spec = spec(
            &json!({"kind": "User"}),
            &json!({"verbs": [], "apiGroups": [], "resources": []}),
        );
        let jane = UserInfo::new("jane", &[]);
        let info = request_info(&Method::GET, "/api/v1/namespaces/a/pods", false);
        assert_eq!(distinguisher(&spec, &jane, &info), "a");
        spec.distinguisher_method.as_mut().unwrap().type_ = "ByUser".to_owned();
        assert_eq!(distinguisher(&spec, &jane, &info), "jane");
        spec.distinguisher_method = None;
        assert_eq!(distinguisher(&spec, &jane, &info), "");
        assert_ne!(flow_hash("a", "b"), flow_hash("ab", ""));
    }
}
