//! test/e2e/apps/replica_set.go.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{controlled_by, run_pods, scales, workload};
use crate::harness::{Cluster, create, until};

/// Must: a ReplicaSet adopts a Pod that its selector matches, or replaces it.
/// Must: when the labels of one of its Pods no longer match, it lets the Pod go and takes itself
/// out of its owners.
#[tokio::test]
async fn replicaset_should_adopt_matching_pods_on_creation_and_release_no_longer_matching_pods() {
    let cluster = Cluster::new().await;
    let pods: Api<Pod> = cluster.namespaced("default");
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let labels = json!({"name": "pod-adoption-release"});
    let orphan = json!({"metadata": {"name": "orphan", "labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}});
    create(&pods, orphan).await;
    let set = create(&sets, workload("set", 1, &labels, "app:v1")).await;
    until(&pods, "orphan", |pod| {
        pod.is_none_or(|pod| controlled_by(pod, &set))
    })
    .await;

    let selected = ListParams::default().labels("name=pod-adoption-release");
    let ready = until(&sets, "set", |set| {
        let status = set.and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(1))
    });
    ready.await;
    let owned = pods.list(&selected).await.unwrap();
    assert_eq!(owned.items.len(), 1);
    let owned = owned.items[0].name_any();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"name": "not-matching-name"}}}));
    pods.patch(&owned, &PatchParams::default(), &patch)
        .await
        .unwrap();
    let released = until(&pods, &owned, |pod| {
        pod.is_some_and(|pod| !controlled_by(pod, &set))
    });
    assert!(
        released
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
}

/// Waits until so many Pods of the ReplicaSet are ready.
#[track_caller]
fn ready(sets: &Api<ReplicaSet>, count: i32) -> impl Future<Output = Option<ReplicaSet>> {
    until(sets, "test-rs", move |set| {
        let status = set.and_then(|set| set.status.as_ref());
        status.is_some_and(|status| {
            [
                Some(status.replicas),
                status.ready_replicas,
                status.available_replicas,
            ] == [Some(count); 3]
        })
    })
}

/// Must: the Pod of a new ReplicaSet runs.
/// Must: its scale is read, and says one.
/// Must: its scale is updated, and the ReplicaSet is of that size.
/// Must: its scale is patched, and the ReplicaSet is of that size.
#[tokio::test]
async fn replicaset_replicaset_should_have_a_working_scale_subresource() {
    let cluster = Cluster::new().await;
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let labels = json!({"name": "sample-pod"});
    create(&sets, workload("test-rs", 1, &labels, "app:v1")).await;
    ready(&sets, 1).await;
    scales(&sets, "test-rs").await;
    ready(&sets, 4).await;
}

/// Must: the Pod of a new ReplicaSet runs.
/// Must: it is scaled to two, and has two.
/// Must: it is patched: its label, its size and its template, and has as many Pods as that says.
#[tokio::test]
async fn replicaset_replace_and_patch_tests() {
    let cluster = Cluster::new().await;
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let labels = json!({"name": "sample-pod"});
    create(&sets, workload("test-rs", 1, &labels, "app:v1")).await;
    let mut set = ready(&sets, 1).await.unwrap();
    set.spec.replicas = Some(2);
    set.metadata.managed_fields = None;
    // Its status may have changed meanwhile, which is no reason not to scale it.
    set.metadata.resource_version = None;
    sets.replace("test-rs", &PostParams::default(), &set)
        .await
        .unwrap();
    ready(&sets, 2).await;
    let containers = json!([{"name": "c", "image": "app:v2"}]);
    let patch = Patch::Strategic(json!({
        "metadata": {"labels": {"test-rs": "patched"}},
        "spec": {"replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 0, "containers": containers}}},
    }));
    sets.patch("test-rs", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let patched = ready(&sets, 3).await.unwrap();
    assert_eq!(patched.labels()["test-rs"], "patched");
    let spec = patched.spec.template.unwrap().spec.unwrap();
    assert_eq!(spec.containers[0].image.as_deref(), Some("app:v2"));
    assert_eq!(spec.termination_grace_period_seconds, Some(0));
}
