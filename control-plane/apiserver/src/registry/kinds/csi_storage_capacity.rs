//! CSIStorageCapacity: how much a driver has left somewhere.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::labels::validate_label_selector;
use crate::validation::resources::canonicalize_quantity;
use crate::validation::{NEGATIVE, faults, immutable};

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
        let amounts = [
            ("capacity", &object.capacity),
            ("maximumVolumeSize", &object.maximum_volume_size),
        ];
        for (field, amount) in amounts {
            let Some(amount) = amount else { continue };
            let at = Path::new(field);
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
