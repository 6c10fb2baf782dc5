//! Namespaces as objects. What becomes of their content is tested with the controllers.

use serde_json::{Value, json};

use crate::harness::Api;

const NAMESPACES: &str = "/api/v1/namespaces";

async fn create(api: &Api, name: &str) -> Value {
    let body = json!({"metadata": {"name": name}});
    api.post(NAMESPACES, &body).await.ok(201)
}

fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
    version.parse().unwrap()
}

/// Must: a Namespace has the label that it was patched with, at a later version
#[tokio::test]
async fn namespaces_should_patch_a_namespace() {
    let api = Api::new().await;
    let created = create(&api, "patched").await;
    let patch = json!({"metadata": {"labels": {"test": "value"}}});
    let path = format!("{NAMESPACES}/patched");
    let patched = api.patch(&path, "strategic-merge", &patch).await.ok(200);
    assert!(version(&patched) > version(&created));
    let read = api.get(&path).await.ok(200);
    assert_eq!(read["metadata"]["labels"]["test"], "value");
}

/// Must: a Namespace can be updated
/// Must: what was updated has its new value
#[tokio::test]
async fn namespaces_should_apply_an_update_to_a_namespace() {
    let api = Api::new().await;
    create(&api, "updated").await;
    let path = format!("{NAMESPACES}/updated");
    let mut namespace = api.get(&path).await.ok(200);
    namespace["metadata"]["labels"]["updated"] = json!("yes");
    let updated = api.put(&path, &namespace).await.ok(200);
    assert_eq!(updated["metadata"]["labels"]["updated"], "yes");
    assert_eq!(api.get(&path).await.ok(200), updated);
}

/// Must: the status of a Namespace can be read
/// Must: its phase is Active
/// Must: a patch of the status sets the fields that it has
/// Must: an update of the status sets the fields that it has
#[tokio::test]
async fn namespaces_should_apply_changes_to_a_namespace_status() {
    let api = Api::new().await;
    create(&api, "stated").await;
    let path = format!("{NAMESPACES}/stated/status");
    let read = api.get(&path).await.ok(200);
    assert_eq!(read["status"]["phase"], "Active");
    let condition = |kind: &str, message: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": message});
    let patched = condition("StatusPatch", "Patched by a test");
    let patch = json!({
        "metadata": {"annotations": {"patched": "stated"}},
        "status": {"conditions": [patched]},
    });
    let stated = api.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(stated["metadata"]["annotations"]["patched"], "stated");
    assert_eq!(stated["status"]["conditions"][0]["reason"], "E2E");
    assert_eq!(
        stated["status"]["conditions"][0]["message"],
        "Patched by a test"
    );

    let mut update = api.get(&path).await.ok(200);
    let conditions = update["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition("StatusUpdate", "Updated by a test"));
    let updated = api.put(&path, &update).await.ok(200);
    let last = &updated["status"]["conditions"][1];
    assert_eq!(last["type"], "StatusUpdate");
    assert_eq!(last["message"], "Updated by a test");
    assert_eq!(api.get(&path).await.ok(200), updated);
}

/// Must: a Namespace can be created
/// Must: it can be given another finalizer
/// Must: that finalizer is then there
/// Must: it can be taken away again
/// Must: it is then not there
#[tokio::test]
async fn namespaces_should_apply_a_finalizer_to_a_namespace() {
    let api = Api::new().await;
    let mut namespace = create(&api, "held").await;
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    let path = format!("{NAMESPACES}/held");
    let finalize = format!("{path}/finalize");
    for finalizers in [
        json!(["kubernetes", "e2e.example.com/fake"]),
        json!(["kubernetes"]),
    ] {
        namespace["spec"]["finalizers"] = finalizers.clone();
        let answer = api.put(&finalize, &namespace).await.ok(200);
        assert_eq!(answer["spec"]["finalizers"], finalizers);
        namespace = api.get(&path).await.ok(200);
        assert_eq!(namespace["spec"]["finalizers"], finalizers);
    }
}
