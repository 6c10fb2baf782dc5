//! CSIStorageCapacity: how much a driver has left somewhere.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::labels::validate_label_selector;
use crate::validation::resources::canonicalize_quantity;
use crate::validation::scheduling::deprecated::deprecated_label;
use crate::validation::{NEGATIVE, faults, immutable, items};

pub(super) struct CSIStorageCapacityStrategy;

impl Strategy for CSIStorageCapacityStrategy {
    type Object = CSIStorageCapacity;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<CSIStorageCapacity>().conditional_update()
    }

    fn set_defaults(&self, object: &mut CSIStorageCapacity) {
        object.capacity.iter_mut().for_each(canonicalize_quantity);
        object
            .maximum_volume_size
            .iter_mut()
            .for_each(canonicalize_quantity);
    }

    fn validate(&self, object: &CSIStorageCapacity) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(topology) = &object.node_topology {
            validate_label_selector(topology, &Path::new("nodeTopology"), &mut errors);
        }
        let class = object.storage_class_name.as_str();
        let wrong = names::dns_subdomain(class);
        faults(class, wrong, &Path::new("storageClassName"), &mut errors);
        if let Some(amount) = &object.capacity {
            let at = Path::new("capacity");
            match Quantity::try_from(amount) {
                Ok(parsed) if parsed.is_negative() => {
                    errors.push(Error::invalid(&at, amount.0.as_str(), NEGATIVE));
                }
                Ok(_) => {}
                Err(error) => {
                    let detail = error.to_string();
                    errors.push(Error::invalid(&at, amount.0.as_str(), detail));
                }
            }
        }
        errors
    }

    fn validate_update(&self, new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("nodeTopology");
        immutable(&new.node_topology, &old.node_topology, &at, &mut errors);
        let at = Path::new("storageClassName");
        immutable(
            &new.storage_class_name,
            &old.storage_class_name,
            &at,
            &mut errors,
        );
        errors
    }

    fn warnings(&self, object: &CSIStorageCapacity) -> Vec<String> {
        let Some(topology) = &object.node_topology else {
            return Vec::new();
        };
        let at = Path::new("nodeTopology");
        let mut warnings = Vec::new();
        for (i, expression) in items(&topology.match_expressions).iter().enumerate() {
            if let Some(instead) = deprecated_label(&expression.key) {
                let at = at.child("matchExpressions").index(i).child("key");
                warnings.push(format!("{at}: {} is {instead}", expression.key));
            }
        }
        for label in topology.match_labels.iter().flatten().map(|(key, _)| key) {
            if let Some(instead) = deprecated_label(label) {
                let at = at.child("matchLabels").child(label);
                warnings.push(format!("{at}: {instead}"));
            }
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("StorageClassName", "The class of the volumes."),
            Column::text("Capacity", "How much is left."),
        ]
    }

    fn row(&self, object: &CSIStorageCapacity, _now: jiff::Timestamp) -> Vec<Cell> {
        let capacity = object.capacity.as_ref().map(|amount| amount.0.as_str());
        vec![
            printing::name(&object.metadata),
            Cell::from(object.storage_class_name.as_str()),
            Cell::from(capacity.unwrap_or("<unset>")),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn capacity(value: Value) -> CSIStorageCapacity {
        let mut object = serde_json::from_value(value).unwrap();
        CSIStorageCapacityStrategy.set_defaults(&mut object);
        object
    }

    #[test]
    fn validation() {
        let good =
            json!({"storageClassName": "gold", "capacity": "1Gi", "maximumVolumeSize": "1Gi"});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (good.clone(), vec![]),
            (
                json!({"storageClassName": "", "capacity": "-1", "nodeTopology": {"matchLabels": {"a b": "c"}}}),
                vec![
                    "nodeTopology.matchLabels FieldValueInvalid",
                    "storageClassName FieldValueInvalid",
                    "capacity FieldValueInvalid must be greater than or equal to 0",
                ],
            ),
        ];
        for (value, want) in table {
            let errors = CSIStorageCapacityStrategy.validate(&capacity(value));
            assert_causes(&errors, &want);
        }
        let zone = "failure-domain.beta.kubernetes.io/zone";
        let moved = capacity(json!({"storageClassName": "silver", "nodeTopology": {
            "matchLabels": {zone: "a"}, "matchExpressions": [{"key": zone, "operator": "Exists"}],
        }}));
        assert_causes(
            &CSIStorageCapacityStrategy.validate_update(&moved, &capacity(good)),
            &[
                "nodeTopology FieldValueInvalid field is immutable",
                "storageClassName FieldValueInvalid field is immutable",
            ],
        );
        assert_eq!(CSIStorageCapacityStrategy.warnings(&moved).len(), 2);
    }
}
