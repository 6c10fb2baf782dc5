//! PersistentVolume, PersistentVolumeClaim, and the kinds of storage.k8s.io.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::Api;

fn subject(
    group_version: &'static str,
    plural: &'static str,
    namespaced: bool,
    body: Value,
    status: Option<Value>,
) -> Subject<'static> {
    Subject {
        group_version,
        plural,
        namespaced,
        body,
        status,
    }
}

const STORAGE: &str = "/apis/storage.k8s.io/v1";

fn volume() -> Subject<'static> {
    let csi = json!({"driver": "d.example.com", "volumeHandle": "h"});
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": csi, "storageClassName": "gold"});
    let body = json!({"metadata": {"name": "vol"}, "spec": spec});
    let status = json!({"phase": "Available", "message": "Set by a test", "reason": "E2E"});
    subject("/api/v1", "persistentvolumes", false, body, Some(status))
}

fn claim() -> Subject<'static> {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "gold"});
    let body = json!({"metadata": {"name": "data"}, "spec": spec});
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set by a test"});
    let status =
        json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": [condition]});
    subject(
        "/api/v1",
        "persistentvolumeclaims",
        true,
        body,
        Some(status),
    )
}

#[tokio::test]
async fn volumes_and_claims_have_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &volume()).await;
    lifecycle(&api, &claim()).await;
}

#[tokio::test]
async fn volumes_and_claims_are_kept_while_they_are_used() {
    let api = Api::new().await;
    let volume = volume().create(&api, "vol").await;
    assert_eq!(
        volume["metadata"]["finalizers"],
        json!(["kubernetes.io/pv-protection"])
    );
    assert_eq!(
        volume["status"]["lastPhaseTransitionTime"],
        volume["metadata"]["creationTimestamp"]
    );
    let claim = claim().create(&api, "data").await;
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
}

#[tokio::test]
async fn a_claim_without_a_class_is_of_the_default_one() {
    let api = Api::new().await;
    let mut unclassed = claim();
    unclassed.body["spec"]["storageClassName"] = Value::Null;
    let created = unclassed.create(&api, "before").await;
    assert!(created["spec"].get("storageClassName").is_none());
    let class = json!({"metadata": {"name": "usual", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "d.example.com"});
    api.post(&format!("{STORAGE}/storageclasses"), &class)
        .await
        .ok(201);
    let created = unclassed.create(&api, "after").await;
    assert_eq!(created["spec"]["storageClassName"], "usual");
    let mut none = unclassed.named("none");
    none["spec"]["storageClassName"] = json!("");
    let created = api.post(&claim().collection(), &none).await.ok(201);
    assert_eq!(created["spec"]["storageClassName"], "");
    // A claim that has no class yet may still get one.
    let path = format!("{}/before", claim().collection());
    let patch = json!({"spec": {"storageClassName": "usual"}});
    api.patch(&path, "merge", &patch).await.ok(200);
}

#[tokio::test]
async fn a_bound_claim_grows_where_its_class_lets_it() {
    let api = Api::new().await;
    claim().create(&api, "data").await;
    let path = format!("{}/data", claim().collection());
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let bind = json!({"spec": {"volumeName": "vol"}});
    api.patch(&path, "merge", &bind).await.ok(200);
    api.patch(&path, "merge", &grow).await.fails(422, "Invalid");
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    api.patch(&format!("{path}/status"), "merge", &bound)
        .await
        .ok(200);
    let message = api
        .patch(&path, "merge", &grow)
        .await
        .fails(403, "Forbidden");
    assert!(
        message.contains("only dynamically provisioned pvc can be resized"),
        "{message}"
    );
    let class = json!({"metadata": {"name": "gold"}, "provisioner": "d.example.com", "allowVolumeExpansion": true});
    api.post(&format!("{STORAGE}/storageclasses"), &class)
        .await
        .ok(201);
    api.patch(&path, "merge", &grow).await.ok(200);
}

#[tokio::test]
async fn a_storage_class_has_every_verb() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "gold"}, "provisioner": "d.example.com", "parameters": {"a": "b"}});
    lifecycle(&api, &subject(STORAGE, "storageclasses", false, body, None)).await;
}

#[tokio::test]
async fn a_volume_attachment_has_every_verb() {
    let api = Api::new().await;
    let spec = json!({"attacher": "d.example.com", "nodeName": "n1", "source": {"persistentVolumeName": "vol"}});
    let body = json!({"metadata": {"name": "att"}, "spec": spec});
    let status = Some(json!({"attached": true}));
    lifecycle(
        &api,
        &subject(STORAGE, "volumeattachments", false, body, status),
    )
    .await;
}

#[tokio::test]
async fn a_csi_driver_has_every_verb() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "inline.example.com"}, "spec": {"volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": true}});
    lifecycle(&api, &subject(STORAGE, "csidrivers", false, body, None)).await;
}

#[tokio::test]
async fn a_csi_node_has_every_verb() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "n1"}, "spec": {"drivers": [{"name": "d.example.com", "nodeID": "id", "topologyKeys": ["zone"]}]}});
    let status = Some(json!({}));
    lifecycle(&api, &subject(STORAGE, "csinodes", false, body, status)).await;
}

#[tokio::test]
async fn a_volume_attributes_class_has_every_verb() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "fast"}, "driverName": "d.example.com", "parameters": {"iops": "5000"}});
    lifecycle(
        &api,
        &subject(STORAGE, "volumeattributesclasses", false, body, None),
    )
    .await;
}
