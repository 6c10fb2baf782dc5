//! test/e2e/common/node/ephemeral_containers.go: containers that are added to a Pod that runs.

use serde_json::json;

use super::create;
use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, Kubectl, eventually};

const TARGET: [&str; 2] = ["pod", "ephemeral-containers-target-pod"];

/// A running Pod to which a container `debugger` is added, which then runs; its generation, and what
/// exec and logs say of the added one.
fn debugged() -> Option<(Cluster, Kubectl)> {
    let (cluster, kubectl) = cluster_with_busybox(&[])?;
    let container = json!({
        "name": "test-container-1", "image": "busybox:v1",
        "command": ["/bin/sleep"], "args": ["10000"],
    });
    let pod = json!({
        "kind": "Pod", "metadata": {"name": TARGET[1]},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    });
    create(&kubectl, &pod);
    kubectl.wait_value(&TARGET, ".status.phase", "Running");
    assert_eq!(kubectl.value(&TARGET, ".metadata.generation"), "1");

    let debugger = json!({
        "name": "debugger", "image": "busybox:v1", "stdin": true, "tty": true,
        "command": ["/bin/sh", "-c", "while true; do echo polo; sleep 2; done"],
    });
    let patch = json!({"spec": {"ephemeralContainers": [debugger]}}).to_string();
    let resource = "--subresource=ephemeralcontainers";
    kubectl.ok(&["patch", "pod", TARGET[1], resource, "-p", &patch]);
    let started = ".status.ephemeralContainerStatuses[0].state.running.startedAt";
    eventually("the added container runs", || {
        match kubectl.value(&TARGET, started) {
            since if since.is_empty() => Err(kubectl.value(&TARGET, ".status")),
            _ => Ok(()),
        }
    });
    assert_eq!(kubectl.value(&TARGET, ".metadata.generation"), "2");
    let exec = ["exec", TARGET[1], "-c", "debugger", "--", "/bin/echo"];
    let said = kubectl.ok(&[&exec[..], &["marco"]].concat());
    assert!(said.contains("marco"), "{said}");
    eventually("its log", || {
        let log = kubectl.ok(&["logs", TARGET[1], "-c", "debugger"]);
        log.contains("polo").then_some(()).ok_or(log)
    });
    Some((cluster, kubectl))
}

/// Must: a container that is added to a Pod's ephemeral ones runs.
/// Must: the Pod's generation is then 2.
/// Must: a command can be executed in it, and what it writes is in its log.
#[test]
fn ephemeral_containers_will_start_an_ephemeral_container_in_an_existing_pod() {
    debugged();
}

/// Must: a container that is added to a Pod's ephemeral ones runs.
/// Must: the subresource then shows one ephemeral container.
/// Must: an update that adds another one is taken.
/// Must: the subresource then shows two.
#[test]
fn ephemeral_containers_should_update_the_ephemeral_containers_in_an_existing_pod() {
    let Some((cluster, kubectl)) = debugged() else {
        return;
    };
    let path = format!(
        "/api/v1/namespaces/default/pods/{}/ephemeralcontainers",
        TARGET[1]
    );
    let get = || -> serde_json::Value {
        serde_json::from_str(&kubectl.ok(&["get", "--raw", &path])).unwrap()
    };
    let mut pod = get();
    let containers = pod["spec"]["ephemeralContainers"].as_array_mut().unwrap();
    assert_eq!(containers.len(), 1);
    containers.push(json!({
        "name": "debugger2", "image": "busybox:v1", "imagePullPolicy": "IfNotPresent",
        "terminationMessagePolicy": "File",
    }));
    // The kubelet reports the Pod meanwhile: an update of an older state is no matter here.
    pod["metadata"]["resourceVersion"].take();
    let file = cluster.folder().join("update.json");
    std::fs::write(&file, pod.to_string()).unwrap();
    kubectl.ok(&["replace", "--raw", &path, "-f", file.to_str().unwrap()]);
    let containers = get()["spec"]["ephemeralContainers"].take();
    let names: Vec<_> = containers
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["debugger", "debugger2"]);
}
