//! Mirrors of static Pods: what they may say, whoever makes them.
//!
//! A mirror is not run, but its node may read what a Pod of its own refers to; so it refers to
//! nothing. Source of the rules: the admission plugins ServiceAccount and NodeRestriction of
//! Kubernetes.

use coracle_apimachinery::pod_references::api_reference;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::Pod;

use super::Review;
use crate::validation::pod::resize::is_mirror;
use crate::validation::{items, text};

/// Refuses a mirror that refers to objects.
pub(super) fn refers_to_nothing(review: &Review<'_>, pod: &Pod) -> Result<(), Status> {
    match api_reference(pod) {
        Some(resource) => {
            let cause = format!("a mirror pod may not reference {resource}");
            Err(review.forbidden(text(&pod.metadata.name), cause))
        }
        None => Ok(()),
    }
}

/// The UID of the Node by which a mirror says that it is owned, or why a node may not make it.
pub(super) fn owner<'a>(node: &str, pod: &'a Pod) -> Result<&'a str, String> {
    if !is_mirror(pod) {
        return Err(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        ));
    }
    let itself =
        |what: &str| format!("node {node:?} can only create pods with {what} set to itself");
    let owner = match items(&pod.metadata.owner_references) {
        [] => return Err(itself("an owner reference")),
        [owner] => owner,
        _ => return Err(itself("a single owner reference")),
    };
    if (&*owner.api_version, &*owner.kind, &*owner.name) != ("v1", "Node", node) {
        return Err(itself("an owner reference"));
    }
    if owner.controller != Some(true) {
        return Err(itself("a controller owner reference"));
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    Ok(&owner.uid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_makes_mirrors_of_its_own_alone() {
        let own = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
        let with = |key: &str, value: Value| {
            let mut owner = own.clone();
            owner[key] = value;
            json!([owner])
        };
        let owner_of = |annotation: &str, owners: Value| {
            let metadata = json!({"annotations": {annotation: "h"}, "ownerReferences": owners});
            let pod: Pod = serde_json::from_value(json!({"metadata": metadata})).unwrap();
            owner("n", &pod).map(str::to_owned)
        };
        let mirror = "kubernetes.io/config.mirror";
        assert_eq!(owner_of(mirror, json!([own])).unwrap(), "u");
        for (annotation, owners, cause) in [
            ("other", json!([own]), "can only create mirror pods"),
            (mirror, json!([]), "with an owner reference set to itself"),
            (mirror, json!([own, own]), "with a single owner reference"),
            (mirror, with("name", json!("m")), "with an owner reference"),
            (
                mirror,
                with("kind", json!("Pod")),
                "with an owner reference",
            ),
            (
                mirror,
                with("controller", json!(false)),
                "a controller owner reference",
            ),
            (
                mirror,
                with("blockOwnerDeletion", json!(true)),
                "must not set blockOwnerDeletion",
            ),
        ] {
            let refused = owner_of(annotation, owners).unwrap_err();
            assert!(refused.contains(cause), "{refused}");
        }
    }
}
