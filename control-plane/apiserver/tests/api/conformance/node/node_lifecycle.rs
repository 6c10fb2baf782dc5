//! test/e2e/node/node_lifecycle.go: Node, as an object.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: a Node is created, and read with its name.
/// Must: it is patched, and the new label is found.
/// Must: a list by the label has the one.
/// Must: it is updated, and the new label is found.
/// Must: it is deleted.
/// Must: it is not found then.
#[tokio::test]
async fn node_lifecycle_should_run_through_the_lifecycle_of_a_node() {
    let api = Api::new().await;
    let nodes = Objects::of_cluster(&api, "/api/v1", "nodes");
    let status = json!({
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "True", "reason": "Set by a test", "message": "Set by a test"}],
    });
    let body = json!({"metadata": {"name": "e2e-fake-node"}, "status": status});
    let created = nodes.create(&body).await;
    assert_eq!(nodes.get("e2e-fake-node").await, created);
    let patched = nodes.label("e2e-fake-node", "e2e", "patched").await;
    assert_eq!(nodes.list("e2e=patched").await, [patched]);
    nodes.relabel("e2e-fake-node", "e2e", "updated").await;
    nodes.delete("e2e-fake-node").await;
    nodes.gone("e2e-fake-node").await;
    assert!(nodes.list("e2e=updated").await.is_empty());
}
