//! Who uses a claim, a volume or a class of attributes, and what that means for its finalizer.

use coracle_apimachinery::meta;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::owners::controlled_by;
use crate::pods;

/// What to do with an object's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing keeps the object yet.
    Protect,
    /// It is being deleted, and nobody uses it.
    Release,
}

/// Decides over one object. `used` is asked only where it matters.
pub(super) fn plan(
    object: &ObjectMeta,
    finalizer: &str,
    used: impl FnOnce() -> bool,
) -> Option<Action> {
    match (
        meta::is_terminating(object),
        meta::has_finalizer(object, finalizer),
    ) {
        (false, false) => Some(Action::Protect),
        (true, true) if !used() => Some(Action::Release),
        _ => None,
    }
}

/// The claims that a Pod names, and those made for its ephemeral volumes.
pub(super) fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{}-{}", meta::name(&pod.metadata), volume.name)),
    })
}

/// Whether a Pod needs a claim of its namespace. One that ran to its end needs nothing more.
pub(super) fn pod_uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = meta::name(&claim.metadata);
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut sources = volumes.map(|volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name == name,
        // A claim of that name which somebody else made is not the Pod's.
        None => {
            volume.ephemeral.is_some()
                && format!("{}-{}", meta::name(&pod.metadata), volume.name) == name
                && controlled_by(&claim.metadata, pod.metadata.uid.as_deref())
        }
    });
    pod.metadata.namespace == claim.metadata.namespace
        && !pods::finished(pod)
        && sources.any(|used| used)
}

/// The claim to which a volume is bound.
pub(super) fn claim_of(volume: &PersistentVolume) -> Option<&ObjectReference> {
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let claim = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    claim.filter(|_| phase == Some("Bound"))
}

/// Whether a claim is the one that a volume's reference means.
pub(super) fn is_meant(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name.as_deref() == Some(meta::name(&claim.metadata))
        && reference.namespace.as_deref() == Some(meta::namespace(&claim.metadata))
        && (uid.is_empty() || uid == meta::uid(&claim.metadata))
}

/// Whether a claim has, had or wants a class.
pub(super) fn claim_names(claim: &PersistentVolumeClaim, class: &str) -> bool {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let modification = status.and_then(|status| status.modify_volume_status.as_ref());
    let names = [
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        modification.and_then(|m| m.target_volume_attributes_class_name.as_deref()),
    ];
    names.contains(&Some(class))
}

/// Whether a volume is of a class.
pub(super) fn volume_names(volume: &PersistentVolume, class: &str) -> bool {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()) == Some(class)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn of<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn finalizers() {
        let deleted = "2026-01-01T00:00:00Z";
        let table = [
            (json!({}), false, Some(Action::Protect)),
            (json!({"finalizers": ["a/b"]}), true, Some(Action::Protect)),
            (json!({"finalizers": ["x/y"]}), false, None),
            (
                json!({"finalizers": ["x/y"], "deletionTimestamp": deleted}),
                true,
                None,
            ),
            (
                json!({"finalizers": ["x/y"], "deletionTimestamp": deleted}),
                false,
                Some(Action::Release),
            ),
            (
                json!({"finalizers": ["a/b"], "deletionTimestamp": deleted}),
                false,
                None,
            ),
        ];
        for (meta, used, want) in table {
            assert_eq!(
                plan(&of(meta.clone()), "x/y", || used),
                want,
                "{meta} {used}"
            );
        }
    }

    #[test]
    fn pods_use_claims() {
        let named =
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "p-v"}}]});
        let ephemeral = json!({"volumes": [{"name": "v", "ephemeral": {}}]});
        let other = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "q"}}, {"name": "e", "emptyDir": {}}]});
        let scheduled = json!({"nodeName": "n", "volumes": named["volumes"]});
        let owned = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let table = [
            (&named, "Pending", "default", Value::Null, true),
            (&scheduled, "Running", "default", Value::Null, true),
            (&scheduled, "Succeeded", "default", Value::Null, false),
            (&scheduled, "Failed", "default", Value::Null, false),
            (&named, "Running", "elsewhere", Value::Null, false),
            (&other, "Running", "default", Value::Null, false),
            (&ephemeral, "Running", "default", owned.clone(), true),
            (&ephemeral, "Succeeded", "default", owned, false),
            (&ephemeral, "Running", "default", Value::Null, false),
        ];
        for (n, (spec, phase, namespace, owners, want)) in table.into_iter().enumerate() {
            let mut spec = spec.clone();
            spec["containers"] = json!([]);
            let pod: Pod = of(
                json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"},
                "spec": spec, "status": {"phase": phase}}),
            );
            let claim = of(
                json!({"metadata": {"name": "p-v", "namespace": namespace, "ownerReferences": owners}}),
            );
            assert_eq!(pod_uses(&pod, &claim), want, "row {n}");
        }
        let pod: Pod = of(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b", "ephemeral": {}},
            {"name": "d", "emptyDir": {}}]}}),
        );
        assert_eq!(claims_of(&pod).collect::<Vec<_>>(), ["c", "p-b"]);
    }

    #[test]
    fn volumes_are_bound_to_claims() {
        let claim: PersistentVolumeClaim =
            of(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "1"}}));
        let reference = |uid: &str| json!({"name": "c", "namespace": "ns", "uid": uid});
        let table = [
            ("Bound", reference("1"), true),
            ("Bound", reference(""), true),
            ("Bound", reference("2"), false),
            ("Bound", json!({"name": "c", "namespace": "other"}), false),
            ("Bound", Value::Null, false),
            ("Available", Value::Null, false),
            ("Released", reference("1"), false),
        ];
        for (phase, claim_ref, want) in table {
            let volume: PersistentVolume =
                of(json!({"spec": {"claimRef": claim_ref}, "status": {"phase": phase}}));
            let used = claim_of(&volume).is_some_and(|reference| is_meant(reference, &claim));
            assert_eq!(used, want, "{phase} {claim_ref}");
        }
    }

    #[test]
    fn classes_are_named() {
        let table = [
            (json!({}), false),
            (json!({"spec": {"volumeAttributesClassName": "gold"}}), true),
            (json!({"spec": {"volumeAttributesClassName": "tin"}}), false),
            (
                json!({"status": {"currentVolumeAttributesClassName": "gold"}}),
                true,
            ),
            (
                json!({"status": {"modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "gold"}}}),
                true,
            ),
        ];
        for (claim, want) in table {
            assert_eq!(claim_names(&of(claim.clone()), "gold"), want, "{claim}");
        }
        let volume = |class: &str| of(json!({"spec": {"volumeAttributesClassName": class}}));
        assert!(volume_names(&volume("gold"), "gold"));
        assert!(!volume_names(&volume("tin"), "gold"));
    }
}
