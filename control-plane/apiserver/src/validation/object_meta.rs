//! ObjectMeta, which every kind has: the registry calls this, no strategy does.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path, Shown};
use coracle_apimachinery::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde_json::Value;

use super::address::canonical_ip;
use super::labels::{validate_annotations, validate_labels};
use super::{IMMUTABLE, faults, items, non_negative, shown, text};
use crate::registry::strategy::{NameRule, Scope};

/// Finalizers that need no prefix.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// Everything that is wrong with the ObjectMeta of a new object. A name has been generated.
#[must_use]
pub(crate) fn validate_object_meta(
    meta: &ObjectMeta,
    scope: Scope,
    rule: NameRule,
    at: &Path,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let check = name_check(rule);
    let (name, prefix) = (text(&meta.name), text(&meta.generate_name));
    if !prefix.is_empty() {
        faults(
            prefix,
            names::prefix(prefix, check),
            &at.child("generateName"),
            &mut errors,
        );
    }
    if name.is_empty() {
        errors.push(Error::required(
            &at.child("name"),
            "name or generateName is required",
        ));
    } else {
        faults(name, check(name), &at.child("name"), &mut errors);
    }
    let (namespace, namespace_at) = (text(&meta.namespace), at.child("namespace"));
    match (scope, namespace) {
        (Scope::Namespaced, "") => errors.push(Error::required(&namespace_at, "")),
        (Scope::Namespaced, _) => faults(
            namespace,
            names::dns_label(namespace),
            &namespace_at,
            &mut errors,
        ),
        (Scope::Cluster, "") => {}
        (Scope::Cluster, _) => {
            errors.push(Error::forbidden(&namespace_at, "not allowed on this type"))
        }
    }
    validate_parts(meta, at, &mut errors);
    errors
}

/// Everything that is wrong with the ObjectMeta of an object that replaces `old`.
#[must_use]
pub(crate) fn validate_object_meta_update(
    new: &ObjectMeta,
    old: &ObjectMeta,
    at: &Path,
) -> ErrorList {
    let mut errors = ErrorList::default();
    if old.deletion_timestamp.is_some() {
        let known: BTreeSet<&String> = items(&old.finalizers).iter().collect();
        let added: Vec<&String> = items(&new.finalizers)
            .iter()
            .filter(|f| !known.contains(f))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(Error::forbidden(&at.child("finalizers"), detail));
        }
    }
    if new.generation < old.generation {
        let detail = "must not be decremented";
        errors.push(Error::invalid(
            &at.child("generation"),
            new.generation,
            detail,
        ));
    }
    let mut immutable = |changed: bool, field: &str, value: serde_json::Value| {
        if changed {
            errors.push(Error::invalid(&at.child(field), value, IMMUTABLE));
        }
    };
    immutable(new.name != old.name, "name", shown(&new.name));
    immutable(
        text(&new.namespace) != text(&old.namespace),
        "namespace",
        shown(&new.namespace),
    );
    immutable(new.uid != old.uid, "uid", shown(&new.uid));
    // Clients see whole seconds: the fraction of one is no change.
    let second = |time: &Option<Time>| time.as_ref().map(|time| time.0.as_second());
    immutable(
        second(&new.creation_timestamp) != second(&old.creation_timestamp),
        "creationTimestamp",
        shown(&new.creation_timestamp),
    );
    immutable(
        second(&new.deletion_timestamp) != second(&old.deletion_timestamp),
        "deletionTimestamp",
        shown(&new.deletion_timestamp),
    );
    immutable(
        new.deletion_grace_period_seconds != old.deletion_grace_period_seconds,
        "deletionGracePeriodSeconds",
        shown(&new.deletion_grace_period_seconds),
    );
    validate_parts(new, at, &mut errors);
    errors
}

/// A finalizer, of an object or of a Namespace's spec.
pub(crate) fn validate_finalizer(finalizer: &str, at: &Path, errors: &mut ErrorList) {
    faults(finalizer, names::qualified_name(finalizer), at, errors);
    validate_bare_finalizer(finalizer, at, errors);
}

