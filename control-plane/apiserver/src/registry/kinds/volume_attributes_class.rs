//! VolumeAttributesClass: attributes of volumes that can change while they are used.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::parameters::validate_parameters;
use crate::validation::volume::storage::validate_driver_name;
use crate::validation::{equality, immutable};

pub(super) struct VolumeAttributesClassStrategy;

impl Strategy for VolumeAttributesClassStrategy {
    type Object = VolumeAttributesClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<VolumeAttributesClass>()
            .short_names(&["vac"])
            .returns_deleted()
    }

    fn validate(&self, object: &VolumeAttributesClass) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_driver_name(&object.driver_name, &Path::new("driverName"), &mut errors);
        let at = Path::new("parameters");
        validate_parameters(object.parameters.as_ref(), false, &at, &mut errors);
        errors
    }

    fn validate_update(
        &self,
        new: &VolumeAttributesClass,
        old: &VolumeAttributesClass,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("driverName");
        immutable(&new.driver_name, &old.driver_name, &at, &mut errors);
        if !equality::semantic(&new.parameters, &old.parameters) {
            let detail = "updates to parameters are forbidden.";
            let at = Path::new("parameters");
            errors.push(Error::forbidden(&at, detail));
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("DriverName", "The driver that knows the parameters."),
            Column::age(),
        ]
    }

    fn row(&self, object: &VolumeAttributesClass, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(object.driver_name.as_str()),
            printing::age(&object.metadata, now),
        ]
    }
}
