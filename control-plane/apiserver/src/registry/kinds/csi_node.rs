//! CSINode: the drivers of the Container Storage Interface that run on a node.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

use crate::registry::meta::keep_metadata;
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, Strategy, Subresource, resets_with_metadata,
};
use crate::validation::labels::validate_label_name;
use crate::validation::volume::storage::validate_driver_name;
use crate::validation::{NEGATIVE, items, shown};

/// Longest name of a node, as drivers have it.
const MAX_NODE_ID: usize = 256;

pub(super) struct CSINodeStrategy;

impl Strategy for CSINodeStrategy {
    type Object = CSINode;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<CSINode>()
            .conditional_update()
            .returns_deleted()
            .subresources(&[Subresource::Status])
    }

    fn prepare_for_create(&self, object: &mut CSINode) {
        object.status = None;
    }

    fn validate(&self, object: &CSINode) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec").child("drivers");
        let mut seen = BTreeSet::new();
        for (i, driver) in object.spec.drivers.iter().enumerate() {
            validate_driver(driver, &at.index(i), &mut errors);
            if !seen.insert(driver.name.as_str()) {
                errors.push(Error::duplicate(
                    &at.index(i).child("name"),
                    driver.name.as_str(),
                ));
            }
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut CSINode, old: &CSINode) {
        new.status.clone_from(&old.status);
    }

    /// A driver that is there stays as it is, but for how many volumes it can take.
    fn validate_update(&self, new: &CSINode, old: &CSINode) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("drivers");
        let before = old.spec.drivers.iter().map(|was| (&*was.name, was));
        let before: BTreeMap<&str, &CSINodeDriver> = before.collect();
        for driver in &new.spec.drivers {
            let changed = before.get(&*driver.name).is_some_and(|was| {
                (&was.node_id, &was.topology_keys) != (&driver.node_id, &driver.topology_keys)
            });
            if changed {
                let detail = "field is immutable";
                errors.push(Error::invalid(&at, shown(driver), detail));
            }
        }
        errors
    }

    /// Of what the status is for, the health of volumes, nothing is told yet.
    fn prepare_for_status_update(&self, new: &mut CSINode, old: &CSINode) {
        keep_metadata(&mut new.metadata, &old.metadata);
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        resets_with_metadata(subresource)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::integer("Drivers", "How many drivers run on the node."),
            Column::age(),
        ]
    }

    fn row(&self, object: &CSINode, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(object.spec.drivers.len()),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_driver(driver: &CSINodeDriver, at: &Path, errors: &mut ErrorList) {
    validate_driver_name(&driver.name, &at.child("name"), errors);
    let (id, id_at) = (driver.node_id.as_str(), at.child("nodeID"));
    if id.is_empty() {
        errors.push(Error::required(&id_at, ""));
    }
    if id.len() > MAX_NODE_ID {
        let detail = format!("must be {MAX_NODE_ID} characters or less");
        errors.push(Error::invalid(&id_at, id, detail));
    }
    let count = driver.allocatable.as_ref().and_then(|a| a.count);
    if let Some(count) = count.filter(|count| *count < 0) {
        let at = at.child("allocatable").child("count");
        errors.push(Error::invalid(&at, count, NEGATIVE));
    }
    let mut seen = BTreeSet::new();
    for key in items(&driver.topology_keys) {
        if key.is_empty() {
            errors.push(Error::required(at, ""));
        }
        if !seen.insert(key) {
            errors.push(Error::duplicate(at, key.as_str()));
        }
        validate_label_name(key, at, errors);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn node(drivers: Value) -> CSINode {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}}))
            .unwrap()
    }

    #[test]
    fn validation() {
        let good = json!([{"name": "d", "nodeID": "n", "allocatable": {"count": 3}}]);
        let table: Vec<(Value, Vec<&str>)> = vec![
            (good.clone(), vec![]),
            (
                json!([{"name": "", "nodeID": "", "allocatable": {"count": -1}, "topologyKeys": ["a", "a"]}]),
                vec![
                    "spec.drivers[0].name FieldValueRequired",
                    "spec.drivers[0].nodeID FieldValueRequired",
                    "spec.drivers[0].allocatable.count FieldValueInvalid",
                    "spec.drivers[0] FieldValueDuplicate",
                ],
            ),
        ];
        for (drivers, want) in table {
            assert_causes(&CSINodeStrategy.validate(&node(drivers)), &want);
        }
        let grown = json!([{"name": "d", "nodeID": "n", "allocatable": {"count": 4}}]);
        assert_causes(
            &CSINodeStrategy.validate_update(&node(grown), &node(good.clone())),
            &[],
        );
        let moved = json!([{"name": "d", "nodeID": "m"}]);
        assert_causes(
            &CSINodeStrategy.validate_update(&node(moved), &node(good)),
            &["spec.drivers FieldValueInvalid field is immutable"],
        );
    }
}
