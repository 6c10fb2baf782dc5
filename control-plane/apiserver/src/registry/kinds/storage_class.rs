//! StorageClass: how volumes of a sort are made.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::labels::validate_label_name;
use crate::validation::parameters::validate_parameters;
use crate::validation::scheduling::deprecated::deprecated_label;
use crate::validation::{faults, immutable, items, text};

/// Says of a class that it is the one of claims that name none.
pub(crate) const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// The same, as it was said before.
pub(crate) const WAS_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";

pub(super) struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    type Object = StorageClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<StorageClass>()
            .short_names(&["sc"])
            .returns_deleted()
    }

    fn set_defaults(&self, object: &mut StorageClass) {
        object
            .reclaim_policy
            .get_or_insert_with(|| "Delete".to_owned());
        object
            .volume_binding_mode
            .get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate(&self, object: &StorageClass) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("provisioner");
        let provisioner = object.provisioner.as_str();
        if provisioner.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            let wrong = names::qualified_name(&provisioner.to_lowercase());
            faults(provisioner, wrong, &at, &mut errors);
        }
        let at = Path::new("parameters");
        validate_parameters(object.parameters.as_ref(), true, &at, &mut errors);
        let policy = text(&object.reclaim_policy);
        if !policy.is_empty() && !matches!(policy, "Delete" | "Retain") {
            let at = Path::new("reclaimPolicy");
            errors.push(Error::not_supported(&at, policy, &["Delete", "Retain"]));
        }
        let mode = text(&object.volume_binding_mode);
        let supported = &["Immediate", "WaitForFirstConsumer"];
        let at = Path::new("volumeBindingMode");
        if mode.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !supported.contains(&mode) {
            errors.push(Error::not_supported(&at, mode, supported));
        }
        validate_topologies(
            items(&object.allowed_topologies),
            &Path::new("allowedTopologies"),
            &mut errors,
        );
        errors
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("parameters");
        immutable(&new.parameters, &old.parameters, &at, &mut errors);
        let at = Path::new("provisioner");
        immutable(&new.provisioner, &old.provisioner, &at, &mut errors);
        let fields = [
            ("reclaimPolicy", &new.reclaim_policy, &old.reclaim_policy),
            (
                "volumeBindingMode",
                &new.volume_binding_mode,
                &old.volume_binding_mode,
            ),
        ];
        for (field, new, old) in fields {
            immutable(new, old, &Path::new(field), &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &StorageClass) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, term) in items(&object.allowed_topologies).iter().enumerate() {
            let at = Path::new("allowedTopologies").index(i);
            let at = at.child("matchLabelExpressions");
            for (i, expression) in items(&term.match_label_expressions).iter().enumerate() {
                if let Some(instead) = deprecated_label(&expression.key) {
                    let at = at.index(i).child("key");
                    warnings.push(format!("{at}: {instead}"));
                }
            }
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Provisioner", "Who makes the volumes."),
            Column::text(
                "ReclaimPolicy",
                "What happens to a volume when its claim is gone.",
            ),
            Column::text("VolumeBindingMode", "When a claim gets its volume."),
            Column::text("AllowVolumeExpansion", "Whether volumes can grow."),
            Column::age(),
        ]
    }

    fn row(&self, object: &StorageClass, now: jiff::Timestamp) -> Vec<Cell> {
        let mut name = object.metadata.name.clone().unwrap_or_default();
        if is_default(object) {
            name += " (default)";
        }
        let grows = object.allow_volume_expansion == Some(true);
        vec![
            Cell::from(name),
            Cell::from(object.provisioner.as_str()),
            Cell::from(text(&object.reclaim_policy)),
            Cell::from(text(&object.volume_binding_mode)),
            Cell::Json(grows.into()),
            printing::age(&object.metadata, now),
        ]
    }
}

