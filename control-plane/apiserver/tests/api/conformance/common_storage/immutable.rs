//! test/e2e/common/storage/configmap_volume.go and secrets_volume.go: data that may not change.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Changes data, makes the object immutable, and tries what is then refused and allowed.
async fn is_immutable(objects: &Objects<'_>, api: &Api, new: &str) {
    let path = objects.path("immutable");
    let mut current = objects.get("immutable").await;
    current["data"]["data-4"] = json!(new);
    let changed = objects.update(&current).await;
    assert_eq!(changed["data"]["data-4"], new);
    current = changed;
    current["immutable"] = json!(true);
    current = objects.update(&current).await;
    assert_eq!(current["immutable"], true);

    let mut other_data = current.clone();
    other_data["data"]["data-5"] = json!(new);
    let mut mutable = current.clone();
    mutable["immutable"] = json!(false);
    for refused in [other_data, mutable] {
        let message = api.put(&path, &refused).await.fails(422, "Invalid");
        assert!(
            message.contains("field is immutable when `immutable` is set"),
            "{message}"
        );
        assert_eq!(objects.get("immutable").await, current);
    }
    current["metadata"]["labels"] = json!({"label1": "value1"});
    let labelled = objects.update(&current).await;
    assert_eq!(labelled["metadata"]["labels"]["label1"], "value1");
    objects.delete("immutable").await;
    objects.gone("immutable").await;
}

/// Must: the data of a new ConfigMap is updated.
/// Must: it is marked as immutable.
/// Must: then its data is not changed.
/// Must: nor is the mark taken away.
/// Must: its labels are changed.
/// Must: it is deleted.
#[tokio::test]
async fn configmap_should_be_immutable_if_immutable_field_is_set() {
    let api = Api::new().await;
    let maps = Objects::namespaced(&api, "/api/v1", "configmaps");
    let body = json!({"metadata": {"name": "immutable"}, "data": {"data-1": "value-1"}});
    maps.create(&body).await;
    is_immutable(&maps, &api, "value-4").await;
}

/// Must: the data of a new Secret is updated.
/// Must: it is marked as immutable.
/// Must: then its data is not changed.
/// Must: nor is the mark taken away.
/// Must: its labels are changed.
/// Must: it is deleted.
#[tokio::test]
async fn secrets_should_be_immutable_if_immutable_field_is_set() {
    let api = Api::new().await;
    let secrets = Objects::namespaced(&api, "/api/v1", "secrets");
    let body = json!({"metadata": {"name": "immutable"}, "data": {"data-1": "dmFsdWUtMQ=="}});
    secrets.create(&body).await;
    is_immutable(&secrets, &api, "dmFsdWUtNA==").await;
}
