//! test/e2e/storage/volumeattributesclass.go: VolumeAttributesClass.

use serde_json::json;

use super::labelled_and_deleted;
use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: a VolumeAttributesClass is created.
/// Must: it is read.
/// Must: it is patched, and the new label is found.
/// Must: it is deleted.
/// Must: it is not found then.
/// Must: a replacement is created.
/// Must: that is updated, and the new label is found.
/// Must: that is deleted by deletecollection.
/// Must: it is not found then.
#[tokio::test]
async fn volumeattributesclass_should_run_through_the_lifecycle_of_a_volumeattributesclass() {
    let api = Api::new().await;
    let classes = Objects::of_cluster(&api, "/apis/storage.k8s.io/v1", "volumeattributesclasses");
    let body = json!({
        "metadata": {"generateName": "e2e-"}, "driverName": "e2e-fake-csi-driver",
        "parameters": {"foo": "bar"},
    });
    labelled_and_deleted(&classes, &body).await;
}
