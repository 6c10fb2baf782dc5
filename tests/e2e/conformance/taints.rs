//! test/e2e/node/taints.go: Pods that tolerate a taint of their node for a time. Each test has a
//! cluster of its own, whose only node it taints.

use serde_json::{Value, json};

use super::{cluster_with, create};
use crate::cluster::{Kubectl, eventually};

/// Makes a Pod that tolerates taints, each for so many seconds or for ever, and waits until it runs.
#[track_caller]
fn tolerant(kubectl: &Kubectl, name: &str, taints: &[(&str, Option<u32>)]) {
    let toleration = |(taint, seconds): &(&str, Option<u32>)| {
        json!({
            "key": taint, "operator": "Equal", "value": "evictTaintVal", "effect": "NoExecute",
            "tolerationSeconds": seconds,
        })
    };
    let tolerations: Vec<Value> = taints.iter().map(toleration).collect();
    let spec = json!({
        "terminationGracePeriodSeconds": 0, "tolerations": tolerations,
        "containers": [{"name": "main", "image": "hello-http:v1"}],
    });
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": {"name": name}, "spec": spec}),
    );
    kubectl.wait_value(&["pod", name], ".status.phase", "Running");
}

#[track_caller]
fn taint(kubectl: &Kubectl, keys: &[&str]) {
    let taints: Vec<String> = keys
        .iter()
        .map(|key| format!("{key}=evictTaintVal:NoExecute"))
        .collect();
    let mut arguments = vec!["taint", "nodes", "--all"];
    arguments.extend(taints.iter().map(String::as_str));
    kubectl.ok(&arguments);
}

#[track_caller]
fn is_evicted(kubectl: &Kubectl, pod: &str) {
    eventually("the eviction", || {
        let output = kubectl.run(&["get", "pod", pod]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("not found") {
            Ok(())
        } else {
            Err(said)
        }
    });
}

/// Must: Pods are evicted from a tainted node each when its time is over, and not before.
#[test]
fn noexecutetaintmanager_multiple_pods_evicts_pods_with_mintolerationseconds() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    tolerant(&kubectl, "short", &[("evict", Some(2))]);
    tolerant(&kubectl, "long", &[("evict", Some(7))]);
    taint(&kubectl, &["evict"]);
    is_evicted(&kubectl, "short");
    let deleted = kubectl.value(&["pod", "long"], ".metadata.deletionTimestamp");
    assert_eq!(deleted, "");
    is_evicted(&kubectl, "long");
}

/// Must: a Pod stays on a node whose taint is taken away before the Pod's time is over.
#[test]
fn noexecutetaintmanager_single_pod_removing_taint_cancels_eviction() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    // The second says when the time of the first is over: it has more of it, for a taint that stays.
    tolerant(&kubectl, "stays", &[("removed", Some(4)), ("kept", None)]);
    tolerant(&kubectl, "goes", &[("removed", None), ("kept", Some(6))]);
    taint(&kubectl, &["removed", "kept"]);
    let deleted = kubectl.value(&["pod", "stays"], ".metadata.deletionTimestamp");
    assert_eq!(deleted, "");
    kubectl.ok(&["taint", "nodes", "--all", "removed:NoExecute-"]);
    is_evicted(&kubectl, "goes");
    let phase = kubectl.value(&["pod", "stays"], ".status.phase");
    assert_eq!(phase, "Running");
    let deleted = kubectl.value(&["pod", "stays"], ".metadata.deletionTimestamp");
    assert_eq!(deleted, "");
}
