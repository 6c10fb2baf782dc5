//! One device of a slice.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceCounterConsumption};

use super::capacity::validate_capacity;
use super::names::{validate_label, validate_qualified};
use super::node::validate_places;
use super::slice::{validate_counter_name, validate_counters};
use super::taint::validate_taint;
use super::{at_most, unique};
use crate::validation::labels::validate_label_name;
use crate::validation::{equality, items, shown};

/// Attributes and capacities together.
const MAX_PROPERTIES: usize = 32;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMED_SETS: usize = 2;
const MAX_CONSUMED_COUNTERS: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
/// Bytes of an attribute's value.
const MAX_VALUE: usize = 64;
const ATTRIBUTE_VALUES: &str =
    "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`";
const ONE_PLACE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// A device, and the one of the same name before. `placed` says whether it tells where it is.
pub(super) fn validate_device(
    device: &Device,
    old: Option<&Device>,
    placed: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_label(&device.name, &at.child("name"), errors);
    let count = |n: Option<usize>| n.unwrap_or_default();
    let properties = count(device.attributes.as_ref().map(BTreeMap::len))
        + count(device.capacity.as_ref().map(BTreeMap::len));
    if properties > MAX_PROPERTIES {
        let detail = format!(
            "the total number of attributes and capacities must not exceed {MAX_PROPERTIES}"
        );
        errors.push(Error::invalid(at, properties, detail));
    }
    let attributes_at = at.child("attributes");
    for (name, attribute) in device.attributes.iter().flatten() {
        validate_qualified(name, &attributes_at, errors);
        validate_attribute(attribute, &attributes_at.key(name), errors);
    }
    if old.is_none_or(|old| !equality::semantic(&old.capacity, &device.capacity)) {
        let shared = device.allow_multiple_allocations == Some(true);
        let capacity_at = at.child("capacity");
        for (name, capacity) in device.capacity.iter().flatten() {
            validate_qualified(name, &capacity_at, errors);
            validate_capacity(capacity, shared, &capacity_at.key(name), errors);
        }
    }
    let (taints, taints_at) = (items(&device.taints), at.child("taints"));
    if old.is_none_or(|old| !equality::semantic(&old.taints, &device.taints))
        && at_most(taints, MAX_TAINTS, &taints_at, errors)
    {
        for (i, taint) in taints.iter().enumerate() {
            validate_taint(taint, None, &taints_at.index(i), errors);
        }
    }
    validate_consumption(
        items(&device.consumes_counters),
        &at.child("consumesCounters"),
        errors,
    );
    validate_place(device, placed, at, errors);
    validate_binding(
        items(&device.binding_conditions),
        items(&device.binding_failure_conditions),
        at,
        errors,
    );
}

fn validate_place(device: &Device, placed: bool, at: &Path, errors: &mut ErrorList) {
    if !placed {
        let said = device.node_name.is_some()
            || device.node_selector.is_some()
            || device.all_nodes.is_some();
        if said {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(Error::invalid(at, serde_json::Value::Null, detail));
        }
        return;
    }
    let set = validate_places(
        device.node_name.as_deref(),
        device.node_selector.as_ref(),
        device.all_nodes,
        "must not be empty",
        at,
        errors,
    );
    match set[..] {
        [] => errors.push(Error::required(at, ONE_PLACE)),
        [_] => {}
        _ => {
            let set = format!("{{{}}}", set.join(", "));
            errors.push(Error::invalid(at, set, ONE_PLACE));
        }
    }
}

fn validate_attribute(attribute: &DeviceAttribute, at: &Path, errors: &mut ErrorList) {
    if let Some(value) = &attribute.string
        && value.len() > MAX_VALUE
    {
        errors.push(Error::too_long(&at.child("string"), MAX_VALUE));
    }
    if let Some(value) = &attribute.version {
        let at = at.child("version");
        if !is_version(value) {
            let detail = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(Error::invalid(&at, value.as_str(), detail));
        }
        if value.len() > MAX_VALUE {
            errors.push(Error::too_long(&at, MAX_VALUE));
        }
    }
    let given: Vec<&str> = [
        ("int", attribute.int.is_some()),
        ("bool", attribute.bool.is_some()),
        ("string", attribute.string.is_some()),
        ("version", attribute.version.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, given)| given.then_some(field))
    .collect();
    let (number, value) = match given.len() {
        1 => return,
        0 => ("one", String::new()),
        _ => ("exactly one", format!("{{{}}}", given.join(", "))),
    };
    let detail = format!("must specify {number} of: {ATTRIBUTE_VALUES}");
    errors.push(Error::invalid(at, value, detail));
}

/// Whether a text is a semantic version.
fn is_version(text: &str) -> bool {
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, before) = match rest.split_once('-') {
        Some((core, before)) => (core, Some(before)),
        None => (rest, None),
    };
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let number =
        |part: &str| !part.is_empty() && digits(part) && (part == "0" || !part.starts_with('0'));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|all| all.split('.').all(|p| word(p) && (!digits(p) || number(p))))
        && build.is_none_or(|all| all.split('.').all(word))
}

fn validate_consumption(
    consumption: &[DeviceCounterConsumption],
    at: &Path,
    errors: &mut ErrorList,
) {
    if !at_most(consumption, MAX_CONSUMED_SETS, at, errors) {
        return;
    }
    for (i, consumed) in consumption.iter().enumerate() {
        let at = at.index(i);
        validate_counter_name(&consumed.counter_set, &at.child("counterSet"), errors);
        let counters_at = at.child("counters");
        validate_counters(
            &consumed.counters,
            MAX_CONSUMED_COUNTERS,
            &counters_at,
            errors,
        );
    }
    unique(
        consumption,
        |consumed| &consumed.counter_set,
        |consumed| consumed.counter_set.as_str().into(),
        at,
        errors,
    );
}

/// Conditions that let a Pod be bound, and those that say that it never will be.
pub(super) fn validate_binding(good: &[String], bad: &[String], at: &Path, errors: &mut ErrorList) {
    let (good_at, bad_at) = (
        at.child("bindingConditions"),
        at.child("bindingFailureConditions"),
    );
    for (list, at) in [(good, &good_at), (bad, &bad_at)] {
        if at_most(list, MAX_BINDING_CONDITIONS, at, errors) {
            for (i, condition) in list.iter().enumerate() {
                validate_label_name(condition, &at.index(i), errors);
            }
        }
        unique(list, |name| name, |name| name.as_str().into(), at, errors);
    }
    let known: BTreeSet<&String> = good.iter().collect();
    for (i, condition) in bad.iter().enumerate() {
        if known.contains(condition) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(Error::invalid(&bad_at.index(i), condition.as_str(), detail));
        }
    }
    if good.is_empty() && !bad.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.push(Error::invalid(&good_at, shown(&good), detail));
    }
    if bad.is_empty() && !good.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        errors.push(Error::invalid(&bad_at, shown(&bad), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for version in [
            "1.2.3",
            "0.0.0",
            "1.2.3-alpha.1",
            "1.2.3-0a+b.001",
            "1.2.3+a-b",
        ] {
            assert!(is_version(version), "{version}");
        }
        for version in [
            "",
            "1.2",
            "v1.2.3",
            "01.2.3",
            "1.2.3-01",
            "1.2.3-",
            "1.2.3+",
            "1.2.3+a+b",
        ] {
            assert!(!is_version(version), "{version}");
        }
    }
}
