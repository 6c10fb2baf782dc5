//! test/e2e/common/node/pods.go: what of a Pod its kubelet need not do; where it runs, its status
//! is written as a kubelet writes it.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::{Api, pod};

fn pods(api: &Api) -> Objects<'_> {
    Objects::namespaced(api, "/api/v1", "pods")
}

/// Creates a Pod with a label, on a node that runs it and finds it ready.
async fn running(pods: &Objects<'_>, name: &str, label: &str) -> Value {
    let mut body = pod(name);
    body["metadata"]["labels"] = json!({label: "true"});
    body["spec"]["nodeName"] = json!("n1");
    body["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pods.create(&body).await;
    let ready = ["Ready", "ContainersReady"].map(|kind| json!({"type": kind, "status": "True"}));
    let status = json!({"status": {"phase": "Running", "conditions": ready}});
    pods.patch_status(name, "strategic-merge", &status).await
}

/// What a kubelet does when everything of the Pod has ended.
async fn ended(api: &Api, pods: &Objects<'_>, name: &str) {
    let now = json!({"gracePeriodSeconds": 0});
    api.delete_with(&pods.path(name), &now).await.ok(200);
}

/// Must: a Pod is created, and a list by its label finds it.
/// Must: its label is updated, and a list by the new value finds it; by the old one no longer.
#[tokio::test]
async fn pods_should_be_updated() {
    let api = Api::new().await;
    let pods = pods(&api);
    running(&pods, "updated", "time").await;
    assert_eq!(pods.list("time=true").await.len(), 1);
    let updated = pods.relabel("updated", "time", "later").await;
    assert_eq!(pods.list("time=later").await, [updated]);
    assert!(pods.list("time=true").await.is_empty());
}

/// Must: a set of Pods is created with a label, and a list by the label finds it.
/// Must: the set is deleted, and once their kubelet is done the list no longer has it.
#[tokio::test]
async fn pods_should_delete_a_collection_of_pods() {
    let api = Api::new().await;
    let pods = pods(&api);
    let names = ["test-pod-1", "test-pod-2", "test-pod-3"];
    for name in names {
        running(&pods, name, "testing").await;
    }
    assert_eq!(pods.list("testing=true").await.len(), 3);
    let collection = "/api/v1/namespaces/default/pods?labelSelector=testing%3Dtrue";
    let grace = json!({"gracePeriodSeconds": 1});
    api.delete_with(collection, &grace).await.ok(200);
    for going in pods.list("testing=true").await {
        assert!(going["metadata"]["deletionTimestamp"].is_string());
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 1);
    }
    for name in names {
        ended(&api, &pods, name).await;
    }
    assert!(pods.list("testing=true").await.is_empty());
}

/// Must: a Pod is created and runs.
/// Must: its status is patched.
/// Must: what is read then are the new values.
#[tokio::test]
async fn pods_should_patch_a_pod_status() {
    let api = Api::new().await;
    let pods = pods(&api);
    let created = running(&pods, "status", "testing").await;
    assert_eq!(created["status"]["phase"], "Running");
    let patch = json!({
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"message": "Patched by a test", "reason": "E2E"},
    });
    let patched = pods.patch_status("status", "strategic-merge", &patch).await;
    assert_eq!(patched["status"]["message"], "Patched by a test");
    assert_eq!(patched["status"]["reason"], "E2E");
    assert_eq!(patched["status"]["phase"], "Running");
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
}

/// Must: a Pod is created with a label, and a watch sees it run.
/// Must: it is patched: its label and the image of its container; a watch sees that.
/// Must: its status is read, and replaced by one that is not ready.
/// Must: it is deleted, as a collection; a watch sees it go, and it is not found.
#[tokio::test]
async fn pods_should_run_through_the_lifecycle_of_pods_and_podstatus() {
    let api = Api::new().await;
    let pods = pods(&api);
    let mut watch = pods.watch("test-pod-static=true").await;
    running(&pods, "pod-test", "test-pod-static").await;
    watch
        .until(|event| event["object"]["status"]["phase"] == "Running")
        .await;

    let container = json!({"name": "c", "image": "app:v2"});
    let patch = json!({
        "metadata": {"labels": {"test-pod": "patched"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    });
    let patched = pods.patch("pod-test", "strategic-merge", &patch).await;
    assert_eq!(patched["metadata"]["labels"]["test-pod"], "patched");
    assert_eq!(patched["spec"]["containers"][0]["image"], "app:v2");
    assert_eq!(watch.line().await, "MODIFIED pod-test");

    let mut status = pods.status("pod-test").await;
    for condition in status["status"]["conditions"].as_array_mut().unwrap() {
        if condition["type"] != "PodScheduled" {
            assert_eq!(condition["status"], "True");
            condition["status"] = json!("False");
        }
    }
    let replaced = pods.update_status(&status).await;
    let unready = replaced["status"]["conditions"].as_array().unwrap().iter();
    assert_eq!(unready.filter(|c| c["status"] == "False").count(), 2);

    let collection = "/api/v1/namespaces/default/pods?labelSelector=test-pod-static%3Dtrue";
    let grace = json!({"gracePeriodSeconds": 1});
    api.delete_with(collection, &grace).await.ok(200);
    ended(&api, &pods, "pod-test").await;
    watch.until(|event| event["type"] == "DELETED").await;
    pods.gone("pod-test").await;
}
