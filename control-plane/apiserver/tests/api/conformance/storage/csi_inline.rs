//! test/e2e/storage/csi_inline.go: CSIDriver, and Pods with volumes of one.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::{Api, pod};

/// Must: a Pod with CSI volumes is created, got, listed, patched and deleted; a second of its
/// name is refused.
#[tokio::test]
async fn csiinlinevolumes_should_support_csivolumesource_in_pod_api() {
    let api = Api::new().await;
    let pods = Objects::namespaced(&api, "/api/v1", "pods");
    let mut body = pod("inline");
    let driver = "e2e.example.com";
    body["spec"]["volumes"] = json!([
        {"name": "vol1", "csi": {"driver": driver}},
        {"name": "vol2", "csi": {"driver": driver, "fsType": "ext4", "readOnly": true}},
    ]);
    body["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "vol1", "mountPath": "/mnt/vol1"}, {"name": "vol2", "mountPath": "/mnt/vol2"},
    ]);
    let created = pods.create(&body).await;
    let csi = |volume: usize| &created["spec"]["volumes"][volume]["csi"];
    assert_eq!(csi(0)["driver"], driver);
    assert_eq!(csi(1)["fsType"], "ext4");
    assert_eq!(csi(1)["readOnly"], true);
    pods.try_create(&body).await.fails(409, "AlreadyExists");
    assert_eq!(
        pods.get("inline").await["metadata"]["uid"],
        created["metadata"]["uid"]
    );
    assert_eq!(pods.list("").await.len(), 1);
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = pods.patch("inline", "merge", &patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    pods.delete("inline").await;
    pods.gone("inline").await;
}

fn driver(name: &str, modes: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"e2e-test": "yes"}},
        "spec": {"volumeLifecycleModes": modes, "fsGroupPolicy": "ReadWriteOnceWithFSType"},
    })
}

/// Must: two CSIDrivers are created and read; a second of a name is refused.
/// Must: one is patched, and the new label is found.
/// Must: it is updated, and the new label is found.
/// Must: a list finds both.
/// Must: the first is deleted.
/// Must: the second is deleted by deletecollection.
#[tokio::test]
async fn csiinlinevolumes_should_run_through_the_lifecycle_of_a_csidriver() {
    let api = Api::new().await;
    let drivers = Objects::of_cluster(&api, "/apis/storage.k8s.io/v1", "csidrivers");
    let first = driver("inline-1", json!(["Ephemeral"]));
    let second = driver("inline-2", json!(["Persistent", "Ephemeral"]));
    for body in [&first, &second] {
        let created = drivers.create(body).await;
        let name = body["metadata"]["name"].as_str().unwrap();
        assert_eq!(drivers.get(name).await, created);
    }
    drivers.try_create(&first).await.fails(409, "AlreadyExists");
    drivers.label("inline-2", "inline-2", "patched").await;
    drivers.relabel("inline-2", "inline-2", "updated").await;
    assert_eq!(drivers.list("e2e-test=yes").await.len(), 2);
    drivers.delete("inline-1").await;
    drivers.gone("inline-1").await;
    drivers.delete_all("inline-2=updated").await;
    drivers.gone("inline-2").await;
}
