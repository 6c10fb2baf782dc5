//! Annotations of a Pod that mean something.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};

use k8s_openapi::api::core::v1::PodSpec;

use super::profiles::{APP_ARMOR, validate_profiles};
use crate::validation::text;

/// On a Pod that the kubelet made from a file, for the API to show.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Lower cost: deleted sooner when a ReplicaSet shrinks.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The annotations of a Pod or a template.
pub(crate) fn validate_pod_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    spec: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let get = |key: &str| annotations.and_then(|annotations| annotations.get(key));
    if let Some(value) = get(MIRROR)
        && text(&spec.node_name).is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(Error::invalid(&at.key(MIRROR), value.as_str(), detail));
    }
    if let Some(value) = get(DELETION_COST)
        && !is_deletion_cost(value)
    {
        errors.push(Error::invalid(
            &at.key(DELETION_COST),
            value.as_str(),
            "must be a 32bit integer",
        ));
    }
    if let Some(annotations) = annotations {
        validate_profiles(annotations, spec, at, errors);
    }
}

/// What may not change in the annotations of a Pod.
pub(crate) fn validate_pod_annotation_update(
    new: Option<&BTreeMap<String, String>>,
    old: Option<&BTreeMap<String, String>>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let none = BTreeMap::new();
    let (new, old) = (new.unwrap_or(&none), old.unwrap_or(&none));
    let kept = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key => key.starts_with(APP_ARMOR).then_some("AppArmor annotations"),
    };
    for (key, value) in old {
        if let Some(what) = kept(key).filter(|_| new.get(key) != Some(value)) {
            let detail = format!("may not remove or update {what}");
            errors.push(Error::forbidden(&at.key(key), detail));
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        if let Some(what) = kept(key) {
            errors.push(Error::forbidden(
                &at.key(key),
                format!("may not add {what}"),
            ));
        }
    }
}

/// A number without a plus sign or leading zeros.
fn is_deletion_cost(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let canonical = value == "0" || digits.starts_with(|c: char| matches!(c, '1'..='9'));
    canonical && value.parse::<i32>().is_ok()
}
