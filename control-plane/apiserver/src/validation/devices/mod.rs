//! Devices that Pods ask for: the claims, the classes, the slices of what drivers offer, and the
//! taints of devices.
//!
//! Fields of features that are off are dropped before anything is validated (`registry/kinds`).
//! What was stored is not judged again where the rules for it may become stricter: the expressions
//! of selectors, the capacity and the taints of a device that are as before.

pub(crate) mod allocation;
mod capacity;
pub(crate) mod claim;
pub(crate) mod class;
mod device;
mod names;
mod node;
pub(crate) mod slice;
pub(crate) mod taint;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;

/// A list that is not too long: its items are looked at only then. Returns whether they were.
fn at_most<T>(list: &[T], max: usize, at: &Path, errors: &mut ErrorList) -> bool {
    if list.len() > max {
        errors.push(Error::too_many(at, list.len(), max));
        return false;
    }
    true
}

/// An error for each item whose key an earlier one has.
fn unique<'a, T, K: Ord>(
    list: &'a [T],
    key: impl Fn(&'a T) -> K,
    shown: impl Fn(&'a T) -> serde_json::Value,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, item) in list.iter().enumerate() {
        if !seen.insert(key(item)) {
            errors.push(Error::duplicate(&at.index(i), shown(item)));
        }
    }
}

/// What only a driver understands: an object, not too large.
fn validate_raw(raw: &RawExtension, stored: bool, max: usize, at: &Path, errors: &mut ErrorList) {
    if raw.0.is_null() {
        errors.push(Error::required(at, ""));
    } else if !stored && raw.0.to_string().len() > max {
        errors.push(Error::too_long(at, max));
    } else if !raw.0.is_object() {
        let detail = "must be a valid JSON object";
        errors.push(Error::invalid(at, "<value omitted>", detail));
    }
}