fn validate_bare_finalizer(finalizer: &str, at: &Path, errors: &mut ErrorList) {
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(at, finalizer, detail));
    }
}

/// The metadata of a template of claims, for volumes or devices: labels and annotations.
pub(crate) fn validate_claim_template_meta(meta: &ObjectMeta, at: &Path, errors: &mut ErrorList) {
    validate_annotations(meta.annotations.as_ref(), &at.child("annotations"), errors);
    validate_labels(meta.labels.as_ref(), &at.child("labels"), errors);
    if let Value::Object(fields) = shown(meta) {
        for (field, value) in fields {
            let unset = value == "" || field == "generation" && value == 0;
            if !unset && !matches!(field.as_str(), "annotations" | "labels") {
                errors.push(Error::forbidden(&at.child(&field), "cannot be set"));
            }
        }
    }
}

fn name_check(rule: NameRule) -> fn(&str) -> Vec<String> {
    match rule {
        NameRule::DnsSubdomain => names::dns_subdomain,
        NameRule::DnsLabel => names::dns_label,
        NameRule::PathSegment => names::path_segment,
        NameRule::IpAddress => canonical_ip,
    }
}

/// What is checked alike on creation and on update.
fn validate_parts(meta: &ObjectMeta, at: &Path, errors: &mut ErrorList) {
    non_negative(
        meta.generation.unwrap_or(0),
        &at.child("generation"),
        errors,
    );
    validate_labels(meta.labels.as_ref(), &at.child("labels"), errors);
    validate_annotations(meta.annotations.as_ref(), &at.child("annotations"), errors);
    validate_owners(
        items(&meta.owner_references),
        &at.child("ownerReferences"),
        errors,
    );
    validate_finalizers(items(&meta.finalizers), &at.child("finalizers"), errors);
}

fn validate_finalizers(finalizers: &[String], at: &Path, errors: &mut ErrorList) {
    for finalizer in finalizers {
        faults(finalizer, names::qualified_name(finalizer), at, errors);
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(at, shown(&finalizers), detail));
    }
    for (i, finalizer) in finalizers.iter().enumerate() {
        validate_bare_finalizer(finalizer, &at.index(i), errors);
    }
}

fn validate_owners(owners: &[OwnerReference], at: &Path, errors: &mut ErrorList) {
    let mut controller: Option<&str> = None;
    // Each error shows all owners.
    let mut all: Option<Shown> = None;
    for (i, owner) in owners.iter().enumerate() {
        validate_owner(owner, &at.index(i), errors);
        if owner.controller != Some(true) {
            continue;
        }
        if let Some(first) = controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                owner.name
            );
            let all = all.get_or_insert_with(|| shown(&owners).into());
            errors.push(Error::invalid(at, all.clone(), detail));
        }
        controller = Some(&owner.name);
    }
}

