//! Resources of Pods that run are changed, for containers and guests alike.

use serde_json::Value;

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, Kubectl, eventually, sample};

const POD: [&str; 2] = ["pod", "box"];

/// Has the only container of a Pod resized.
fn resize(kubectl: &Kubectl, pod: &str, container: &str, resources: &str) {
    let patch = format!(
        r#"{{"spec":{{"containers":[{{"name":"{container}","resources":{resources}}}]}}}}"#
    );
    kubectl.ok(&["patch", "pod", pod, "--subresource", "resize", "-p", &patch]);
}

/// What is said of a resize that is not done: reason and message.
fn unfinished(kubectl: &Kubectl, condition: &str) -> (String, String) {
    let of = |field: &str| format!(".status.conditions[?(@.type==\"{condition}\")].{field}");
    let value = |field: &str| kubectl.value(&POD, &of(field));
    (value("reason"), value("message"))
}

#[test]
fn containers_are_resized_as_their_node_and_policy_allow() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:v1
    command: [sh, -c, 'while true; do sleep 0.1; done']
    resources: {requests: {cpu: 50m}, limits: {memory: 64Mi}}
    resizePolicy:
    - {resourceName: cpu, restartPolicy: NotRequired}
    - {resourceName: memory, restartPolicy: RestartContainer}
",
    );
    kubectl.wait_value(&POD, ".status.phase", "Running");
    let container = ".status.containerStatuses[0]";
    let restarts = format!("{container}.restartCount");
    let cpu = format!("{container}.resources.requests.cpu");
    let memory = format!("{container}.resources.limits.memory");
    resize(&kubectl, "box", "main", r#"{"requests":{"cpu":"60m"}}"#);
    kubectl.wait_value(&POD, &cpu, "60m");
    assert_eq!(kubectl.value(&POD, &restarts), "0");
    resize(&kubectl, "box", "main", r#"{"limits":{"memory":"96Mi"}}"#);
    kubectl.wait_value(&POD, &restarts, "1");
    kubectl.wait_value(&POD, &memory, "96Mi");

    // More than the node has is refused for good.
    resize(&kubectl, "box", "main", r#"{"requests":{"cpu":"9999"}}"#);
    let message = eventually("it is refused", || {
        let (reason, message) = unfinished(&kubectl, "PodResizePending");
        (reason == "Infeasible")
            .then_some(message.clone())
            .ok_or(message)
    });
    assert!(
        message.contains("Node didn't have enough capacity: cpu"),
        "{message}"
    );
    assert_eq!(kubectl.value(&POD, &cpu), "60m");

    // The next agent knows what was allocated, and still waits.
    let address = kubectl.value(&POD, ".status.podIP");
    let range = format!("{}.0.0/16", address.rsplitn(3, '.').last().unwrap());
    let folder = cluster.kill();
    let cluster = Cluster::up_in(folder, &["--cluster-cidr", &range]);
    let kubectl = cluster.kubectl();
    let (reason, _) = unfinished(&kubectl, "PodResizePending");
    assert_eq!(reason, "Infeasible");
    resize(&kubectl, "box", "main", r#"{"requests":{"cpu":"70m"}}"#);
    kubectl.wait_value(&POD, &cpu, "70m");
    assert_eq!(kubectl.value(&POD, &restarts), "1");
    assert_eq!(unfinished(&kubectl, "PodResizePending").0, "");
    kubectl.ok(&["delete", "pod", "box", "--timeout=60s"]);
}

#[test]
fn guests_are_resized_while_they_run() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let guest = sample("hello-http").join("hello-http.wasm");
    cluster.coracle(&["push", guest.to_str().unwrap(), "hello:v1"]);
    let limits = "--overrides={\"spec\":{\"containers\":[{\"name\":\"guest\",\"image\":\"hello:v1\",\
                  \"resources\":{\"limits\":{\"cpu\":\"500m\",\"memory\":\"64Mi\"}}}]}}";
    kubectl.ok(&["run", "guest", "--image=hello:v1", limits]);
    let pod = ["pod", "guest"];
    kubectl.wait_value(&pod, ".status.phase", "Running");
    let more = r#"{"requests":{"cpu":"1","memory":"32Mi"},"limits":{"cpu":"1","memory":"32Mi"}}"#;
    resize(&kubectl, "guest", "guest", more);
    let container = ".status.containerStatuses[0]";
    kubectl.wait_value(
        &pod,
        &format!("{container}.resources.limits.memory"),
        "32Mi",
    );
    let status: Value = serde_json::from_str(&kubectl.value(&pod, container)).unwrap();
    assert_eq!(status["resources"]["limits"]["cpu"], "1");
    assert_eq!(status["allocatedResources"]["cpu"], "1");
    assert_eq!(
        (&status["restartCount"], &status["ready"]),
        (&0.into(), &true.into())
    );
    kubectl.ok(&["delete", "pod", "guest", "--timeout=60s"]);
}
