//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{CATEGORY, compiling, defaults, static_warnings};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::admission_registration::rules::warn_of_rules;
use crate::validation::admission_registration::webhook::{Webhook, validate_webhooks};
use crate::validation::{equality, items};

/// The strategy of a kind that is a list of webhooks.
macro_rules! webhook_strategy {
    ($strategy:ident, $object:ty, $set_own_defaults:expr) => {
        pub(in super::super) struct $strategy;

        impl Strategy for $strategy {
            type Object = $object;

            fn descriptor(&self) -> Descriptor {
                Descriptor::of::<$object>()
                    .categories(&[CATEGORY])
                    .generation()
                    .conditional_update()
            }

            fn set_defaults(&self, object: &mut $object) {
                for webhook in object.webhooks.iter_mut().flatten() {
                    $set_own_defaults(&mut *webhook);
                    defaults::WebhookFields {
                        failure_policy: &mut webhook.failure_policy,
                        match_policy: &mut webhook.match_policy,
                        namespaces: &mut webhook.namespace_selector,
                        objects: &mut webhook.object_selector,
                        timeout: &mut webhook.timeout_seconds,
                        rules: &mut webhook.rules,
                        client: &mut webhook.client_config,
                    }
                    .set_defaults();
                }
            }

            fn validate(&self, object: &$object) -> ErrorList {
                let new = items(&object.webhooks).iter().map(Webhook::from);
                compiling(|| validate_webhooks(new, None))
            }

            fn validate_update(&self, new: &$object, old: &$object) -> ErrorList {
                let old = items(&old.webhooks).iter().map(Webhook::from);
                let new = items(&new.webhooks).iter().map(Webhook::from);
                compiling(|| validate_webhooks(new, Some(old.collect())))
            }

            fn spec_changed(&self, new: &$object, old: &$object) -> bool {
                !equality::semantic(&new.webhooks, &old.webhooks)
            }

            fn warnings(&self, object: &$object) -> Vec<String> {
                let mut warnings = static_warnings(&object.metadata);
                for (i, webhook) in items(&object.webhooks).iter().enumerate() {
                    let at = Path::new("webhooks").index(i).child("rules");
                    warnings.extend(warn_of_rules(items(&webhook.rules), &at));
                }
                warnings
            }

            fn columns(&self) -> Vec<Column> {
                columns()
            }

            fn row(&self, object: &$object, now: jiff::Timestamp) -> Vec<Cell> {
                row(&object.metadata, items(&object.webhooks).len(), now)
            }
        }
    };
}

webhook_strategy!(
    ValidatingWebhookStrategy,
    ValidatingWebhookConfiguration,
    |_: &mut ValidatingWebhook| {}
);
webhook_strategy!(
    MutatingWebhookStrategy,
    MutatingWebhookConfiguration,
    |webhook: &mut MutatingWebhook| defaults::never(&mut webhook.reinvocation_policy)
);

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::integer("Webhooks", "How many webhooks there are."),
        Column::age(),
    ]
}

fn row(meta: &ObjectMeta, webhooks: usize, now: jiff::Timestamp) -> Vec<Cell> {
    vec![
        printing::name(meta),
        Cell::Json(webhooks.into()),
        printing::age(meta, now),
    ]
}
