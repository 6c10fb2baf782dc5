//! test/e2e/storage/volume_attachment.go: VolumeAttachment.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn attachment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "attacher": "e2e-test.storage.k8s.io", "nodeName": "n1",
            "source": {"persistentVolumeName": format!("pv-{name}")},
        },
    })
}

fn attachments(api: &Api) -> Objects<'_> {
    Objects::of_cluster(api, "/apis/storage.k8s.io/v1", "volumeattachments")
}

/// Must: a VolumeAttachment is created.
/// Must: it is read with its name.
/// Must: it is patched, and the new label is found.
/// Must: a list by the label has the one.
/// Must: it is deleted.
/// Must: it is not found then.
/// Must: a second is created.
/// Must: that is updated, and the new label is found.
/// Must: a third is created.
/// Must: that is updated, and the new label is found.
/// Must: both are deleted by deletecollection.
/// Must: they are not found then.
#[tokio::test]
async fn volumeattachment_conformance_should_run_through_the_lifecycle_of_a_volumeattachment() {
    let api = Api::new().await;
    let attachments = attachments(&api);
    let created = attachments.create(&attachment("va-1")).await;
    assert_eq!(attachments.get("va-1").await, created);
    let patched = attachments.label("va-1", "va-1", "patched").await;
    assert_eq!(attachments.list("va-1=patched").await, [patched]);
    attachments.delete("va-1").await;
    attachments.gone("va-1").await;
    assert!(attachments.list("va-1=patched").await.is_empty());
    for name in ["va-2", "va-3"] {
        attachments.create(&attachment(name)).await;
        attachments.relabel(name, "va-e2e", "updated").await;
    }
    attachments.delete_all("va-e2e=updated").await;
    assert!(attachments.list("va-e2e=updated").await.is_empty());
    for name in ["va-2", "va-3"] {
        attachments.gone(name).await;
    }
}

/// Must: a VolumeAttachment is created.
/// Must: it is patched, and the new label is found.
/// Must: its status is read, and it is not attached.
/// Must: its status is patched, and it is attached.
/// Must: its status is updated, and it is not attached.
/// Must: it is deleted.
/// Must: it is not found then.
#[tokio::test]
async fn volumeattachment_conformance_should_apply_changes_to_a_volumeattachment_status() {
    let api = Api::new().await;
    let attachments = attachments(&api);
    attachments.create(&attachment("va")).await;
    attachments.label("va", "va", "patched").await;
    assert_eq!(attachments.status("va").await["status"]["attached"], false);
    let patch = json!({"status": {"attached": true}});
    let mut patched = attachments.patch_status("va", "merge", &patch).await;
    assert_eq!(patched["status"]["attached"], true);
    patched["status"]["attached"] = json!(false);
    let updated = attachments.update_status(&patched).await;
    assert_eq!(updated["status"]["attached"], false);
    attachments.delete("va").await;
    attachments.gone("va").await;
}
