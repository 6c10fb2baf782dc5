//! Annotations of a Pod that mean something.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};

use k8s_openapi::api::core::v1::PodSpec;

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
}

/// What may not change in the annotations of a Pod.
pub(crate) fn validate_pod_annotation_update(
    new: Option<&BTreeMap<String, String>>,
    old: Option<&BTreeMap<String, String>>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let get = |annotations: Option<&BTreeMap<String, String>>| {
        annotations.and_then(|a| a.get(MIRROR).cloned())
    };
    let detail = match (get(new), get(old)) {
        (new, old) if new == old => return,
        (Some(_), None) => "may not add mirror pod annotation",
        _ => "may not remove or update mirror pod annotation",
    };
    errors.push(Error::forbidden(&at.key(MIRROR), detail));
}

/// A number without a plus sign or leading zeros.
fn is_deletion_cost(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let canonical = value == "0" || digits.starts_with(|c: char| matches!(c, '1'..='9'));
    canonical && value.parse::<i32>().is_ok()
}
