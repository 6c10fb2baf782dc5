//! Defaults that webhooks, policies and bindings share.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, RuleWithOperations, ServiceReference, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

const ALL: &str = "*";
const PORT: i32 = 443;
/// Seconds for which a webhook is waited for.
const TIMEOUT: i32 = 10;

/// The fields of a webhook of either sort.
pub(super) struct WebhookFields<'a> {
    pub(super) failure_policy: &'a mut Option<String>,
    pub(super) match_policy: &'a mut Option<String>,
    pub(super) namespaces: &'a mut Option<LabelSelector>,
    pub(super) objects: &'a mut Option<LabelSelector>,
    pub(super) timeout: &'a mut Option<i32>,
    pub(super) rules: &'a mut Option<Vec<RuleWithOperations>>,
    pub(super) client: &'a mut WebhookClientConfig,
}

impl WebhookFields<'_> {
    pub(super) fn set_defaults(self) {
        fail(self.failure_policy);
        equivalent(self.match_policy);
        self.namespaces.get_or_insert_default();
        self.objects.get_or_insert_default();
        self.timeout.get_or_insert(TIMEOUT);
        for rule in self.rules.iter_mut().flatten() {
            all_scopes(&mut rule.scope);
        }
        if let Some(ServiceReference { port, .. }) = &mut self.client.service {
            port.get_or_insert(PORT);
        }
    }
}

/// Who cannot be asked has said no.
pub(super) fn fail(policy: &mut Option<String>) {
    policy.get_or_insert_with(|| "Fail".to_owned());
}

/// Nothing that is called anew for what others change after it.
pub(super) fn never(policy: &mut Option<String>) {
    policy.get_or_insert_with(|| "Never".to_owned());
}

fn equivalent(policy: &mut Option<String>) {
    policy.get_or_insert_with(|| "Equivalent".to_owned());
}

fn all_scopes(scope: &mut Option<String>) {
    scope.get_or_insert_with(|| ALL.to_owned());
}

/// What a policy or binding is about, where it says so.
pub(super) fn match_resources(resources: &mut Option<MatchResources>) {
    let Some(resources) = resources else {
        return;
    };
    equivalent(&mut resources.match_policy);
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    for rules in [
        &mut resources.resource_rules,
        &mut resources.exclude_resource_rules,
    ] {
        for rule in rules.iter_mut().flatten() {
            all_scopes(&mut rule.scope);
        }
    }
}
