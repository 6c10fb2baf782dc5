//! ServiceAccount: who the processes of a Pod are to the API.

use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};

use crate::registry::strategy::{Descriptor, ErrorList, Strategy, Subresource};

/// Once held an account's Pods to the Secrets that the account names.
const ENFORCE_MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

pub(super) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ServiceAccount>()
            .short_names(&["sa"])
            .returns_deleted()
            .subresources(&[Subresource::Token])
    }

    fn prepare_for_create(&self, object: &mut ServiceAccount) {
        keep_names_of_secrets(object);
    }

    fn validate(&self, _object: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }

    fn prepare_for_update(&self, new: &mut ServiceAccount, _old: &ServiceAccount) {
        keep_names_of_secrets(new);
    }

    fn validate_update(&self, _new: &ServiceAccount, _old: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }

    fn warnings(&self, object: &ServiceAccount) -> Vec<String> {
        let annotations = object.metadata.annotations.as_ref();
        let set = annotations.is_some_and(|all| all.contains_key(ENFORCE_MOUNTABLE_SECRETS));
        let warning = || {
            format!(
                "metadata.annotations[{ENFORCE_MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
            )
        };
        Vec::from_iter(set.then(warning))
    }
}

/// They are Secrets of its own namespace, so that their names say all.
fn keep_names_of_secrets(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference {
            name: secret.name.take(),
            ..ObjectReference::default()
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_names() {
        let mut account: ServiceAccount = serde_json::from_value(json!({
            "metadata": {"annotations": {ENFORCE_MOUNTABLE_SECRETS: "true"}},
            "secrets": [{"kind": "Secret", "namespace": "other", "name": "s", "fieldPath": "f"}],
        }))
        .unwrap();
        ServiceAccountStrategy.prepare_for_create(&mut account);
        assert_eq!(
            serde_json::to_value(&account.secrets).unwrap(),
            json!([{"name": "s"}])
        );
        assert_eq!(ServiceAccountStrategy.warnings(&account).len(), 1);
    }
}
