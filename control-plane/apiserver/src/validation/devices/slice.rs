//! Slices of what drivers offer.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::resource::v1::{
    Counter, CounterSet, Device, ResourcePool, ResourceSliceSpec,
};
use std::collections::BTreeMap;

use super::device::validate_device;
use super::names::{validate_driver, validate_label, validate_pool};
use super::node::{is_true, validate_places};
use super::{at_most, unique};
use crate::validation::{NOT_POSITIVE, immutable, items, shown};

const MAX_DEVICES: usize = 128;
/// Devices where some have taints or use counters, which makes more of each.
const MAX_LARGE_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const ONE_PLACE: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

/// The spec of a slice, and the one that it had before.
pub(crate) fn validate_slice_spec(
    spec: &ResourceSliceSpec,
    old: Option<&ResourceSliceSpec>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    validate_driver(&spec.driver, &at.child("driver"), &mut errors);
    validate_resource_pool(&spec.pool, &at.child("pool"), &mut errors);
    if let Some(old) = old {
        let name_at = at.child("pool").child("name");
        immutable(&spec.pool.name, &old.pool.name, &name_at, &mut errors);
        immutable(&spec.driver, &old.driver, &at.child("driver"), &mut errors);
        immutable(
            &spec.node_name,
            &old.node_name,
            &at.child("nodeName"),
            &mut errors,
        );
    }
    validate_place(spec, &at, &mut errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(Error::invalid(&at, "", detail));
    }
    validate_devices(spec, old, &at.child("devices"), &mut errors);
    let (sets, sets_at) = (items(&spec.shared_counters), at.child("sharedCounters"));
    if at_most(sets, MAX_COUNTER_SETS, &sets_at, &mut errors) {
        for (i, set) in sets.iter().enumerate() {
            validate_counter_set(set, &sets_at.index(i), &mut errors);
        }
        unique(
            sets,
            |s| &s.name,
            |s| s.name.as_str().into(),
            &sets_at,
            &mut errors,
        );
    }
    errors
}

fn validate_resource_pool(pool: &ResourcePool, at: &Path, errors: &mut ErrorList) {
    validate_pool(&pool.name, &at.child("name"), errors);
    if pool.resource_slice_count <= 0 {
        let (at, count) = (at.child("resourceSliceCount"), pool.resource_slice_count);
        errors.push(Error::invalid(&at, count, NOT_POSITIVE));
    }
    if pool.generation < 0 {
        let detail = "must be greater than or equal to zero";
        let at = at.child("generation");
        errors.push(Error::invalid(&at, pool.generation, detail));
    }
}

/// Where the devices are is said in one way.
fn validate_place(spec: &ResourceSliceSpec, at: &Path, errors: &mut ErrorList) {
    let mut set = validate_places(
        spec.node_name.as_deref(),
        spec.node_selector.as_ref(),
        spec.all_nodes,
        "must be either unset or set to a non-empty string",
        at,
        errors,
    );
    if let Some(selector) = &spec.node_selector
        && selector.node_selector_terms.len() != 1
    {
        let at = at.child("nodeSelector").child("nodeSelectorTerms");
        let detail = "must have exactly one node selector term";
        errors.push(Error::invalid(
            &at,
            shown(&selector.node_selector_terms),
            detail,
        ));
    }
    let each_at = at.child("perDeviceNodeSelection");
    if is_true(spec.per_device_node_selection, &each_at, errors) {
        set.push("`perDeviceNodeSelection`");
    }
    match set[..] {
        [] => errors.push(Error::required(at, ONE_PLACE)),
        [_] => {}
        _ => {
            let set = format!("{{{}}}", set.join(", "));
            let detail = format!("{ONE_PLACE}, but multiple fields are set");
            errors.push(Error::invalid(at, set, detail));
        }
    }
}

fn validate_devices(
    spec: &ResourceSliceSpec,
    old: Option<&ResourceSliceSpec>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let devices = items(&spec.devices);
    let large =
        |d: &Device| !items(&d.taints).is_empty() || !items(&d.consumes_counters).is_empty();
    let max = if devices.iter().any(large) {
        MAX_LARGE_DEVICES
    } else {
        MAX_DEVICES
    };
    if !at_most(devices, max, at, errors) {
        return;
    }
    let before = old.map(|old| items(&old.devices)).unwrap_or_default();
    let each = spec.per_device_node_selection == Some(true);
    for (i, device) in devices.iter().enumerate() {
        let before = before.iter().find(|old| old.name == device.name);
        validate_device(device, before, each, &at.index(i), errors);
    }
    unique(devices, |d| &d.name, |d| d.name.as_str().into(), at, errors);
}

fn validate_counter_set(set: &CounterSet, at: &Path, errors: &mut ErrorList) {
    validate_counter_name(&set.name, &at.child("name"), errors);
    validate_counters(&set.counters, MAX_COUNTERS, &at.child("counters"), errors);
}

/// The name of a set of counters.
pub(super) fn validate_counter_name(name: &str, at: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(Error::required(at, ""));
    } else {
        validate_label(name, at, errors);
    }
}

/// Counters by name: some, and not too many.
pub(super) fn validate_counters(
    counters: &BTreeMap<String, Counter>,
    max: usize,
    at: &Path,
    errors: &mut ErrorList,
) {
    if counters.is_empty() {
        errors.push(Error::required(at, ""));
    } else if counters.len() > max {
        errors.push(Error::too_many(at, counters.len(), max));
        return;
    }
    for (name, counter) in counters {
        validate_label(name, at, errors);
        let at = at.key(name).child("value");
        super::capacity::parse(&counter.value, &at, errors);
    }
}