fn validate_owner(owner: &OwnerReference, at: &Path, errors: &mut ErrorList) {
    const EMPTY: &str = "must not be empty";
    let version = owner.api_version.as_str();
    if version.is_empty() {
        errors.push(Error::required(&at.child("apiVersion"), EMPTY));
    } else if version.matches('/').count() > 1 {
        let detail = "must be <group>/<version> or <version>";
        errors.push(Error::invalid(&at.child("apiVersion"), version, detail));
    } else if version.ends_with('/') {
        let detail = "version must not be empty";
        errors.push(Error::invalid(&at.child("apiVersion"), version, detail));
    }
    for (field, value) in [
        ("kind", &owner.kind),
        ("name", &owner.name),
        ("uid", &owner.uid),
    ] {
        if value.is_empty() {
            errors.push(Error::required(&at.child(field), EMPTY));
        }
    }
    // An Event expires: what it owned would go with it.
    if owner.kind == "Event" && matches!(version, "v1" | "events.k8s.io/v1") {
        let detail = format!("{version}, Kind=Event is disallowed from being an owner");
        errors.push(Error::invalid(at, shown(owner), detail));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn create() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "u", "controller": true});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"name": "a", "namespace": "b", "labels": {"app": "x"}}),
                vec![],
            ),
            (
                json!({"namespace": "b"}),
                vec!["metadata.name FieldValueRequired name or generateName is required"],
            ),
            (
                json!({"name": "A_", "namespace": ""}),
                vec![
                    "metadata.name FieldValueInvalid a lowercase RFC 1123 subdomain",
                    "metadata.namespace FieldValueRequired",
                ],
            ),
            (
                json!({"name": "a-x", "generateName": "a-", "namespace": "b"}),
                vec![],
            ),
            (
                json!({"name": "a", "generateName": "A-", "namespace": "b"}),
                vec!["metadata.generateName FieldValueInvalid"],
            ),
            (
                json!({"name": "a", "namespace": "b", "labels": {"k": "-"}, "annotations": {"UPPER/k": "", "a/b/c": ""}}),
                vec![
                    "metadata.labels FieldValueInvalid",
                    "metadata.annotations FieldValueInvalid",
                ],
            ),
            (
                json!({"name": "a", "namespace": "b", "finalizers": ["orphan", "mine", "foregroundDeletion"]}),
                vec![
                    "metadata.finalizers FieldValueInvalid finalizer orphan and foregroundDeletion",
                    "metadata.finalizers[1] FieldValueInvalid name is neither",
                ],
            ),
            (
                json!({"name": "a", "namespace": "b", "ownerReferences": [owner, owner]}),
                vec!["metadata.ownerReferences FieldValueInvalid Only one reference"],
            ),
            (
                json!({"name": "a", "namespace": "b", "ownerReferences": [{"apiVersion": "", "kind": "", "name": "x", "uid": "1"}]}),
                vec![
                    "metadata.ownerReferences[0].apiVersion FieldValueRequired must not be empty",
                    "metadata.ownerReferences[0].kind FieldValueRequired must not be empty",
                ],
            ),
            (
                json!({"name": "a", "namespace": "b", "ownerReferences": [owner, {"apiVersion": "a/b/c", "kind": "K", "name": "x", "uid": "1"}]}),
                vec![
                    "metadata.ownerReferences[1].apiVersion FieldValueInvalid must be <group>/<version> or <version>",
                ],
            ),
        ];
        for (value, want) in table {
            let errors = validate_object_meta(
                &meta(value),
                Scope::Namespaced,
                NameRule::DnsSubdomain,
                &Path::new("metadata"),
            );
            assert_causes(&errors, &want);
        }
        let errors = validate_object_meta(
            &meta(json!({"name": "a.b", "namespace": "c"})),
            Scope::Cluster,
            NameRule::DnsLabel,
            &Path::new("metadata"),
        );
        assert_causes(
            &errors,
            &[
                "metadata.name FieldValueInvalid",
                "metadata.namespace FieldValueForbidden not allowed on this type",
            ],
        );
    }

    #[test]
    fn update() {
        let old = json!({"name": "a", "namespace": "b", "uid": "1", "generation": 2});
        let mut new = old.clone();
        new["uid"] = json!("2");
        new["generation"] = json!(1);
        let errors = validate_object_meta_update(&meta(new), &meta(old), &Path::new("metadata"));
        assert_causes(
            &errors,
            &[
                "metadata.generation FieldValueInvalid must not be decremented",
                "metadata.uid FieldValueInvalid field is immutable",
            ],
        );

        let old = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]});
        let mut new = old.clone();
        new["finalizers"] = json!(["a/b", "c/d"]);
        let errors = validate_object_meta_update(&meta(new), &meta(old), &Path::new("metadata"));
        assert_causes(
            &errors,
            &["metadata.finalizers FieldValueForbidden no new finalizers can be added"],
        );
    }
}
