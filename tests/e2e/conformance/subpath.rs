//! test/e2e/storage/subpath.go: a part of a volume that the kubelet writes, at a place of its own.

use serde_json::{Value, json};

use super::outputs::{NAME, container, output};
use super::shared::place;

const PLACE: &str = "/test-volume";

/// What a container reads where a part of a volume is mounted.
#[track_caller]
fn reads(mut volume: Value, part: &str, at: &str, wanted: &str) {
    let Some(place) = place() else {
        return;
    };
    let secret = json!({"secret-key": "secret-value"});
    let map = json!({"configmap-key": "configmap-value"});
    for (kind, name, field, data) in [
        ("Secret", "my-secret", "stringData", secret),
        ("ConfigMap", "my-configmap", "data", map),
    ] {
        let metadata = json!({"name": name});
        let object = json!({"kind": kind, "metadata": metadata, field: data});
        super::create(&place, &object);
    }
    volume["name"] = json!("test-volume");
    let mut container = container(&format!("cat {at}"));
    container["securityContext"] = json!({"privileged": false});
    container["volumeMounts"] = json!([
        {"name": "test-volume", "mountPath": at, "subPath": part},
        {"name": "other", "mountPath": "/probe-volume"},
    ]);
    let pod = json!({
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"seLinuxOptions": {"level": "s0:c0,c1"}},
        "volumes": [volume, {"name": "other", "emptyDir": {}}],
    });
    assert_eq!(output(&place, &container, pod), format!("{wanted}\n"));
    place.ok(&["delete", "pod", NAME, "--timeout=60s"]);
}

/// Must: a container reads one key of a Secret at a place of its own.
/// Must: its Pod can be deleted then.
#[test]
fn subpath_atomic_writer_volumes_should_support_subpaths_with_secret_pod() {
    let volume = json!({"secret": {"secretName": "my-secret"}});
    reads(volume, "secret-key", PLACE, "secret-value");
}

/// Must: a container reads one key of a ConfigMap at a place of its own.
/// Must: its Pod can be deleted then.
#[test]
fn subpath_atomic_writer_volumes_should_support_subpaths_with_configmap_pod() {
    let volume = json!({"configMap": {"name": "my-configmap"}});
    reads(volume, "configmap-key", PLACE, "configmap-value");
}

/// Must: a container reads one key of a ConfigMap in place of a file that there is.
/// Must: its Pod can be deleted then.
#[test]
fn subpath_atomic_writer_volumes_should_support_subpaths_with_configmap_pod_with_mountpath_of_existing_file()
 {
    let volume = json!({"configMap": {"name": "my-configmap"}});
    reads(
        volume,
        "configmap-key",
        "/etc/resolv.conf",
        "configmap-value",
    );
}

/// Must: a container reads one file of what its Pod is told at a place of its own.
/// Must: its Pod can be deleted then.
#[test]
fn subpath_atomic_writer_volumes_should_support_subpaths_with_downward_pod() {
    let path = "downward/podname";
    let item = json!({"path": path, "fieldRef": {"fieldPath": "metadata.name"}});
    reads(json!({"downwardAPI": {"items": [item]}}), path, PLACE, NAME);
}

/// Must: a container reads one file of a projected volume at a place of its own.
/// Must: its Pod can be deleted then.
#[test]
fn subpath_atomic_writer_volumes_should_support_subpaths_with_projected_pod() {
    let path = "projected/configmap-key";
    let items = json!([{"key": "configmap-key", "path": path}]);
    let source = json!({"configMap": {"name": "my-configmap", "items": items}});
    let volume = json!({"projected": {"sources": [source]}});
    reads(volume, path, PLACE, "configmap-value");
}
