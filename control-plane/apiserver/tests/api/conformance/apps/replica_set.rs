//! test/e2e/apps/replica_set.go: what of a ReplicaSet needs no controller.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn replica_set() -> Value {
    let labels = json!({"name": "sample-pod", "e2e": "x"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    json!({
        "metadata": {"name": "test-rs", "labels": labels},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template},
    })
}

/// Must: a ReplicaSet is created.
/// Must: a list by a label selector finds it.
/// Must: deletecollection deletes it.
#[tokio::test]
async fn replicaset_should_list_and_delete_a_collection_of_replicasets() {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "replicasets");
    let created = sets.create(&replica_set()).await;
    assert_eq!(sets.list_everywhere("e2e=x").await, [created]);
    let path = "/apis/apps/v1/namespaces/default/replicasets?labelSelector=e2e%3Dx";
    let options = json!({"gracePeriodSeconds": 1});
    api.delete_with(path, &options).await.ok(200);
    assert!(sets.list_everywhere("e2e=x").await.is_empty());
}

/// Must: a ReplicaSet is created.
/// Must: its status is read, updated and patched, and each change is seen by later reads.
#[tokio::test]
async fn replicaset_should_validate_replicaset_status_endpoints() {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "replicasets");
    sets.create(&replica_set()).await;
    sets.write_conditions("test-rs", "name=sample-pod").await;
}
