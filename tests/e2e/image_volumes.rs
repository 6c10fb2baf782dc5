//! Images that are volumes of WebAssembly containers.

use serde_json::json;

use crate::cluster::busybox::{images_can_be_made, push_image};
use crate::cluster::{Cluster, eventually, sample};

fn guests_read_the_files_of_an_image(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("inspect").to_str().unwrap()]);
    let files = cluster.folder().join("files");
    std::fs::create_dir_all(files.join("etc")).unwrap();
    std::fs::write(files.join("data"), "all").unwrap();
    std::fs::write(files.join("etc/part"), "part").unwrap();
    std::os::unix::fs::symlink("/etc/part", files.join("link")).unwrap();
    std::os::unix::fs::symlink("../../../../../../etc/passwd", files.join("away")).unwrap();
    push_image(cluster, &files, "files:v1", &json!({}));
    let container = |name: &str, paths: &[&str]| {
        json!({
            "name": name, "image": "inspect:v1", "args": paths,
            "volumeMounts": [
                {"name": "files", "mountPath": "/all"},
                {"name": "files", "mountPath": "/below", "subPath": "etc"},
                {"name": "files", "mountPath": "/one/file", "subPath": "link"},
            ],
        })
    };
    let image = json!({"reference": "files:v1", "pullPolicy": "Always"});
    let inside = ["/all/data", "/all/etc/part", "/below/part", "/one/file"];
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reads"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [container("inside", &inside), container("outside", &["/all/away"])],
                "volumes": [{"name": "files", "image": image}],
            },
        })
        .to_string(),
    );
    eventually("both have ended", || {
        let codes = ".status.containerStatuses[*].state.terminated.exitCode";
        let codes = kubectl.value(&["pod", "reads"], codes);
        (codes == "0 1").then_some(()).ok_or(codes)
    });
    assert_eq!(
        kubectl.ok(&["logs", "reads", "-c", "inside"]),
        "/all/data: all\n/all/etc/part: part\n/below/part: part\n/one/file: part\n"
    );
    let outside = kubectl.ok(&["logs", "reads", "-c", "outside"]);
    assert!(outside.starts_with("/all/away: "), "{outside}");
    assert!(!outside.contains("root"), "{outside}");
}

#[test]
fn guests_have_images_as_volumes() {
    if images_can_be_made() {
        guests_read_the_files_of_an_image(&Cluster::up(&[]));
    }
}

#[test]
fn guests_of_a_user_without_rights_have_images_as_volumes() {
    if images_can_be_made() {
        guests_read_the_files_of_an_image(&Cluster::up_as_nobody(&[]));
    }
}
