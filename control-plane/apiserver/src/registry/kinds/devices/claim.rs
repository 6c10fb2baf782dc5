//! ResourceClaim: devices that are wanted, and those that were got.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::resource::v1::ResourceClaim;

use super::{alpha, defaults};
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, Strategy, Subresource, resets_with_metadata,
};
use crate::registry::{meta, printing};
use crate::validation::devices::allocation::{device_id, devices_of, validate_claim_status};
use crate::validation::devices::claim::validate_claim_spec;
use crate::validation::{immutable, items};

pub(in super::super) struct ResourceClaimStrategy;

impl Strategy for ResourceClaimStrategy {
    type Object = ResourceClaim;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ResourceClaim>()
            .subresources(&[Subresource::Status])
            .returns_deleted()
    }

    fn set_defaults(&self, object: &mut ResourceClaim) {
        defaults::claim_spec(object.spec.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        let devices = status
            .allocation
            .iter_mut()
            .filter_map(|a| a.devices.as_mut());
        for result in devices.filter_map(|d| d.results.as_mut()).flatten() {
            defaults::tolerations(&mut result.tolerations);
        }
    }

    fn prepare_for_create(&self, object: &mut ResourceClaim) {
        object.status = Some(Default::default());
        object.spec.iter_mut().for_each(alpha::drop_from_claim);
    }

    fn validate(&self, object: &ResourceClaim) -> ErrorList {
        let mut errors = ErrorList::default();
        let spec = object.spec.clone().unwrap_or_default();
        validate_claim_spec(&spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, new: &mut ResourceClaim, old: &ResourceClaim) {
        new.status.clone_from(&old.status);
        new.spec.iter_mut().for_each(alpha::drop_from_claim);
    }

    fn validate_update(&self, new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
        let mut errors = ErrorList::default();
        immutable(&new.spec, &old.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_status_update(&self, new: &mut ResourceClaim, old: &ResourceClaim) {
        new.spec.clone_from(&old.spec);
        meta::keep_metadata(&mut new.metadata, &old.metadata);
        let status = new.status.iter_mut();
        let devices = status.filter_map(|s| s.allocation.as_mut()?.devices.as_mut());
        for result in devices.filter_map(|d| d.results.as_mut()).flatten() {
            alpha::drop_from_result(result);
        }
        forget_deallocated(new, old);
    }

    fn validate_status_update(&self, new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
        validate_claim_status(new, old)
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        resets_with_metadata(subresource)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("State", "Whether it has its devices, and they are in use."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ResourceClaim, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(state(object)),
            printing::age(&object.metadata, now),
        ]
    }
}

/// What drivers told of devices goes with the devices, so that who takes them away need not know.
fn forget_deallocated(new: &mut ResourceClaim, old: &ResourceClaim) {
    let (Some(status), Some(before)) = (&mut new.status, &old.status) else {
        return;
    };
    let now: Vec<_> = status.allocation.iter().flat_map(devices_of).collect();
    let gone: Vec<_> = before.allocation.iter().flat_map(devices_of).collect();
    let gone: Vec<_> = gone.into_iter().filter(|id| !now.contains(id)).collect();
    if let Some(devices) = &mut status.devices {
        devices.retain(|device| !gone.contains(&device_id(device)));
        if devices.is_empty() {
            status.devices = None;
        }
    }
}

/// What became of a claim so far.
fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.clone().unwrap_or_default();
    let deleted = claim.metadata.deletion_timestamp.is_some();
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if status.allocation.is_some() {
        states.push("allocated");
        if !items(&status.reserved_for).is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}
