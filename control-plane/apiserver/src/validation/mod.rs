//! Rules that several kinds share: ObjectMeta, selectors, pod templates, resources.
//!
//! Pure functions from a part of an object and its path to field errors. Field, type and wording
//! of an error are those of Kubernetes 1.37, because people and tools read them. Nothing here
//! reads the store or the clock, and nothing changes an object: defaults are set by the kinds
//! (`registry/kinds`), before validation, and so a value that has a default is required here.
//!
//! A list can have as many items as a body has bytes: what is looked for in one is in a set, and an
//! error about an item repeats nothing that all items share (`large_inputs`).

pub(crate) mod address;
pub(crate) mod admission_registration;
pub(crate) mod api_service;
pub(crate) mod authorization;
pub(crate) mod autoscaling;
pub(crate) mod cel;
pub(crate) mod certificates;
pub(crate) mod claim;
pub(crate) mod conditions;
pub(crate) mod devices;
pub(crate) mod equality;
pub(crate) mod flow_control;
pub(crate) mod ingress;
pub(crate) mod int_or_percent;
pub(crate) mod job;
pub(crate) mod labels;
#[cfg(test)]
mod large_inputs;
pub(crate) mod legacy_address;
pub(crate) mod object_meta;
pub(crate) mod parameters;
pub(crate) mod persistent_volume;
pub(crate) mod pod;
pub(crate) mod pod_certificate;
pub(crate) mod port;
pub(crate) mod rbac;
pub(crate) mod references;
pub(crate) mod resources;
pub(crate) mod scheduling;
pub(crate) mod service;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod volume;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use serde::Serialize;
use serde_json::Value;

/// What Kubernetes says of a field that may be set once.
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// What Kubernetes says of a number below zero.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
/// What Kubernetes says of a number that is not above zero.
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";

/// One `Invalid` error for each fault that a rule of `names` found in a value.
pub(crate) fn faults(value: &str, faults: Vec<String>, at: &Path, errors: &mut ErrorList) {
    errors.extend(
        faults
            .into_iter()
            .map(|fault| Error::invalid(at, value, fault)),
    );
}

/// A number that may not be negative.
pub(crate) fn non_negative(value: impl Into<i64>, at: &Path, errors: &mut ErrorList) {
    let value = value.into();
    if value < 0 {
        errors.push(Error::invalid(at, value, NEGATIVE));
    }
}

/// A string of a closed set: required, or one of `supported`.
pub(crate) fn one_of(value: &str, supported: &[&str], at: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(Error::required(at, ""));
    } else if !supported.contains(&value) {
        errors.push(Error::not_supported(at, value, supported));
    }
}

/// An error where a field that may be set once has changed.
pub(crate) fn immutable<T: Serialize + PartialEq>(
    new: &T,
    old: &T,
    at: &Path,
    errors: &mut ErrorList,
) {
    if !equality::semantic(new, old) {
        errors.push(Error::invalid(at, shown(new), IMMUTABLE));
    }
}

/// A part of an object, as an error shows it.
pub(crate) fn shown<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// An optional string, absent as empty: what Kubernetes' types do not tell apart.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// An optional list, absent as empty.
pub(crate) fn items<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}
