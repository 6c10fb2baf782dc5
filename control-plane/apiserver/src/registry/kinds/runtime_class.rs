//! RuntimeClass: which handler of a node runs a Pod. Few need one: the image decides already.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::node::v1::RuntimeClass;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::labels::validate_labels;
use crate::validation::resources::{canonicalize, validate_overhead};
use crate::validation::scheduling::deprecated::deprecated_label;
use crate::validation::scheduling::taints::validate_tolerations;
use crate::validation::{faults, immutable, items, shown, text};

pub(super) struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    type Object = RuntimeClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<RuntimeClass>()
            .create_on_update()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut RuntimeClass) {
        if let Some(overhead) = &mut object.overhead {
            canonicalize(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self, object: &RuntimeClass) -> ErrorList {
        let mut errors = ErrorList::default();
        let (handler, at) = (object.handler.as_str(), Path::new("handler"));
        if handler.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            faults(handler, names::dns_label(handler), &at, &mut errors);
        }
        if let Some(overhead) = object
            .overhead
            .as_ref()
            .and_then(|overhead| overhead.pod_fixed.as_ref())
        {
            validate_overhead(overhead, &Path::new("overhead"), &mut errors);
        }
        if let Some(scheduling) = &object.scheduling {
            let at = Path::new("scheduling");
            validate_labels(
                scheduling.node_selector.as_ref(),
                &at.child("nodeSelector"),
                &mut errors,
            );
            let tolerations = items(&scheduling.tolerations);
            let at = at.child("tolerations");
            let mut seen = BTreeSet::new();
            for (i, toleration) in tolerations.iter().enumerate() {
                if !seen.insert(tolerated(toleration)) {
                    errors.push(Error::duplicate(&at.index(i), shown(toleration)));
                }
            }
            validate_tolerations(tolerations, &at, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass) -> ErrorList {
        let mut errors = self.validate(new);
        immutable(
            &new.handler,
            &old.handler,
            &Path::new("handler"),
            &mut errors,
        );
        errors
    }

    fn warnings(&self, object: &RuntimeClass) -> Vec<String> {
        let scheduling = object.scheduling.as_ref();
        let selector = scheduling.and_then(|scheduling| scheduling.node_selector.as_ref());
        let old = selector.into_iter().flatten();
        old.filter_map(|(label, _)| deprecated_label(label))
            .map(|instead| format!("scheduling.nodeSelector: {instead}"))
            .collect()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text(
                "Handler",
                "The handler of the node that runs pods of this class.",
            ),
            Column::age(),
        ]
    }

    fn row(&self, object: &RuntimeClass, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(object.handler.as_str()),
            printing::age(&object.metadata, now),
        ]
    }
}

/// What is tolerated, for however long.
fn tolerated(toleration: &Toleration) -> [&str; 4] {
    let Toleration {
        key,
        operator,
        value,
        effect,
        ..
    } = toleration;
    [key, operator, value, effect].map(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn validation() {
        let toleration = json!({"key": "a", "operator": "Exists"});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"handler": "wasm"}), vec![]),
            (
                json!({"handler": "Wasm!"}),
                vec!["handler FieldValueInvalid a lowercase RFC 1123 label"],
            ),
            (json!({"handler": ""}), vec!["handler FieldValueRequired"]),
            (
                json!({"handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}, "scheduling": {"tolerations": [toleration, toleration]}}),
                vec![
                    "overhead.limits[cpu] FieldValueInvalid",
                    "scheduling.tolerations[1] FieldValueDuplicate",
                ],
            ),
        ];
        for (value, want) in table {
            assert_causes(
                &RuntimeClassStrategy.validate(&serde_json::from_value(value).unwrap()),
                &want,
            );
        }
        let masters = json!({"handler": "a", "scheduling": {"nodeSelector": {"node-role.kubernetes.io/master": ""}}});
        assert_eq!(
            RuntimeClassStrategy.warnings(&serde_json::from_value(masters).unwrap()),
            ["scheduling.nodeSelector: use \"node-role.kubernetes.io/control-plane\" instead"]
        );
    }
}
