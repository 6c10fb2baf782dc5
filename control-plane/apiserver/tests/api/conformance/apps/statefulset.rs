//! test/e2e/apps/statefulset.go: what of a StatefulSet needs no controller.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn stateful_set() -> Value {
    let labels = json!({"name": "sample-pod"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "ss", "image": "app:v1"}]}});
    json!({
        "metadata": {"name": "ss"},
        "spec": {"serviceName": "test", "replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    })
}

/// Must: a new StatefulSet has a scale of one.
/// Must: its scale is brought to two (by an update), and on by a patch.
#[tokio::test]
async fn statefulset_basic_statefulset_functionality_should_have_a_working_scale_subresource() {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "statefulsets");
    sets.create(&stateful_set()).await;
    // As the controller says when the Pod is there.
    let counted = json!({"status": {"replicas": 1, "readyReplicas": 1}});
    sets.patch_status("ss", "merge", &counted).await;
    sets.scale("ss", 1).await;
}

/// Must: a StatefulSet is created.
/// Must: it is patched: label, replicas and the image of the template.
/// Must: a list by a label selector finds it.
/// Must: deletecollection deletes it.
#[tokio::test]
async fn statefulset_basic_statefulset_functionality_should_list_patch_and_delete_a_collection_of_statefulsets()
 {
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "statefulsets");
    sets.create(&stateful_set()).await;
    let container = json!({"name": "ss", "image": "app:v2"});
    let patch = json!({
        "metadata": {"labels": {"test-ss": "patched"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [container]}}},
    });
    let patched = sets.patch("ss", "strategic-merge", &patch).await;
    assert_eq!(patched["spec"]["replicas"], 2);
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().unwrap().len(), 1);
    assert_eq!(containers[0]["image"], "app:v2");
    assert_eq!(sets.list_everywhere("test-ss=patched").await, [patched]);
    sets.delete_all("test-ss=patched").await;
    assert!(sets.list_everywhere("test-ss=patched").await.is_empty());
}

/// Must: a StatefulSet is created.
/// Must: its status is read, updated and patched, and each change is seen by later reads.
#[tokio::test]
async fn statefulset_basic_statefulset_functionality_should_validate_statefulset_status_endpoints()
{
    let api = Api::new().await;
    let sets = Objects::namespaced(&api, "/apis/apps/v1", "statefulsets");
    sets.create(&stateful_set()).await;
    sets.label("ss", "e2e", "testing").await;
    sets.write_conditions("ss", "e2e=testing").await;
}
