//! What the registry keeps and checks in every object's metadata.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{ErrorList, Path};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::strategy::Descriptor;
use crate::validation::object_meta;

/// The finalizer behind `propagationPolicy: Orphan`.
pub const ORPHAN: &str = "orphan";
/// The finalizer behind `propagationPolicy: Foreground`.
pub const FOREGROUND: &str = "foregroundDeletion";

/// The present, as the API shows it: whole seconds.
#[must_use]
pub fn now() -> Time {
    let now = jiff::Timestamp::now();
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Sets what only the server sets on a new object.
pub fn fill_system_fields(descriptor: &Descriptor, meta: &mut ObjectMeta, now: Time) {
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.creation_timestamp = Some(now);
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    meta.generation = descriptor.generation.then_some(1);
}

/// Drops owner references that come twice, as some clients send them. Returns what is said of that.
pub fn drop_doubled_owners(meta: &mut ObjectMeta) -> Vec<String> {
    let owners = meta.owner_references.as_mut();
    let Some(owners) = owners.filter(|owners| owners.len() > 1) else {
        return Vec::new();
    };
    // A body may have tens of thousands: they are not compared each with each.
    let new: Vec<bool> = {
        let mut seen = BTreeSet::new();
        let whole = owners.iter().map(|owner| {
            let flags = (owner.controller, owner.block_owner_deletion);
            let kind = (&owner.api_version, &owner.kind);
            (&owner.uid, &owner.name, kind, flags)
        });
        whole.map(|owner| seen.insert(owner)).collect()
    };
    let mut new = new.into_iter();
    let mut doubled = Vec::new();
    owners.retain(|owner| {
        let stays = new.next().unwrap_or(true);
        if !stays {
            doubled.push(owner.uid.clone());
        }
        stays
    });
    if doubled.is_empty() {
        return Vec::new();
    }
    let uids = doubled.join(", ");
    vec![format!(
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
    )]
}

/// Restores what an update may leave out, and times whatever it says of them: manifests are often
/// those of an earlier object.
pub fn restore_system_fields(new: &mut ObjectMeta, old: &ObjectMeta) {
    if new.uid.as_deref().unwrap_or_default().is_empty() {
        new.uid.clone_from(&old.uid);
    }
    if old.creation_timestamp.is_some() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    new.generate_name.clone_from(&old.generate_name);
    new.generation = old.generation;
    new.self_link = None;
}

/// Restores the metadata that clients write, where a kind's status is written without it.
pub fn keep_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}

/// Everything that is wrong with the metadata of a new object.
#[must_use]
pub fn validate(descriptor: &Descriptor, meta: &ObjectMeta) -> ErrorList {
    let at = Path::new("metadata");
    object_meta::validate_object_meta(meta, descriptor.scope, descriptor.names, &at)
}

/// Everything that is wrong with the metadata of an update.
#[must_use]
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    object_meta::validate_object_meta_update(new, old, &Path::new("metadata"))
}
