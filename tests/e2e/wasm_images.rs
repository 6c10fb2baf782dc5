//! Images of containers whose program is WebAssembly.

use serde_json::json;

use crate::cluster::busybox::{images_can_be_made, push_image};
use crate::cluster::{Cluster, eventually, sample};

/// Runs an image whose entrypoint is a file of its layers: that file is a guest, which has no other
/// file of the image's.
fn the_entrypoint_is_a_guest(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let root = cluster.folder().join("image");
    std::fs::create_dir_all(root.join("srv")).unwrap();
    let module = sample("inspect").join("inspect.wasm");
    std::fs::copy(module, root.join("srv/inspect.wasm")).unwrap();
    std::fs::write(root.join("srv/data"), "of the image").unwrap();
    let config = json!({"Entrypoint": ["/srv/inspect.wasm"], "Env": ["FROM=image", "A=image"]});
    push_image(cluster, &root, "inspect-image:v1", &config);
    let config = json!({"Cmd": ["inspect.wasm", "/srv/data"], "WorkingDir": "/srv", "User": "7"});
    push_image(cluster, &root, "inspect-cmd:v1", &config);
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let mut shows = container("shows", "inspect-image:v1");
    shows["env"] = json!([{"name": "A", "value": "pod"}]);
    let mut reads = container("reads", "inspect-image:v1");
    reads["args"] = json!(["/config/key"]);
    reads["volumeMounts"] = json!([{"name": "config", "mountPath": "/config"}]);
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"},
            "data": {"key": "value"},
        })
        .to_string(),
    );
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guests"},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": true},
                "containers": [shows, reads, container("alone", "inspect-cmd:v1")],
                "volumes": [{"name": "config", "configMap": {"name": "config"}}],
            },
        })
        .to_string(),
    );
    // Their statuses are in the order of their names.
    eventually("all have ended", || {
        let codes = ".status.containerStatuses[*].state.terminated.exitCode";
        let codes = kubectl.value(&["pod", "guests"], codes);
        (codes == "1 0 0").then_some(()).ok_or(codes)
    });
    let ids = kubectl.value(
        &["pod", "guests"],
        ".status.containerStatuses[*].containerID",
    );
    assert!(ids.split(' ').all(|id| id.starts_with("wasm://")), "{ids}");
    let shown = kubectl.ok(&["logs", "guests", "-c", "shows"]);
    for line in ["FROM=image", "A=pod", "HOSTNAME=guests"] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    let read = kubectl.ok(&["logs", "guests", "-c", "reads"]);
    assert_eq!(read, "/config/key: value\n");
    let alone = kubectl.ok(&["logs", "guests", "-c", "alone"]);
    assert!(alone.starts_with("/srv/data: "), "{alone}");
    assert!(!alone.contains("of the image"), "{alone}");
}

#[test]
fn an_image_with_a_wasm_entrypoint_runs_as_wasm() {
    if images_can_be_made() {
        the_entrypoint_is_a_guest(&Cluster::up(&[]));
    }
}

#[test]
fn an_image_with_a_wasm_entrypoint_takes_no_rights() {
    if images_can_be_made() {
        the_entrypoint_is_a_guest(&Cluster::up_as_nobody(&[]));
    }
}
