//! What upstream tests in `test/e2e/storage`, as far as no volume is mounted.

mod csi_inline;
mod csi_node;
mod csistoragecapacity;
mod persistent_volumes;
mod storageclass;
mod volume_attachment;
mod volumeattributesclass;

use serde_json::{Value, json};

use super::objects::{Objects, name, version};

/// Creates an object, finds it by a label that a patch gave it, deletes it; creates another, and
/// deletes it as a collection by a label that an update gave it. One that is protected while it is
/// used goes when its controller says that it is not.
async fn labelled_and_deleted(objects: &Objects<'_>, body: &Value) {
    let first = objects.create(body).await;
    let (first_name, first_version) = (name(&first), version(&first));
    let read = objects.get(first_name).await;
    assert_eq!(read["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(name(&read), first_name);
    let patched = objects.label(first_name, first_name, "patched").await;
    assert!(version(&patched) > first_version);
    let selector = format!("{first_name}=patched");
    assert_eq!(objects.list(&selector).await, [patched]);
    objects.delete(first_name).await;
    let held = first["metadata"].get("finalizers").is_some();
    if held {
        objects.release(first_name).await;
    }
    objects.gone(first_name).await;
    assert!(objects.list(&selector).await.is_empty());

    let mut replacement = body.clone();
    if replacement["metadata"].get("name").is_some() {
        replacement["metadata"]["name"] = json!("replacement");
    }
    let replacement = objects.create(&replacement).await;
    let second_name = name(&replacement);
    assert_eq!(objects.get(second_name).await, replacement);
    let updated = objects.relabel(second_name, second_name, "updated").await;
    let selector = format!("{second_name}=updated");
    assert_eq!(objects.list(&selector).await, [updated]);
    objects.delete_all(&selector).await;
    if held {
        objects.release(second_name).await;
    }
    objects.gone(second_name).await;
    assert!(objects.list(&selector).await.is_empty());
}
