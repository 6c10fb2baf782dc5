//! Client-side apply: what kubectl remembers of the last manifest in an annotation.

use super::said;
use crate::cluster::{Cluster, kubectl_available, sample};

fn settings(data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, labels: {{set: ours}}}}\ndata: {{{data}}}\n"
    )
}

#[test]
fn the_last_applied_manifest_is_viewed_set_and_edited() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let object = ["configmap", "settings"];
    kubectl.apply(&settings("a: '1', b: '2'"));
    let viewed = kubectl.ok(&["apply", "view-last-applied", "configmap/settings"]);
    assert!(viewed.contains("a: \"1\""), "{viewed}");

    // What others added stays, what the manifest drops goes.
    kubectl.ok(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"c":"3"}}"#,
    ]);
    kubectl.apply(&settings("a: '5'"));
    assert_eq!(kubectl.value(&object, ".data"), r#"{"a":"5","c":"3"}"#);

    // A manifest that is only said to have been applied takes what it names with it.
    let file = cluster.folder().join("settings.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, settings("a: '5', c: '3'")).unwrap();
    kubectl.ok(&["apply", "set-last-applied", "-f", path]);
    kubectl.apply(&settings("a: '5'"));
    assert_eq!(kubectl.value(&object, ".data"), r#"{"a":"5"}"#);
    kubectl.edit_by(
        &["apply", "edit-last-applied"],
        "s/a: \"5\"/a: \"6\"/",
        &object,
    );
    let viewed = kubectl.ok(&["apply", "view-last-applied", "configmap/settings"]);
    assert!(viewed.contains("a: \"6\""), "{viewed}");
    assert_eq!(kubectl.value(&object, ".data"), r#"{"a":"5"}"#);

    // Nothing to say of what is as it should be.
    std::fs::write(&file, settings("a: '5'")).unwrap();
    kubectl.ok(&["diff", "-f", path]);
    std::fs::write(&file, settings("a: '7'")).unwrap();
    let different = kubectl.run(&["diff", "-f", path]);
    assert_eq!(different.status.code(), Some(1), "{}", said(&different));
    assert!(
        said(&different).contains("+  a: \"7\""),
        "{}",
        said(&different)
    );
}

#[test]
fn what_left_the_manifests_is_pruned() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let file = cluster.folder().join("all.yaml");
    let apply = |names: &[&str]| {
        let manifests: Vec<_> = names
            .iter()
            .map(|name| settings("a: '1'").replace("settings", name))
            .collect();
        std::fs::write(&file, manifests.join("---\n")).unwrap();
        let path = file.to_str().unwrap();
        kubectl.ok(&["apply", "--prune", "-l", "set=ours", "-f", path])
    };
    apply(&["one", "two"]);
    // Not made by apply, so not its to prune.
    kubectl.ok(&["create", "configmap", "stranger"]);
    kubectl.ok(&["label", "configmap", "stranger", "set=ours"]);
    let pruned = apply(&["two"]);
    assert!(pruned.contains("configmap/one pruned"), "{pruned}");
    let left = kubectl.ok(&["get", "configmaps", "-l", "set=ours", "-o", "name"]);
    assert_eq!(left, "configmap/stranger\nconfigmap/two\n");
}

#[test]
fn server_side_apply_takes_over_from_client_side_apply() {
    if !kubectl_available() {
        return;
    }
    let hello = sample("batch-hello");
    let hello = hello.to_str().unwrap();
    let mut cluster = Cluster::up(&["--apply", hello]);
    cluster.process.wait_for_line("pod/batch-hello created");
    let kubectl = cluster.kubectl();
    kubectl.apply(&settings("a: '1', b: '2'"));
    let file = cluster.folder().join("settings.yaml");
    std::fs::write(&file, settings("a: '2'")).unwrap();
    let path = file.to_str().unwrap();
    // No conflict with oneself, and what one no longer says goes.
    kubectl.ok(&["apply", "--server-side", "-f", path]);
    let object = ["configmap", "settings"];
    assert_eq!(kubectl.value(&object, ".data"), r#"{"a":"2"}"#);
    let managers = kubectl.value(&object, ".metadata.managedFields[*].manager");
    assert_eq!(managers, "kubectl kubectl-last-applied");

    // What `coracle up` applied is kubectl's to take over as well.
    kubectl.ok(&["apply", "--server-side", "-f", hello]);
}
