//! VolumeAttributesClass: attributes of volumes that can change while they are used.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::parameters::validate_parameters;
use crate::validation::{equality, faults};

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
        // A driver is named as the provisioner of a StorageClass is.
        let (driver, at) = (object.driver_name.as_str(), Path::new("driverName"));
        if driver.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            let wrong = names::qualified_name(&driver.to_lowercase());
            faults(driver, wrong, &at, &mut errors);
        }
        let at = Path::new("parameters");
        validate_parameters(object.parameters.as_ref(), false, &at, &mut errors);
        errors
    }

    fn validate_update(
        &self,
        new: &VolumeAttributesClass,
        old: &VolumeAttributesClass,
    ) -> ErrorList {
        let mut errors = self.validate(new);
        let changed = [
            ("driverName", new.driver_name != old.driver_name),
            (
                "parameters",
                !equality::semantic(&new.parameters, &old.parameters),
            ),
        ];
        for (field, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            let detail = format!("updates to {field} are forbidden.");
            errors.push(Error::forbidden(&Path::new(field), detail));
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn validation() {
        let class = |driver: &str, parameters: Value| -> VolumeAttributesClass {
            let value =
                json!({"metadata": {"name": "a"}, "driverName": driver, "parameters": parameters});
            serde_json::from_value(value).unwrap()
        };
        let (good, some) = ("Example.com/disk", json!({"iops": "1"}));
        let table: Vec<(&str, Value, Vec<&str>)> = vec![
            (good, some.clone(), vec![]),
            (
                "",
                json!({}),
                vec![
                    "driverName FieldValueRequired",
                    "parameters FieldValueRequired must contain",
                ],
            ),
            ("a b", some.clone(), vec!["driverName FieldValueInvalid"]),
        ];
        for (driver, parameters, want) in table {
            let errors = VolumeAttributesClassStrategy.validate(&class(driver, parameters));
            assert_causes(&errors, &want);
        }
        assert_causes(
            &VolumeAttributesClassStrategy
                .validate_update(&class("other", json!({"iops": "2"})), &class(good, some)),
            &[
                "driverName FieldValueForbidden updates to driverName are forbidden.",
                "parameters FieldValueForbidden updates to parameters are forbidden.",
            ],
        );
    }
}
