//! test/e2e/common/node/runtimeclass.go: RuntimeClass, and Pods that name one that is not there.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::{Api, pod};
use crate::kinds::{Subject, lifecycle};

fn class(name: &str) -> Value {
    json!({"metadata": {"name": name}, "handler": "a-handler"})
}

/// Tries to create a Pod of a class, without a trace.
async fn refused(api: &Api, class: &str) {
    let mut pod = pod("classed");
    pod["spec"]["runtimeClassName"] = json!(class);
    let pods = "/api/v1/namespaces/default/pods?dryRun=All";
    let message = api.post(pods, &pod).await.fails(403, "Forbidden");
    assert!(message.contains("RuntimeClass"), "{message}");
}

/// Must: a Pod that names a RuntimeClass that does not exist is refused.
#[tokio::test]
async fn runtimeclass_should_reject_a_pod_requesting_a_non_existent_runtimeclass() {
    let api = Api::new().await;
    refused(&api, "nonexistent").await;
}

/// Must: a Pod that names a RuntimeClass that was deleted is refused.
#[tokio::test]
async fn runtimeclass_should_reject_a_pod_requesting_a_deleted_runtimeclass() {
    let api = Api::new().await;
    let classes = Objects::of_cluster(&api, "/apis/node.k8s.io/v1", "runtimeclasses");
    classes.create(&class("delete-me")).await;
    classes.delete("delete-me").await;
    classes.gone("delete-me").await;
    refused(&api, "delete-me").await;
}

/// Must: discovery has the group node.k8s.io.
/// Must: discovery of the group has its version v1.
/// Must: discovery of the version has its runtimeclasses.
/// Must: create, get, list, watch, update, patch, delete and deletecollection are served.
#[tokio::test]
async fn runtimeclass_should_support_runtimeclasses_api_operations() {
    let api = Api::new().await;
    let subject = Subject {
        group_version: "/apis/node.k8s.io/v1",
        plural: "runtimeclasses",
        namespaced: false,
        body: class("gvisor"),
        status: None,
    };
    lifecycle(&api, &subject).await;
}
