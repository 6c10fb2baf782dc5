//! test/e2e/apps/rc.go: what of a ReplicationController needs no controller.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn controller() -> Value {
    let labels = json!({"test-rc-static": "true"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    json!({
        "metadata": {"name": "rc-test", "labels": labels},
        "spec": {"replicas": 1, "selector": labels, "template": template},
    })
}

/// Says how many Pods there are, as the controller does.
async fn count(controllers: &Objects<'_>, replicas: i64) -> Value {
    let counted = json!({"status": {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}});
    controllers.patch_status("rc-test", "merge", &counted).await
}

/// Must: a ReplicationController is created.
/// Must: its scale is read.
/// Must: its scale is updated.
/// Must: what is read then is the new value.
#[tokio::test]
async fn replicationcontroller_should_get_and_update_a_replicationcontroller_scale() {
    let api = Api::new().await;
    let controllers = Objects::namespaced(&api, "/api/v1", "replicationcontrollers");
    controllers.create(&controller()).await;
    count(&controllers, 1).await;
    controllers.scale("rc-test", 1).await;
}

/// Must: a ReplicationController is created, and a watch sees it.
/// Must: it, its status and its scale are patched, and the status updated; each is read back and
/// seen by the watch.
/// Must: a list of all namespaces finds it as it is now.
/// Must: deletecollection deletes it, and the watch sees that.
#[tokio::test]
async fn replicationcontroller_should_test_the_lifecycle_of_a_replicationcontroller() {
    let api = Api::new().await;
    let controllers = Objects::namespaced(&api, "/api/v1", "replicationcontrollers");
    let selector = "test-rc-static=true";
    let mut watch = controllers.watch(selector).await;
    controllers.create(&controller()).await;
    assert_eq!(watch.line().await, "ADDED rc-test");
    count(&controllers, 1).await;
    assert_eq!(watch.line().await, "MODIFIED rc-test");

    controllers.label("rc-test", "test-rc", "patched").await;
    assert_eq!(watch.line().await, "MODIFIED rc-test");
    let patch = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    let patched = controllers
        .patch_status("rc-test", "strategic-merge", &patch)
        .await;
    assert!(patched["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0);
    assert_eq!(watch.line().await, "MODIFIED rc-test");
    let status = controllers.status("rc-test").await;
    assert_eq!(status["status"]["replicas"], 1);

    let scale = json!({"spec": {"replicas": 2}});
    let path = controllers.path("rc-test/scale");
    api.patch(&path, "strategic-merge", &scale).await.ok(200);
    assert_eq!(watch.line().await, "MODIFIED rc-test");
    let mut scaled = count(&controllers, 2).await;
    assert_eq!(scaled["spec"]["replicas"], 2);
    assert_eq!(watch.line().await, "MODIFIED rc-test");
    assert_eq!(scaled["metadata"]["labels"]["test-rc"], "patched");

    scaled["status"]["readyReplicas"] = json!(1);
    scaled["status"]["availableReplicas"] = json!(1);
    let updated = controllers.update_status(&scaled).await;
    assert_eq!(updated["status"]["readyReplicas"], 1);
    assert_eq!(watch.line().await, "MODIFIED rc-test");
    assert_eq!(controllers.list_everywhere(selector).await, [updated]);
    controllers.delete_all(selector).await;
    // By default its Pods stay: it waits until the garbage collector has let them go.
    assert_eq!(watch.line().await, "MODIFIED rc-test");
    let going = controllers.get("rc-test").await;
    assert_eq!(going["metadata"]["finalizers"], json!(["orphan"]));
    controllers.release("rc-test").await;
    assert_eq!(watch.line().await, "DELETED rc-test");
    assert!(controllers.list_everywhere(selector).await.is_empty());
}
