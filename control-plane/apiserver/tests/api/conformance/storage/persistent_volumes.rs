//! test/e2e/storage/persistent_volumes.go: PersistentVolume and PersistentVolumeClaim. That
//! nobody uses them is said as their controller says it: by taking their finalizers away.

use serde_json::{Value, json};

use crate::conformance::objects::{Objects, name};
use crate::harness::Api;

fn volume() -> Value {
    json!({
        "metadata": {"generateName": "pv-", "labels": {"e2e": "volume"}},
        "spec": {
            "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "e2e",
            "csi": {"driver": "e2e.example.com", "volumeHandle": "handle"},
        },
    })
}

fn claim() -> Value {
    json!({
        "metadata": {"generateName": "pvc-", "labels": {"e2e": "claim"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "e2e",
            "resources": {"requests": {"storage": "2Gi"}},
        },
    })
}

fn volumes(api: &Api) -> Objects<'_> {
    Objects::of_cluster(api, "/api/v1", "persistentvolumes")
}

fn claims(api: &Api) -> Objects<'_> {
    Objects::namespaced(api, "/api/v1", "persistentvolumeclaims")
}

/// Creates, finds, reads, patches, deletes; again, updates and deletes as a collection.
async fn lifecycle(objects: &Objects<'_>, body: &Value) {
    let label = body["metadata"]["labels"]["e2e"].as_str().unwrap();
    let selector = format!("e2e={label}");
    let created = objects.create(body).await;
    let first = name(&created);
    assert_eq!(
        objects.list(&selector).await,
        std::slice::from_ref(&created)
    );
    assert_eq!(
        objects.list_everywhere(&selector).await,
        std::slice::from_ref(&created)
    );
    assert_eq!(
        objects.get(first).await["metadata"]["uid"],
        created["metadata"]["uid"]
    );
    objects.label(first, first, "patched").await;
    objects.delete(first).await;
    let going = objects.get(first).await;
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    objects.release(first).await;
    objects.gone(first).await;
    assert!(objects.list(&format!("{first}=patched")).await.is_empty());

    let replacement = objects.create(body).await;
    let second = name(&replacement);
    objects.relabel(second, second, "updated").await;
    objects.delete_all(&format!("{second}=updated")).await;
    objects.release(second).await;
    objects.gone(second).await;
    assert!(objects.list(&selector).await.is_empty());
}

/// Must: a PersistentVolume and a claim are created.
/// Must: a list by a label has the volume.
/// Must: a list of all namespaces has the claim.
/// Must: both are read, with the uid that they were given.
/// Must: both are patched, and the new label is found.
/// Must: the claim is deleted.
/// Must: it is not found then.
/// Must: the volume is deleted.
/// Must: it is not found then.
/// Must: replacements are created.
/// Must: those are updated, and the new label is found.
/// Must: those are deleted by deletecollection.
/// Must: they are not found then.
#[tokio::test]
async fn persistentvolumes_csi_conformance_should_run_through_the_lifecycle_of_a_pv_and_a_pvc() {
    let api = Api::new().await;
    lifecycle(&volumes(&api), &volume()).await;
    lifecycle(&claims(&api), &claim()).await;
}

/// Must: a PersistentVolume and a claim are created.
/// Must: the claims of the namespace are listed.
/// Must: the volumes are listed.
/// Must: the status of the claim is read, with a phase that is one.
/// Must: the status of the volume is read, with a phase that is one.
/// Must: the status of the claim is patched, and the new condition is found.
/// Must: the status of the volume is patched, and the new reason and message are found.
/// Must: the status of the claim is updated, and the new condition is found.
/// Must: the status of the volume is updated, and the new reason and message are found.
#[tokio::test]
async fn persistentvolumes_csi_conformance_should_apply_changes_to_a_pv_pvc_status() {
    let api = Api::new().await;
    let (volumes, claims) = (volumes(&api), claims(&api));
    let volume = volumes.create(&volume()).await;
    let claim = claims.create(&claim()).await;
    let (volume, claim) = (name(&volume), name(&claim));
    assert_eq!(claims.list("e2e=claim").await.len(), 1);
    assert_eq!(volumes.list("e2e=volume").await.len(), 1);
    assert_eq!(claims.status(claim).await["status"]["phase"], "Pending");
    assert_eq!(volumes.status(volume).await["status"]["phase"], "Pending");

    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set by a test"});
    let patch = json!({"status": {"conditions": [condition("StatusPatched")]}});
    let mut patched = claims.patch_status(claim, "merge", &patch).await;
    let conditions = patched["status"]["conditions"].as_array_mut().unwrap();
    assert_eq!(conditions.len(), 1);
    assert_eq!(conditions[0]["type"], "StatusPatched");
    conditions.push(condition("StatusUpdated"));
    let updated = claims.update_status(&patched).await;
    assert_eq!(updated["status"]["conditions"][1]["type"], "StatusUpdated");
    assert_eq!(
        updated["status"]["conditions"][1]["message"],
        "Set by a test"
    );

    let patch = json!({"status": {"message": "StatusPatched", "reason": "E2E patchStatus"}});
    let mut patched = volumes.patch_status(volume, "merge", &patch).await;
    assert_eq!(patched["status"]["message"], "StatusPatched");
    assert_eq!(patched["status"]["reason"], "E2E patchStatus");
    patched["status"]["message"] = json!("StatusUpdated");
    patched["status"]["reason"] = json!("E2E updateStatus");
    let updated = volumes.update_status(&patched).await;
    assert_eq!(updated["status"]["message"], "StatusUpdated");
    assert_eq!(updated["status"]["reason"], "E2E updateStatus");
}
