//! What a policy says of a request: the first rule that matches.

use super::policy::{GroupResources, Level, Policy, Rule, Stage};
use crate::auth::UserInfo;
use crate::request::info::RequestInfo;

/// What a policy says of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decision {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Policy {
    /// What is told of a request. One whose sender is not known matches no rule that names users
    /// or groups.
    pub(super) fn decide(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Decision {
        let rule = self.rules.iter().find(|rule| matches(rule, user, info));
        rule.map_or_else(Decision::default, |rule| Decision {
            level: rule.level,
            omit_stages: rule.omit_stages.clone(),
            omit_managed_fields: rule.omit_managed_fields,
        })
    }
}

fn matches(rule: &Rule, user: Option<&UserInfo>, info: &RequestInfo) -> bool {
    let named = |list: &[String], wanted: &str| list.iter().any(|item| item == wanted);
    let is_user = rule.users.is_empty() || user.is_some_and(|user| named(&rule.users, &user.name));
    let in_group = rule.user_groups.is_empty()
        || user.is_some_and(|user| rule.user_groups.iter().any(|group| user.in_group(group)));
    let verb = rule.verbs.is_empty() || named(&rule.verbs, &info.verb);
    if !(is_user && in_group && verb) {
        return false;
    }
    if !rule.namespaces.is_empty() || !rule.resources.is_empty() {
        let place = rule.namespaces.is_empty() || named(&rule.namespaces, &info.namespace);
        let resources = &rule.resources;
        let what = resources.is_empty() || resources.iter().any(|item| has(item, info));
        return info.is_resource && place && what;
    }
    let urls = &rule.non_resource_urls;
    urls.is_empty() || (!info.is_resource && urls.iter().any(|url| covers(url, &info.path)))
}

fn covers(pattern: &str, path: &str) -> bool {
    let start = pattern.strip_suffix('*');
    pattern == path || start.is_some_and(|start| path.starts_with(start))
}

fn has(item: &GroupResources, info: &RequestInfo) -> bool {
    if item.group != "*" && item.group != info.group {
        return false;
    }
    if item.resources.is_empty() {
        return true;
    }
    let named = item.resource_names.is_empty() || item.resource_names.contains(&info.name);
    let whole = info.full_resource();
    named
        && item.resources.iter().any(|pattern| {
            let of_any = pattern.strip_prefix("*/");
            let any_of = pattern.strip_suffix("/*");
            pattern == "*"
                || *pattern == whole
                || (!info.subresource.is_empty() && of_any == Some(info.subresource.as_str()))
                || any_of == Some(info.resource.as_str())
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::info::request_info;

    #[test]
    fn rules_match_by_user_verb_resource_and_path() {
        let table = [
            ("users: [jane]", "GET", "/api/v1/pods", true),
            ("users: [joe]", "GET", "/api/v1/pods", false),
            ("userGroups: [x, people]", "GET", "/api/v1/pods", true),
            ("userGroups: [x]", "GET", "/api/v1/pods", false),
            ("verbs: [list]", "GET", "/api/v1/pods", true),
            ("verbs: [get]", "GET", "/api/v1/pods", false),
            ("verbs: [get]", "GET", "/healthz", true),
            ("namespaces: [a]", "GET", "/api/v1/namespaces/a/pods", true),
            ("namespaces: [a]", "GET", "/api/v1/pods", false),
            ("namespaces: ['']", "GET", "/api/v1/nodes", true),
            ("namespaces: ['']", "GET", "/healthz", false),
            ("resources: [{group: ''}]", "GET", "/api/v1/pods", true),
            ("resources: [{group: apps}]", "GET", "/api/v1/pods", false),
            ("resources: [{group: '*'}]", "GET", "/api/v1/pods", true),
            (
                "resources: [{group: '*', resources: [pods]}]",
                "GET",
                "/apis/apps/v1/deployments",
                false,
            ),
            (
                "resources: [{resources: [pods]}]",
                "GET",
                "/api/v1/pods",
                true,
            ),
            (
                "resources: [{resources: [pods]}]",
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                false,
            ),
            (
                "resources: [{resources: [pods/log]}]",
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (
                "resources: [{resources: ['pods/*']}]",
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (
                "resources: [{resources: ['pods/*']}]",
                "GET",
                "/api/v1/namespaces/a/pods/p",
                true,
            ),
            (
                "resources: [{resources: ['*/log']}]",
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (
                "resources: [{resources: ['*/log']}]",
                "GET",
                "/api/v1/namespaces/a/pods/p",
                false,
            ),
            (
                "resources: [{resources: ['*']}]",
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (
                "resources: [{resources: [pods], resourceNames: [p]}]",
                "GET",
                "/api/v1/namespaces/a/pods/p",
                true,
            ),
            (
                "resources: [{resources: [pods], resourceNames: [q]}]",
                "GET",
                "/api/v1/namespaces/a/pods/p",
                false,
            ),
            (
                "nonResourceURLs: ['/healthz*']",
                "GET",
                "/healthz/ping",
                true,
            ),
            (
                "nonResourceURLs: ['/healthz']",
                "GET",
                "/healthz/ping",
                false,
            ),
            ("nonResourceURLs: ['*']", "GET", "/version", true),
            ("nonResourceURLs: ['*']", "GET", "/api/v1/pods", false),
        ];
        let jane = UserInfo::new("jane", &["people"]);
        for (rule, method, path, want) in table {
            let text = format!(
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Request\n  {rule}\n"
            );
            let policy = Policy::parse("policy", &text).unwrap();
            let method: Method = method.parse().unwrap();
            let info = request_info(&method, path, false);
            let level = policy.decide(Some(&jane), &info).level;
            assert_eq!(level == Level::Request, want, "{rule} {path}");
        }
    }

    #[test]
    fn the_first_rule_decides_and_without_one_nothing_is_told() {
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
            - {level: None, users: [jane]}\n- {level: Metadata, verbs: [list]}\n";
        let policy = Policy::parse("policy", text).unwrap();
        let level = |user: Option<&UserInfo>, path| {
            let info = request_info(&Method::GET, path, false);
            policy.decide(user, &info).level
        };
        let jane = UserInfo::new("jane", &[]);
        assert_eq!(level(Some(&jane), "/api/v1/pods"), Level::None);
        assert_eq!(level(None, "/api/v1/pods"), Level::Metadata);
        assert_eq!(level(None, "/healthz"), Level::None);
    }
}
