//! test/e2e/common/node/configmap.go: ConfigMap, without Pods that read it.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: a ConfigMap with an empty key is refused.
#[tokio::test]
async fn configmap_should_fail_to_create_configmap_with_empty_key() {
    let api = Api::new().await;
    let maps = Objects::namespaced(&api, "/api/v1", "configmaps");
    let body = json!({"metadata": {"name": "empty-key"}, "data": {"": "value-1"}});
    let message = maps.try_create(&body).await.fails(422, "Invalid");
    assert!(message.contains("data[]"), "{message}");
    maps.gone("empty-key").await;
}

/// Must: a ConfigMap is created without data, updated with some, and what is read then is what
/// the update gave.
#[tokio::test]
async fn configmap_should_update_configmap_successfully() {
    let api = Api::new().await;
    let maps = Objects::namespaced(&api, "/api/v1", "configmaps");
    let mut body = json!({"metadata": {"name": "map"}});
    maps.create(&body).await;
    body["data"] = json!({"data": "value"});
    let updated = maps.update(&body).await;
    assert_eq!(updated["data"], json!({"data": "value"}));
}

/// Must: a ConfigMap is created and read.
/// Must: it is patched, and the list of all namespaces by its new label has it with its old label
/// and its new value.
/// Must: it is deleted as a collection.
#[tokio::test]
async fn configmap_should_run_through_a_configmap_lifecycle() {
    let api = Api::new().await;
    let maps = Objects::namespaced(&api, "/api/v1", "configmaps");
    let labels = json!({"test-configmap-static": "true"});
    let body =
        json!({"metadata": {"name": "map", "labels": labels}, "data": {"valueName": "value"}});
    maps.create(&body).await;
    let read = maps.get("map").await;
    assert_eq!(read["data"], body["data"]);
    assert_eq!(read["metadata"]["labels"], labels);
    let patch = json!({"metadata": {"labels": {"test-configmap": "patched"}}, "data": {"valueName": "value1"}});
    maps.patch("map", "strategic-merge", &patch).await;
    let found = maps.list_everywhere("test-configmap=patched").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["metadata"]["name"], "map");
    assert_eq!(found[0]["metadata"]["namespace"], "default");
    assert_eq!(
        found[0]["metadata"]["labels"]["test-configmap-static"],
        "true"
    );
    assert_eq!(found[0]["data"], json!({"valueName": "value1"}));
    maps.delete_all("test-configmap-static=true").await;
    assert!(maps.list("test-configmap-static=true").await.is_empty());
}
