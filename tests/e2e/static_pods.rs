//! Pods that a node runs because of a file, and the mirrors that show them.

use std::path::Path;

use crate::cluster::{Cluster, Kubectl, eventually, kubectl_available, sample};
use crate::nodes::{AgentFolder, Server, agent};

const CONTAINER: &str = ".status.containerStatuses[0].containerID";

/// Writes a manifest of the guest `kv-store` as an administrator would.
fn write_manifest(folder: &Path, name: &str, colour: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    \
         image: kv-store:v1\n    env: [{{name: COLOUR, value: {colour}}}]\n    \
         volumeMounts: [{{name: data, mountPath: /data}}]\n  \
         volumes: [{{name: data, emptyDir: {{}}}}]\n"
    );
    // Whole at once: what is hidden is no manifest.
    let hidden = folder.join(".new");
    std::fs::write(&hidden, text).unwrap();
    std::fs::rename(hidden, folder.join(format!("{name}.yaml"))).unwrap();
}

fn wait_running(kubectl: &Kubectl, mirror: &str) {
    kubectl.wait_value(&["pod", mirror], ".status.phase", "Running");
}

fn wait_gone(kubectl: &Kubectl, mirror: &str) {
    eventually("the mirror is gone", || {
        let pods = kubectl.ok(&["get", "pods"]);
        (!pods.contains(mirror)).then_some(()).ok_or(pods)
    });
}

#[test]
fn a_node_runs_what_lies_in_its_folder_and_shows_it() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&["--node-name", "node-1"]);
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("kv-counter").to_str().unwrap()]);
    let folder = cluster.data().join("agent/pod-manifests");
    let (pod, mirror) = (["pod", "static-node-1"], "static-node-1");
    write_manifest(&folder, "static", "red");
    wait_running(&kubectl, mirror);
    let owner = ".metadata.ownerReferences[0].kind";
    assert_eq!(kubectl.value(&pod, owner), "Node");
    kubectl.ok(&["logs", mirror]);
    let described = kubectl.ok(&["describe", "pod", mirror]);
    assert!(described.contains("Container started"), "{described}");

    // Deleting what shows it does not end it.
    let (uid, container) = (
        kubectl.value(&pod, ".metadata.uid"),
        kubectl.value(&pod, CONTAINER),
    );
    kubectl.ok(&["delete", "pod", mirror, "--wait=false"]);
    let another = eventually("another mirror", || {
        let found = String::from_utf8(
            kubectl
                .run(&["get", "pod", mirror, "-o", "jsonpath={.metadata.uid}"])
                .stdout,
        );
        let found = found.unwrap();
        (!found.is_empty() && found != uid)
            .then_some(found.clone())
            .ok_or(found)
    });
    kubectl.wait_value(&pod, CONTAINER, &container);
    // Nor does emptying the node.
    kubectl.ok(&["drain", "node-1", "--force", "--ignore-daemonsets"]);
    assert_eq!(kubectl.value(&pod, ".metadata.uid"), another);

    // What it is changes with the file.
    write_manifest(&folder, "static", "blue");
    let colour = ".spec.containers[0].env[0].value";
    eventually("the other colour", || {
        let found = kubectl.run(&[
            "get",
            "pod",
            mirror,
            "-o",
            &format!("jsonpath={{{colour}}}"),
        ]);
        let found = String::from_utf8(found.stdout).unwrap();
        (found == "blue").then_some(()).ok_or(found)
    });
    wait_running(&kubectl, mirror);
    // A manifest that would read from the API is none.
    let refused = "apiVersion: v1\nkind: Pod\nmetadata: {name: refused}\nspec:\n  \
        serviceAccountName: default\n  containers: [{name: main, image: 'kv-store:v1'}]\n";
    std::fs::write(folder.join("refused.yaml"), refused).unwrap();
    eventually("the reason", || {
        let printed = cluster.process.printed();
        let told = printed.contains("static pods may not reference serviceaccounts");
        told.then_some(()).ok_or(printed)
    });
    std::fs::remove_file(folder.join("static.yaml")).unwrap();
    wait_gone(&kubectl, mirror);
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "name"]), "");
}

#[test]
fn static_pods_run_while_no_server_is_there() {
    if !kubectl_available() {
        return;
    }
    let server = Server::start();
    let kubectl = server.kubectl();
    let token = server.coracle(&["token", "create"]);
    server.coracle(&["push", sample("kv-counter").to_str().unwrap()]);
    let folder = AgentFolder::new();
    let data = folder.path().join("data-one");
    let manifests = data.join("agent/pod-manifests");
    let mut process = agent(&server, "one", token.trim(), folder.path());
    process.wait_for_line("is Ready");
    write_manifest(&manifests, "first", "red");
    wait_running(&kubectl, "first-one");
    server.process.signal(libc::SIGSTOP);
    write_manifest(&manifests, "second", "red");
    let began = |name: &str| {
        eventually(&format!("{name} begins"), || {
            let logs = std::fs::read_dir(data.join("agent/logs")).unwrap();
            let names: Vec<_> = logs.map(|entry| entry.unwrap().file_name()).collect();
            let named = |of: &std::ffi::OsString| of.to_str().unwrap().contains(name);
            names
                .iter()
                .any(named)
                .then_some(())
                .ok_or(names)
                .map_err(|names| format!("{names:?}"))
        });
    };
    began("second-one");
    // The next agent knows enough of its cluster to go on alone.
    process.signal(libc::SIGTERM);
    process.wait();
    write_manifest(&manifests, "third", "red");
    let mut process = agent(&server, "one", token.trim(), folder.path());
    began("third-one");
    server.process.signal(libc::SIGCONT);
    process.wait_for_line("is Ready");
    for mirror in ["first-one", "second-one", "third-one"] {
        wait_running(&kubectl, mirror);
    }
}
