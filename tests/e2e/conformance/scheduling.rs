//! test/e2e/scheduling/predicates.go, and the scheduling of test/e2e/common/node/runtimeclass.go.

use serde_json::{Value, json};

use super::{cluster_with, create, whole};
use crate::cluster::{Kubectl, eventually};
use crate::host_ports::free_port;

/// Makes a Pod, of one container with these requests.
fn pod(kubectl: &Kubectl, name: &str, requests: Value, mut spec: Value) {
    let resources = json!({"requests": requests});
    spec["containers"] = json!([{"name": "c", "image": "hello-http:v1", "resources": resources}]);
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": {"name": name}, "spec": spec}),
    );
}

/// The scheduler has said of a Pod that there is no node for it, with these words.
fn not_scheduled(kubectl: &Kubectl, name: &str, why: &str) {
    let about = format!("involvedObject.name={name},reason=FailedScheduling");
    eventually("an event of failure", || {
        let events = kubectl.ok(&["get", "events", "--field-selector", &about]);
        if events.contains(why) {
            Ok(())
        } else {
            Err(events)
        }
    });
    assert_eq!(kubectl.value(&["pod", name], ".spec.nodeName"), "");
    assert_eq!(kubectl.value(&["pod", name], ".status.phase"), "Pending");
}

fn scheduled(kubectl: &Kubectl, name: &str) {
    let condition = r#".status.conditions[?(@.type=="PodScheduled")].status"#;
    kubectl.wait_value(&["pod", name], condition, "True");
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    assert_eq!(kubectl.value(&["pod", name], ".spec.nodeName"), node);
}

/// Must: where Pods request most of a node's processors, a Pod that requests more than is left is not
/// scheduled.
#[test]
fn schedulerpredicates_validates_resource_limits_of_pods_that_are_allowed_to_run() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    let cpu = whole(&kubectl.value(&["nodes"], ".items[0].status.allocatable.cpu"));
    let share = |tenths: u64| json!({"cpu": format!("{}m", cpu * 100 * tenths)});
    pod(&kubectl, "filler", share(7), json!({}));
    kubectl.wait_value(&["pod", "filler"], ".status.phase", "Running");
    pod(&kubectl, "additional", share(5), json!({}));
    not_scheduled(&kubectl, "additional", "Insufficient cpu");
    // It is for want of processors alone.
    kubectl.ok(&["delete", "pod", "filler", "--now"]);
    scheduled(&kubectl, "additional");
}

/// Must: a Pod that selects nodes by a label that one has is scheduled there.
#[test]
fn schedulerpredicates_validates_that_nodeselector_is_respected_if_matching() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    let selector = json!({"nodeSelector": {"kubernetes.io/e2e": "42"}});
    pod(&kubectl, "waits", json!({}), selector.clone());
    not_scheduled(
        &kubectl,
        "waits",
        "didn't match Pod's node affinity/selector",
    );
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    kubectl.ok(&["label", "node", &node, "kubernetes.io/e2e=42"]);
    pod(&kubectl, "with-labels", json!({}), selector);
    scheduled(&kubectl, "with-labels");
    scheduled(&kubectl, "waits");
}

/// Must: a Pod that selects nodes by a label that none has is not scheduled.
#[test]
fn schedulerpredicates_validates_that_nodeselector_is_respected_if_not_matching() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    let selector = json!({"nodeSelector": {"label": "nonempty"}});
    pod(&kubectl, "restricted-pod", json!({}), selector);
    not_scheduled(
        &kubectl,
        "restricted-pod",
        "didn't match Pod's node affinity/selector",
    );
}

/// Must: a Pod with a port of all addresses of a node is scheduled there.
/// Must: one that asks for that port of one address, by the same protocol, is not.
#[test]
fn schedulerpredicates_validates_that_there_exists_conflict_between_pods_with_same_hostport_and_protocol_but_one_using_0_0_0_0_hostip()
 {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    kubectl.ok(&["label", "node", &node, "kubernetes.io/e2e=95"]);
    let port = free_port();
    let asking = |name: &str, ip: &str| {
        let port =
            json!({"containerPort": 8080, "hostPort": port, "hostIP": ip, "protocol": "TCP"});
        let container = json!({"name": "c", "image": "hello-http:v1", "ports": [port]});
        let spec = json!({"nodeSelector": {"kubernetes.io/e2e": "95"}, "containers": [container]});
        create(
            &kubectl,
            &json!({"kind": "Pod", "metadata": {"name": name}, "spec": spec}),
        );
    };
    asking("pod4", "0.0.0.0");
    scheduled(&kubectl, "pod4");
    kubectl.wait_value(&["pod", "pod4"], ".status.phase", "Running");
    let host = kubectl.value(&["pod", "pod4"], ".status.hostIP");
    asking("pod5", &host);
    let why = "didn't have free ports for the requested pod ports";
    not_scheduled(&kubectl, "pod5", why);
}

fn runtime_class(kubectl: &Kubectl, overhead: Value) {
    kubectl.apply(
        &json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": "wasm-class"}, "handler": "wasm", "overhead": overhead,
        })
        .to_string(),
    );
}

/// Must: a Pod that names a RuntimeClass is scheduled, and has no overhead where the class has none.
#[test]
fn runtimeclass_should_schedule_a_pod_requesting_a_runtimeclass_without_podoverhead() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    runtime_class(&kubectl, Value::Null);
    pod(
        &kubectl,
        "classed",
        json!({}),
        json!({"runtimeClassName": "wasm-class"}),
    );
    scheduled(&kubectl, "classed");
    assert_eq!(kubectl.value(&["pod", "classed"], ".spec.overhead"), "");
}

/// Must: a Pod that names a RuntimeClass is scheduled, with the overhead of the class.
#[test]
fn runtimeclass_should_schedule_a_pod_requesting_a_runtimeclass_and_initialize_its_overhead() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    runtime_class(
        &kubectl,
        json!({"podFixed": {"cpu": "10m", "memory": "1Mi"}}),
    );
    pod(
        &kubectl,
        "classed",
        json!({}),
        json!({"runtimeClassName": "wasm-class"}),
    );
    scheduled(&kubectl, "classed");
    let overhead = |of: &str| kubectl.value(&["pod", "classed"], &format!(".spec.overhead.{of}"));
    assert_eq!(
        (overhead("cpu"), overhead("memory")),
        ("10m".to_owned(), "1Mi".to_owned())
    );
}
