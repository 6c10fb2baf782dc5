//! What becomes of the content of a namespace that is deleted.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, delete, set_status, until};

const NAME: &str = "deleted";

fn pod(finalizers: Value) -> Value {
    json!({
        "metadata": {"name": "test-pod", "finalizers": finalizers},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

/// Must: a Pod of a namespace is gone when that is deleted, also once there is one of its name
/// again
#[tokio::test]
async fn namespaces_should_ensure_that_all_pods_are_removed_when_a_namespace_is_deleted() {
    let cluster = Cluster::new().await;
    cluster.namespace(NAME).await;
    let pods: Api<Pod> = cluster.namespaced(NAME);
    create(&pods, pod(json!([]))).await;
    set_status(&pods, "test-pod", json!({"phase": "Running"})).await;
    let namespaces: Api<Namespace> = cluster.all();
    delete(&namespaces, NAME).await;
    until(&namespaces, NAME, |namespace| namespace.is_none()).await;
    cluster.namespace(NAME).await;
    assert!(pods.get_opt("test-pod").await.unwrap().is_none());
}

/// Must: a Service of a namespace is gone when that is deleted, also once there is one of its
/// name again
#[tokio::test]
async fn namespaces_should_ensure_that_all_services_are_removed_when_a_namespace_is_deleted() {
    let cluster = Cluster::new().await;
    cluster.namespace(NAME).await;
    let services: Api<Service> = cluster.namespaced(NAME);
    let body = json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    create(&services, body).await;
    let namespaces: Api<Namespace> = cluster.all();
    delete(&namespaces, NAME).await;
    until(&namespaces, NAME, |namespace| namespace.is_none()).await;
    cluster.namespace(NAME).await;
    assert!(services.get_opt("s").await.unwrap().is_none());
}

/// Must: while a Pod of a deleted namespace is held by a finalizer, other objects are still there,
/// and a condition of the namespace says what keeps it
/// Must: once the Pod is let go all of them are gone
#[tokio::test]
async fn orderednamespacedeletion_namespace_deletion_should_delete_pod_first() {
    let cluster = Cluster::new().await;
    cluster.namespace(NAME).await;
    let pods: Api<Pod> = cluster.namespaced(NAME);
    create(&pods, pod(json!(["e2e.example.com/finalizer"]))).await;
    set_status(&pods, "test-pod", json!({"phase": "Running"})).await;
    let maps: Api<ConfigMap> = cluster.namespaced(NAME);
    create(
        &maps,
        json!({"metadata": {"name": "test"}, "data": {"a": "b"}}),
    )
    .await;
    let namespaces: Api<Namespace> = cluster.all();
    delete(&namespaces, NAME).await;
    until(&namespaces, NAME, |namespace| {
        let status = namespace.and_then(|namespace| namespace.status.as_ref());
        status.is_some_and(|status| {
            let mut conditions = status.conditions.iter().flatten();
            status.phase.as_deref() == Some("Terminating")
                && conditions.any(|known| known.type_ == "NamespaceDeletionContentFailure")
        })
    })
    .await;
    let held = pods.get("test-pod").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(maps.get("test").await.unwrap().name_any(), "test");

    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("test-pod", &PatchParams::default(), &release)
        .await
        .unwrap();
    until(&namespaces, NAME, |namespace| namespace.is_none()).await;
    assert!(pods.get_opt("test-pod").await.unwrap().is_none());
    assert!(maps.get_opt("test").await.unwrap().is_none());
}
