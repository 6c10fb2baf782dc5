//! Defaults of what is claimed: one device, where nothing else is said.

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequirements, Device, DeviceClaim, DeviceToleration,
    ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::validation::resources::{canonicalize, canonicalize_quantity};

const EXACT: &str = "ExactCount";

pub(super) fn claim_spec(spec: &mut ResourceClaimSpec) {
    let claim: &mut DeviceClaim = spec.devices.get_or_insert_default();
    for request in claim.requests.iter_mut().flatten() {
        if let Some(exactly) = &mut request.exactly {
            amount(&mut exactly.allocation_mode, &mut exactly.count);
            tolerations(&mut exactly.tolerations);
            capacity(&mut exactly.capacity);
        }
        for choice in request.first_available.iter_mut().flatten() {
            amount(&mut choice.allocation_mode, &mut choice.count);
            tolerations(&mut choice.tolerations);
            capacity(&mut choice.capacity);
        }
    }
}

fn amount(mode: &mut Option<String>, count: &mut Option<i64>) {
    if mode.as_deref().unwrap_or_default().is_empty() {
        *mode = Some(EXACT.to_owned());
    }
    if mode.as_deref() == Some(EXACT) && count.unwrap_or_default() == 0 {
        *count = Some(1);
    }
}

pub(super) fn tolerations(tolerations: &mut Option<Vec<DeviceToleration>>) {
    for toleration in tolerations.iter_mut().flatten() {
        let operator = &mut toleration.operator;
        if operator.as_deref().unwrap_or_default().is_empty() {
            *operator = Some("Equal".to_owned());
        }
    }
}

fn capacity(capacity: &mut Option<CapacityRequirements>) {
    if let Some(capacity) = capacity {
        canonicalize(&mut capacity.requests);
    }
}

/// Writes a quantity in its canonical form; one that is left out is zero, as in Go.
pub(super) fn quantity(quantity: &mut Quantity) {
    if quantity.0.is_empty() {
        "0".clone_into(&mut quantity.0);
    }
    canonicalize_quantity(quantity);
}

/// Writes the quantities of a device in their canonical form.
pub(super) fn device(device: &mut Device) {
    for capacity in device.capacity.iter_mut().flat_map(|all| all.values_mut()) {
        quantity(&mut capacity.value);
        if let Some(policy) = &mut capacity.request_policy {
            request_policy(policy);
        }
    }
    for consumed in device.consumes_counters.iter_mut().flatten() {
        for counter in consumed.counters.values_mut() {
            quantity(&mut counter.value);
        }
    }
}

fn request_policy(policy: &mut CapacityRequestPolicy) {
    policy.default.iter_mut().for_each(canonicalize_quantity);
    let values = policy.valid_values.iter_mut().flatten();
    values.for_each(canonicalize_quantity);
    if let Some(range) = &mut policy.valid_range {
        canonicalize_quantity(&mut range.min);
        range.max.iter_mut().for_each(canonicalize_quantity);
        range.step.iter_mut().for_each(canonicalize_quantity);
    }
}
