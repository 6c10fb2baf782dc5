//! test/e2e/node/pods.go: what the server says of a Pod by itself.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::{Api, pod};

/// Must: a generation that comes with a new Pod counts for nothing: it is 1.
/// Must: a graceful delete advances it.
#[tokio::test]
async fn pods_extended_pod_generation_pod_generation_custom_set_generation_on_new_pods_and_graceful_delete()
 {
    let api = Api::new().await;
    let pods = Objects::namespaced(&api, "/api/v1", "pods");
    let mut body = pod("p");
    body["metadata"]["generation"] = json!(100);
    body["metadata"]["finalizers"] = json!(["example.com/held"]);
    body["spec"]["nodeName"] = json!("n1");
    let created = pods.create(&body).await;
    assert_eq!(created["metadata"]["generation"], 1);
    pods.delete("p").await;
    let going = pods.get("p").await;
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(going["metadata"]["generation"], 2);
}

/// Must: the generation of a new Pod is 1.
/// Must: an update that changes nothing leaves it, as one of the metadata does, and one that sets it.
/// Must: each update of the tolerations, the deadline, the image of a container and that of an init
/// container advances it by one.
#[tokio::test]
async fn pods_extended_pod_generation_pod_generation_pod_generation_should_start_at_1_and_increment_per_update()
 {
    let api = Api::new().await;
    let pods = Objects::namespaced(&api, "/api/v1", "pods");
    let mut body = pod("p");
    body["spec"]["initContainers"] = json!([{"name": "init-container", "image": "setup:v1"}]);
    body["spec"]["nodeName"] = json!("n1");
    assert_eq!(pods.create(&body).await["metadata"]["generation"], 1);

    // As upstream: what is there of tolerations is not repeated, admission adds it again.
    let toleration = json!([{
        "key": "foo", "operator": "Equal", "value": "bar", "effect": "NoSchedule",
    }]);
    let mut generation = 1;
    for (member, value, advances) in [
        ("/metadata/name", json!("p"), false),
        ("/spec/tolerations", toleration, true),
        ("/spec/activeDeadlineSeconds", json!(5000), true),
        ("/spec/containers/0/image", json!("app:v2"), true),
        ("/spec/initContainers/0/image", json!("setup:v2"), true),
        ("/metadata/annotations", json!({"key": "value"}), false),
        ("/metadata/generation", json!(1), false),
    ] {
        let mut changed = pods.get("p").await;
        let (parent, name) = member.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[name] = value;
        let updated = pods.update(&changed).await;
        generation += i32::from(advances);
        assert_eq!(updated["metadata"]["generation"], generation, "{member}");
    }
}

/// Must: the status of a Pod whose requests of processor and memory are its limits has the class
/// Guaranteed.
#[tokio::test]
async fn pods_extended_pods_set_qos_class_should_be_set_on_pods_with_matching_resource_requests_and_limits_for_memory_and_cpu()
 {
    let api = Api::new().await;
    let pods = Objects::namespaced(&api, "/api/v1", "pods");
    let all = json!({"cpu": "100m", "memory": "100Mi"});
    let mut body = pod("p");
    body["spec"]["containers"][0]["resources"] = json!({"requests": all, "limits": all});
    pods.create(&body).await;
    assert_eq!(pods.get("p").await["status"]["qosClass"], "Guaranteed");
}
