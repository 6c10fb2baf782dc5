//! RuntimeClass: which handler of a node runs a Pod. Few need one: the image decides already.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::node::v1::RuntimeClass;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::labels::validate_labels;
use crate::validation::resources::{canonicalize, validate_overhead};
use crate::validation::scheduling::taints::validate_tolerations;
use crate::validation::{faults, immutable, items, shown};

pub(super) struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    type Object = RuntimeClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<RuntimeClass>().conditional_update()
    }

    fn set_defaults(&self, object: &mut RuntimeClass) {
        if let Some(overhead) = &mut object.overhead {
            canonicalize(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self, object: &RuntimeClass) -> ErrorList {
        let mut errors = ErrorList::default();
        faults(
            &object.handler,
            names::dns_label(&object.handler),
            &Path::new("handler"),
            &mut errors,
        );
        if let Some(overhead) = object
            .overhead
            .as_ref()
            .and_then(|overhead| overhead.pod_fixed.as_ref())
        {
            validate_overhead(
                overhead,
                &Path::new("overhead").child("podFixed"),
                &mut errors,
            );
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
            for (i, toleration) in tolerations.iter().enumerate() {
                if tolerations[..i].contains(toleration) {
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
            (
                json!({"handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}, "scheduling": {"tolerations": [toleration, toleration]}}),
                vec![
                    "overhead.podFixed.limits[cpu] FieldValueInvalid",
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
    }
}
