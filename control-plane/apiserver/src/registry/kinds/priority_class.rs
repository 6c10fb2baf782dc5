//! PriorityClass: how much a Pod matters beside others.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{immutable, one_of, text};

/// Highest value that is not the system's.
const MAX_USER_VALUE: i32 = 1_000_000_000;
/// The classes of the system itself.
const SYSTEM: [(&str, i32); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

pub(super) struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    type Object = PriorityClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PriorityClass>()
            .short_names(&["pc"])
            .generation()
    }

    fn set_defaults(&self, object: &mut PriorityClass) {
        object
            .preemption_policy
            .get_or_insert_with(|| "PreemptLowerPriority".to_owned());
        object.value.get_or_insert(0);
    }

    fn validate(&self, object: &PriorityClass) -> ErrorList {
        let mut errors = ErrorList::default();
        let (name, value) = (text(&object.metadata.name), object.value.unwrap_or(0));
        if name.starts_with("system-") {
            let global = object.global_default == Some(true);
            if let Some(fault) = system_fault(name, value, global) {
                let at = Path::new("metadata").child("name");
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {fault}"
                );
                errors.push(Error::forbidden(&at, detail));
            }
        } else if value > MAX_USER_VALUE {
            let detail =
                format!("maximum allowed value of a user defined priority is {MAX_USER_VALUE}");
            errors.push(Error::forbidden(&Path::new("value"), detail));
        }
        if let Some(policy) = &object.preemption_policy {
            let supported = ["PreemptLowerPriority", "Never"];
            one_of(
                policy,
                &supported,
                &Path::new("preemptionPolicy"),
                &mut errors,
            );
        }
        errors
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass) -> ErrorList {
        let mut errors = ErrorList::default();
        // Pods carry the value: it would not change with the class.
        if new.value != old.value {
            errors.push(Error::forbidden(
                &Path::new("value"),
                "may not be changed in an update.",
            ));
        }
        let at = Path::new("preemptionPolicy");
        immutable(
            &new.preemption_policy,
            &old.preemption_policy,
            &at,
            &mut errors,
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::integer("Value", "The priority of the pods of this class."),
            Column {
                kind: "boolean".into(),
                ..Column::text(
                    "Global-Default",
                    "Whether pods that name no class are of this one.",
                )
            },
            Column::age(),
            Column::text(
                "PreemptionPolicy",
                "Whether pods of this class make room for themselves.",
            ),
        ]
    }

    fn row(&self, object: &PriorityClass, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(object.value.unwrap_or(0)),
            Cell::Json(object.global_default.unwrap_or(false).into()),
            printing::age(&object.metadata, now),
            Cell::from(text(&object.preemption_policy)),
        ]
    }
}

/// Why a class is none of the system's.
fn system_fault(name: &str, value: i32, global: bool) -> Option<String> {
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, want)) if value != *want => {
            Some(format!("value of {name} PriorityClass must be {want}"))
        }
        Some(_) if global => Some(format!(
            "globalDefault of {name} PriorityClass must be false"
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn class(value: Value) -> PriorityClass {
        let mut class = serde_json::from_value(value).unwrap();
        PriorityClassStrategy.set_defaults(&mut class);
        class
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"metadata": {"name": "high"}, "value": 1000}), vec![]),
            (
                json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
                vec![],
            ),
            (
                json!({"metadata": {"name": "system-mine"}, "value": 1}),
                vec!["metadata.name FieldValueForbidden"],
            ),
            (
                json!({"metadata": {"name": "system-node-critical"}, "value": 1}),
                vec![
                    "metadata.name FieldValueForbidden priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
                ],
            ),
            (
                json!({"metadata": {"name": "a"}, "value": 1_000_000_001}),
                vec!["value FieldValueForbidden maximum allowed"],
            ),
            (
                json!({"metadata": {"name": "a"}, "preemptionPolicy": "Maybe"}),
                vec!["preemptionPolicy FieldValueNotSupported"],
            ),
        ];
        for (value, want) in table {
            assert_causes(&PriorityClassStrategy.validate(&class(value)), &want);
        }
        assert_causes(
            &PriorityClassStrategy.validate_update(
                &class(json!({"value": 1, "preemptionPolicy": "Never"})),
                &class(json!({"value": 2})),
            ),
            &[
                "value FieldValueForbidden may not be changed",
                "preemptionPolicy FieldValueInvalid field is immutable",
            ],
        );
    }
}
