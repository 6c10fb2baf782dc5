//! DeviceClass: devices that administrators have chosen, under a name.

use k8s_openapi::api::resource::v1::DeviceClass;

use crate::registry::strategy::{Descriptor, ErrorList, Strategy};
use crate::validation::devices::class::validate_class_spec;
use crate::validation::equality;

pub(in super::super) struct DeviceClassStrategy;

impl Strategy for DeviceClassStrategy {
    type Object = DeviceClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<DeviceClass>()
            .generation()
            .returns_deleted()
    }

    fn set_defaults(&self, object: &mut DeviceClass) {
        object.spec.get_or_insert_default();
    }

    fn validate(&self, object: &DeviceClass) -> ErrorList {
        validate_class_spec(&object.spec.clone().unwrap_or_default(), None)
    }

    fn validate_update(&self, new: &DeviceClass, old: &DeviceClass) -> ErrorList {
        let spec = new.spec.clone().unwrap_or_default();
        validate_class_spec(&spec, old.spec.as_ref())
    }

    fn spec_changed(&self, new: &DeviceClass, old: &DeviceClass) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }
}
