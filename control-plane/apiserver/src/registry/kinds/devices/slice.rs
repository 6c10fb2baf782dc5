//! ResourceSlice: devices that a driver offers.

use k8s_openapi::api::resource::v1::ResourceSlice;

use super::{alpha, defaults};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::devices::slice::validate_slice_spec;
use crate::validation::{equality, text};

const NODE_FIELD: &str = "spec.nodeName";
const DRIVER_FIELD: &str = "spec.driver";
const POOL_FIELD: &str = "spec.pool.name";

pub(in super::super) struct ResourceSliceStrategy;

impl Strategy for ResourceSliceStrategy {
    type Object = ResourceSlice;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ResourceSlice>()
            .returns_deleted()
            .generation()
            .fields(&[NODE_FIELD, DRIVER_FIELD, POOL_FIELD])
    }

    fn set_defaults(&self, object: &mut ResourceSlice) {
        let spec = &mut object.spec;
        spec.devices.iter_mut().flatten().for_each(defaults::device);
        let sets = spec.shared_counters.iter_mut().flatten();
        for counter in sets.flat_map(|set| set.counters.values_mut()) {
            defaults::quantity(&mut counter.value);
        }
    }

    fn prepare_for_create(&self, object: &mut ResourceSlice) {
        alpha::drop_from_slice(&mut object.spec);
    }

    fn validate(&self, object: &ResourceSlice) -> ErrorList {
        validate_slice_spec(&object.spec, None)
    }

    fn prepare_for_update(&self, new: &mut ResourceSlice, _old: &ResourceSlice) {
        alpha::drop_from_slice(&mut new.spec);
    }

    fn validate_update(&self, new: &ResourceSlice, old: &ResourceSlice) -> ErrorList {
        validate_slice_spec(&new.spec, Some(&old.spec))
    }

    fn spec_changed(&self, new: &ResourceSlice, old: &ResourceSlice) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn warnings(&self, object: &ResourceSlice) -> Vec<String> {
        let driver = &object.spec.driver;
        let upper = driver.chars().any(char::is_uppercase);
        let warning = format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        );
        upper.then_some(warning).into_iter().collect()
    }

    fn selectable_fields(&self, object: &ResourceSlice) -> Vec<(&'static str, String)> {
        vec![
            (NODE_FIELD, text(&object.spec.node_name).to_owned()),
            (DRIVER_FIELD, object.spec.driver.clone()),
            (POOL_FIELD, object.spec.pool.name.clone()),
        ]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Node", "The node at which the devices are."),
            Column::text("Driver", "Who offers them."),
            Column::text("Pool", "The pool to which they belong."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ResourceSlice, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        vec![
            printing::name(&object.metadata),
            Cell::from(text(&spec.node_name)),
            Cell::from(spec.driver.as_str()),
            Cell::from(spec.pool.name.as_str()),
            printing::age(&object.metadata, now),
        ]
    }
}