/// Whether claims that name no class are of this one.
pub(crate) fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    [IS_DEFAULT, WAS_DEFAULT].into_iter().any(|name| {
        annotations
            .and_then(|annotations| annotations.get(name))
            .map(String::as_str)
            == Some("true")
    })
}

/// The values of each key that a term selects, in whatever order.
fn selected(term: &TopologySelectorTerm) -> BTreeMap<&str, BTreeSet<&str>> {
    let expressions = items(&term.match_label_expressions).iter();
    expressions
        .map(|expression| {
            let values = expression.values.iter().map(String::as_str);
            (expression.key.as_str(), values.collect())
        })
        .collect()
}

fn validate_topologies(terms: &[TopologySelectorTerm], at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, term) in terms.iter().enumerate() {
        let term_at = at.index(i);
        let expressions_at = term_at.child("matchLabelExpressions");
        let expressions = items(&term.match_label_expressions);
        let mut keys = BTreeSet::new();
        for (j, expression) in expressions.iter().enumerate() {
            let at = expressions_at.index(j);
            let values_at = at.child("values");
            if expression.values.is_empty() {
                errors.push(Error::required(&values_at, ""));
            }
            let mut values = BTreeSet::new();
            for (k, value) in expression.values.iter().enumerate() {
                if !values.insert(value) {
                    errors.push(Error::duplicate(&values_at.index(k), value.as_str()));
                }
            }
            validate_label_name(&expression.key, &at.child("key"), errors);
            if !keys.insert(&expression.key) {
                errors.push(Error::duplicate(&at.child("key"), expression.key.as_str()));
            }
        }
        // A term that says nothing is the same as one that is not there.
        let said = selected(term);
        if said.is_empty() || !seen.insert(said) {
            errors.push(Error::duplicate(&expressions_at, ""));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn class(change: Value) -> StorageClass {
        let mut value = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk"});
        for (field, member) in change.as_object().unwrap() {
            value[field] = member.clone();
        }
        let mut class = serde_json::from_value(value).unwrap();
        StorageClassStrategy.set_defaults(&mut class);
        class
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"provisioner": "", "parameters": {"": "x"}, "reclaimPolicy": "Recycle", "volumeBindingMode": "Later"}),
                vec![
                    "provisioner FieldValueRequired",
                    "parameters FieldValueInvalid field can not be empty.",
                    "reclaimPolicy FieldValueNotSupported",
                    "volumeBindingMode FieldValueNotSupported",
                ],
            ),
            (
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}, {"key": "zone", "values": []}]}, {}]}),
                vec![
                    "allowedTopologies[0].matchLabelExpressions[0].values[1] FieldValueDuplicate",
                    "allowedTopologies[0].matchLabelExpressions[1].values FieldValueRequired",
                    "allowedTopologies[0].matchLabelExpressions[1].key FieldValueDuplicate",
                    "allowedTopologies[1].matchLabelExpressions FieldValueDuplicate",
                ],
            ),
        ];
        for (change, want) in table {
            assert_causes(&StorageClassStrategy.validate(&class(change)), &want);
        }
        let other = json!({"provisioner": "b.example.com", "parameters": {"a": "b"}, "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer"});
        assert_causes(
            &StorageClassStrategy.validate_update(&class(other), &class(json!({}))),
            &[
                "parameters FieldValueInvalid field is immutable",
                "provisioner FieldValueInvalid field is immutable",
                "reclaimPolicy FieldValueInvalid field is immutable",
                "volumeBindingMode FieldValueInvalid field is immutable",
            ],
        );
        let zones = class(json!({"allowedTopologies": [
            {"matchLabelExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "values": []}]},
        ]}));
        assert_causes(
            &StorageClassStrategy.validate_update(&zones, &class(json!({}))),
            &["allowedTopologies[0].matchLabelExpressions[0].values FieldValueRequired"],
        );
        assert_eq!(
            StorageClassStrategy.warnings(&zones),
            [
                "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
            ]
        );
    }
}
