//! test/e2e/storage/storageclass.go: StorageClass.

use serde_json::json;

use super::labelled_and_deleted;
use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: a StorageClass is created.
/// Must: it is read.
/// Must: it is patched, the new label is found, and its version is a greater one.
/// Must: it is deleted.
/// Must: it is not found then.
/// Must: a replacement is created.
/// Must: that is updated, and the new label is found.
/// Must: that is deleted by deletecollection.
/// Must: it is not found then.
#[tokio::test]
async fn storageclasses_csi_conformance_should_run_through_the_lifecycle_of_a_storageclass() {
    let api = Api::new().await;
    let classes = Objects::of_cluster(&api, "/apis/storage.k8s.io/v1", "storageclasses");
    let body = json!({"metadata": {"generateName": "e2e-"}, "provisioner": "e2e-fake-provisioner"});
    labelled_and_deleted(&classes, &body).await;
}
