//! DeviceTaintRule: a taint that an administrator puts on devices. When it was added is written by
//! admission (`admission/device_taints`).

use coracle_apimachinery::table;
use k8s_openapi::api::resource::v1::DeviceTaintRule;

use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, Strategy, Subresource, resets_with_metadata,
};
use crate::registry::{meta, printing};
use crate::validation::devices::taint::{validate_taint_rule, validate_taint_rule_status};
use crate::validation::{equality, text};

pub(in super::super) struct DeviceTaintRuleStrategy;

impl Strategy for DeviceTaintRuleStrategy {
    type Object = DeviceTaintRule;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<DeviceTaintRule>()
            .subresources(&[Subresource::Status])
            .generation()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut DeviceTaintRule) {
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut DeviceTaintRule) {
        object.status = Some(Default::default());
    }

    fn prepare_for_update(&self, new: &mut DeviceTaintRule, old: &DeviceTaintRule) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut DeviceTaintRule, old: &DeviceTaintRule) {
        new.spec.clone_from(&old.spec);
        meta::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn spec_changed(&self, new: &DeviceTaintRule, old: &DeviceTaintRule) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Key", "The key of the taint."),
            Column::text("Value", "Its value."),
            Column::text("Effect", "What it does to who does not tolerate it."),
            Column::text("TimeAdded", "The time since it has that effect."),
            Column::age(),
        ]
    }

    fn row(&self, object: &DeviceTaintRule, now: jiff::Timestamp) -> Vec<Cell> {
        let taint = &object.spec.taint;
        let added = taint.time_added.as_ref();
        vec![
            printing::name(&object.metadata),
            Cell::from(taint.key.as_str()),
            Cell::from(text(&taint.value)),
            Cell::from(taint.effect.as_str()),
            Cell::from(added.map_or_else(String::new, |added| table::age(Some(added), now))),
            printing::age(&object.metadata, now),
        ]
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        resets_with_metadata(subresource)
    }

    fn validate(&self, object: &DeviceTaintRule) -> ErrorList {
        validate_taint_rule(&object.spec, None)
    }

    fn validate_update(&self, new: &DeviceTaintRule, old: &DeviceTaintRule) -> ErrorList {
        validate_taint_rule(&new.spec, Some(&old.spec))
    }

    fn validate_status_update(&self, new: &DeviceTaintRule, _old: &DeviceTaintRule) -> ErrorList {
        validate_taint_rule_status(&new.status.clone().unwrap_or_default())
    }
}
