//! What the registry keeps and checks in every object's metadata.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::strategy::{Descriptor, NameRule};

/// All annotations of an object together may have so many bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

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

/// Restores what an update may leave out.
pub fn restore_system_fields(new: &mut ObjectMeta, old: &ObjectMeta) {
    if new.uid.as_deref().unwrap_or_default().is_empty() {
        new.uid.clone_from(&old.uid);
    }
    if new.creation_timestamp.is_none() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if new.deletion_timestamp.is_none() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    new.generate_name.clone_from(&old.generate_name);
    new.generation = old.generation;
    new.self_link = None;
}

fn check(rule: NameRule) -> fn(&str) -> Vec<String> {
    match rule {
        NameRule::DnsSubdomain => names::dns_subdomain,
        NameRule::DnsLabel => names::dns_label,
        NameRule::Rfc1035Label => names::dns1035_label,
        NameRule::PathSegment => names::path_segment,
    }
}

/// Everything that is wrong with the metadata of a new object.
#[must_use]
pub fn validate(descriptor: &Descriptor, meta: &ObjectMeta) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let rule = check(descriptor.names);
    if let Some(base) = meta.generate_name.as_deref().filter(|base| !base.is_empty()) {
        for message in names::prefix(base, rule) {
            errors.push(Error::invalid(&path.child("generateName"), base, message));
        }
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(&path.child("name"), "name or generateName is required")),
        name => {
            for message in rule(name) {
                errors.push(Error::invalid(&path.child("name"), name, message));
            }
        }
    }
    if descriptor.is_namespaced() {
        match meta.namespace.as_deref().unwrap_or_default() {
            "" => errors.push(Error::required(&path.child("namespace"), "")),
            namespace => {
                for message in names::dns_label(namespace) {
                    errors.push(Error::invalid(&path.child("namespace"), namespace, message));
                }
            }
        }
    }
    errors.extend(validate_common(meta, &path));
    errors
}

fn validate_common(meta: &ObjectMeta, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = &meta.labels {
        errors.extend(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = &meta.annotations {
        errors.extend(validate_annotations(annotations, &path.child("annotations")));
    }
    if let Some(references) = &meta.owner_references {
        errors.extend(validate_owners(references, &path.child("ownerReferences")));
    }
    if let Some(finalizers) = &meta.finalizers {
        errors.extend(validate_finalizers(finalizers, &path.child("finalizers")));
    }
    errors
}

/// Checks labels, of an object or of a template.
#[must_use]
pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        for message in names::qualified_name(key) {
            errors.push(Error::invalid(path, key.as_str(), message));
        }
        for message in names::label_value(value) {
            errors.push(Error::invalid(path, value.as_str(), message));
        }
    }
    errors
}

/// Checks annotations, of an object or of a template.
#[must_use]
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in annotations {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(path, key.as_str(), message));
        }
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(Error::too_long(path, MAX_ANNOTATIONS));
    }
    errors
}

fn validate_owners(references: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controllers: Vec<String> = Vec::new();
    for (index, reference) in references.iter().enumerate() {
        let path = path.index(index);
        let required = [
            ("apiVersion", &reference.api_version, "version must not be empty"),
            ("kind", &reference.kind, "must not be empty"),
            ("name", &reference.name, "must not be empty"),
            ("uid", &reference.uid, "must not be empty"),
        ];
        for (field, value, message) in required {
            if value.is_empty() {
                errors.push(Error::invalid(&path.child(field), value.as_str(), message));
            }
        }
        if reference.api_version == "v1" && reference.kind == "Event" {
            errors.push(Error::invalid(&path, "Event", "is disallowed from being an owner"));
        }
        if reference.controller == Some(true) {
            controllers.push(format!("{}/{}", reference.kind, reference.name));
        }
    }
    if controllers.len() > 1 {
        let message = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {}",
            controllers.join(" and ")
        );
        errors.push(Error::invalid(path, controllers.len(), message));
    }
    errors
}

fn validate_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, finalizer) in finalizers.iter().enumerate() {
        let path = path.index(index);
        for message in names::qualified_name(finalizer) {
            errors.push(Error::invalid(&path, finalizer.as_str(), message));
        }
        let known = matches!(finalizer.as_str(), ORPHAN | FOREGROUND | "kubernetes");
        if !known && !finalizer.contains('/') {
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&path, finalizer.as_str(), message));
        }
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, finalizers.join(","), message));
    }
    errors
}

/// Everything that is wrong with the metadata of an update.
#[must_use]
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    const IMMUTABLE: &str = "field is immutable";
    let path = Path::new("metadata");
    let mut errors = validate_common(new, &path);
    let strings = [
        ("name", &new.name, &old.name),
        ("namespace", &new.namespace, &old.namespace),
        ("uid", &new.uid, &old.uid),
    ];
    for (field, new, old) in strings {
        if new != old {
            errors.push(Error::invalid(&path.child(field), new.clone(), IMMUTABLE));
        }
    }
    let times = [
        ("creationTimestamp", &new.creation_timestamp, &old.creation_timestamp),
        ("deletionTimestamp", &new.deletion_timestamp, &old.deletion_timestamp),
    ];
    for (field, new, old) in times {
        if new.as_ref().map(|t| t.0.as_second()) != old.as_ref().map(|t| t.0.as_second()) {
            let shown = new.as_ref().map(|time| time.0.to_string());
            errors.push(Error::invalid(&path.child(field), shown, IMMUTABLE));
        }
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        let field = path.child("deletionGracePeriodSeconds");
        errors.push(Error::invalid(&field, new.deletion_grace_period_seconds, IMMUTABLE));
    }
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&str> = new
            .finalizers
            .iter()
            .flatten()
            .filter(|finalizer| !before.contains(finalizer))
            .map(String::as_str)
            .collect();
        if !added.is_empty() {
            let message = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(Error::forbidden(&path.child("finalizers"), message));
        }
    }
    errors
}
