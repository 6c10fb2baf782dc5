//! What every part asks of an object's metadata: owners, finalizers, labels, names.

use std::collections::BTreeMap;

use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The finalizer of a deletion that waits for dependents (`propagationPolicy: Foreground`).
pub const FOREGROUND_DELETION: &str = "foregroundDeletion";
/// The finalizer of a deletion that leaves dependents behind (`propagationPolicy: Orphan`).
pub const ORPHAN_DEPENDENTS: &str = "orphan";

static NO_MAP: BTreeMap<String, String> = BTreeMap::new();

/// The name; empty while there is none.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The namespace; empty for what is cluster-scoped.
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// The UID; empty while there is none.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// `namespace/name`, or the name alone for what is cluster-scoped.
pub fn key(meta: &ObjectMeta) -> String {
    match namespace(meta) {
        "" => name(meta).to_owned(),
        namespace => format!("{namespace}/{}", name(meta)),
    }
}

/// The labels, none being an empty map.
pub fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    meta.labels.as_ref().unwrap_or(&NO_MAP)
}

/// The annotations, none being an empty map.
pub fn annotations(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    meta.annotations.as_ref().unwrap_or(&NO_MAP)
}

/// The resource version as a number; `None` where there is none or it is not one of ours.
pub fn resource_version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref()?.parse().ok()
}

/// Whether the object is being deleted.
pub fn is_terminating(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The owners.
pub fn owners(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

/// The owner that manages the object, of which there is at most one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    owners(meta)
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Whether the object is managed by the one with this UID.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// A reference to the managing owner: it blocks that owner's foreground deletion.
pub fn controller_reference<K: Resource>(owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The finalizers.
pub fn finalizers(meta: &ObjectMeta) -> &[String] {
    meta.finalizers.as_deref().unwrap_or_default()
}

/// Whether the object has the finalizer.
pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    finalizers(meta).iter().any(|present| present == finalizer)
}

/// Adds a finalizer; false where it was there already.
pub fn add_finalizer(meta: &mut ObjectMeta, finalizer: &str) -> bool {
    let absent = !has_finalizer(meta, finalizer);
    if absent {
        meta.finalizers
            .get_or_insert_default()
            .push(finalizer.to_owned());
    }
    absent
}

/// Removes a finalizer; false where it was not there.
pub fn remove_finalizer(meta: &mut ObjectMeta, finalizer: &str) -> bool {
    let present = has_finalizer(meta, finalizer);
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|present| present != finalizer);
        if finalizers.is_empty() {
            meta.finalizers = None;
        }
    }
    present
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;

    use super::*;

    #[test]
    fn owners_and_finalizers() {
        let owner = ObjectMeta {
            name: Some("web".into()),
            uid: Some("u1".into()),
            ..Default::default()
        };
        let mut meta = ObjectMeta {
            name: Some("web-1".into()),
            namespace: Some("ns".into()),
            ..Default::default()
        };
        assert_eq!(
            (key(&meta).as_str(), key(&owner).as_str()),
            ("ns/web-1", "web")
        );
        assert!(controller_of(&meta).is_none() && labels(&meta).is_empty());
        let other = OwnerReference {
            uid: "u2".into(),
            ..Default::default()
        };
        meta.owner_references = Some(vec![other, controller_reference::<ReplicaSet>(&owner)]);
        assert_eq!(
            controller_of(&meta).map(|owner| owner.api_version.as_str()),
            Some("apps/v1")
        );
        assert!(is_controlled_by(&meta, "u1") && !is_controlled_by(&meta, "u2"));

        assert!(add_finalizer(&mut meta, "a/b") && !add_finalizer(&mut meta, "a/b"));
        assert!(has_finalizer(&meta, "a/b"));
        assert!(remove_finalizer(&mut meta, "a/b") && !remove_finalizer(&mut meta, "a/b"));
        assert_eq!(meta.finalizers, None);
    }
}
