//! Taints of devices say since when there is their effect.

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceTaintRule, ResourceSlice};

use super::{Admission, Review};
use crate::registry::erased::Object;
use crate::registry::{Registry, meta};

pub(super) struct DeviceTaints;

#[async_trait]
impl Admission for DeviceTaints {
    async fn admit(
        &self,
        _registry: &Registry,
        _review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(object) = object else {
            return Ok(());
        };
        let object = object.as_any_mut();
        if let Some(rule) = object.downcast_mut::<DeviceTaintRule>() {
            let old = old.and_then(|old| old.as_any().downcast_ref::<DeviceTaintRule>());
            date_rule(rule, old);
        } else if let Some(slice) = object.downcast_mut::<ResourceSlice>() {
            let devices = slice.spec.devices.iter_mut().flatten();
            devices
                .flat_map(|device| device.taints.iter_mut().flatten())
                .for_each(date);
        }
        Ok(())
    }
}

fn date(taint: &mut DeviceTaint) {
    taint.time_added.get_or_insert_with(meta::now);
}

/// Another effect begins now, unless whoever changes it says when.
fn date_rule(rule: &mut DeviceTaintRule, old: Option<&DeviceTaintRule>) {
    let taint = &mut rule.spec.taint;
    if let Some(old) = old.map(|old| &old.spec.taint)
        && old.effect != taint.effect
        && old.time_added == taint.time_added
    {
        taint.time_added = None;
    }
    date(taint);
}
