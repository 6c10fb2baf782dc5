//! test/e2e/storage/csi_node.go: CSINode.

use serde_json::json;

use super::labelled_and_deleted;
use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: a CSINode is created.
/// Must: it is read with its name.
/// Must: it is patched, and the new label is found.
/// Must: a list by the label has it.
/// Must: it is deleted.
/// Must: it is not found then.
/// Must: a replacement is created.
/// Must: that is read with its name.
/// Must: that is updated, and the new label is found.
/// Must: that is deleted by deletecollection.
/// Must: it is not found then.
#[tokio::test]
async fn csinodes_csi_conformance_should_run_through_the_lifecycle_of_a_csinode() {
    let api = Api::new().await;
    let nodes = Objects::of_cluster(&api, "/apis/storage.k8s.io/v1", "csinodes");
    let body = json!({"metadata": {"name": "e2e-csinode"}, "spec": {"drivers": []}});
    labelled_and_deleted(&nodes, &body).await;
}
