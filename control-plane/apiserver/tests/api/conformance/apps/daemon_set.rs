//! test/e2e/apps/daemon_set.go: what of a DaemonSet needs no controller.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn daemon_set() -> Value {
    let labels = json!({"daemonset-name": "log"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    json!({
        "metadata": {"name": "log", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    })
}

/// Must: a DaemonSet is created.
/// Must: a list by a label selector finds it.
/// Must: deletecollection deletes it.
#[tokio::test]
async fn daemon_set_should_list_and_delete_a_collection_of_daemonsets() {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "daemonsets");
    let created = sets.create(&daemon_set()).await;
    assert_eq!(sets.list_everywhere("daemonset-name=log").await, [created]);
    sets.delete_all("daemonset-name=log").await;
    assert!(sets.list_everywhere("daemonset-name=log").await.is_empty());
}

/// Must: a DaemonSet is created.
/// Must: its status is read, updated and patched, and each change is seen by later reads.
#[tokio::test]
async fn daemon_set_should_verify_changes_to_a_daemon_set_status() {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "daemonsets");
    sets.create(&daemon_set()).await;
    sets.write_conditions("log", "daemonset-name=log").await;
}
