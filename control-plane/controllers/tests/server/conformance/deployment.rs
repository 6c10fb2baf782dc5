//! test/e2e/apps/deployment.go.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::{Value, json};

use super::{
    MISSING, REVISION, complete, controlled_by, image, replicas, revision, run_pods, scales,
    sets_of, with_image, workload,
};
use crate::harness::{Cluster, create, until};

fn labels() -> Value {
    json!({"name": "sample-pod"})
}

/// Waits until a ReplicaSet is of this size.
#[track_caller]
fn sized(
    sets: &Api<ReplicaSet>,
    name: &str,
    size: i32,
) -> impl Future<Output = Option<ReplicaSet>> {
    until(sets, name, move |set| {
        set.is_some_and(|set| replicas(set) == size)
    })
}

/// Must: rolling updates are supported: a Deployment adopts the ReplicaSet that its selector
/// matches, brings up Pods of its own template under the next revision, and takes down the old.
#[tokio::test]
async fn deployment_rollingupdatedeployment_should_delete_old_pods_and_create_new_ones() {
    let cluster = Cluster::new().await;
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let more = json!({"name": "sample-pod", "pod": "httpd"});
    let mut set = workload("to-be-adopted", 1, &more, "app:v1");
    set["metadata"]["annotations"] = json!({REVISION: "3546343826724305832"});
    create(&sets, set).await;
    create(&deployments, workload("rolling", 1, &labels(), "app:v2")).await;
    let deployment = complete(&deployments, "rolling").await.unwrap();
    assert_eq!(revision(&deployment), "3546343826724305833");
    let sets = sets_of(&cluster, &deployment).await;
    let names: Vec<String> = sets.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "to-be-adopted");
    assert_eq!((replicas(&sets[0]), replicas(&sets[1])), (0, 1));
    let left = pods.list(&ListParams::default()).await.unwrap();
    let images: BTreeSet<&str> = left.iter().map(image).collect();
    assert_eq!(images, BTreeSet::from(["app:v2"]));
}

/// Must: the strategy Recreate is supported: no Pod of the new template is there before all of
/// the old are gone.
#[tokio::test]
async fn deployment_recreatedeployment_should_delete_old_pods_and_create_new_ones() {
    let cluster = Cluster::new().await;
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let mut body = workload("recreate", 3, &labels(), "app:v1");
    body["spec"]["strategy"] = json!({"type": "Recreate"});
    create(&deployments, body).await;
    let first = complete(&deployments, "recreate").await.unwrap();
    assert_eq!(revision(&first), "1");

    let before = pods.list(&ListParams::default()).await.unwrap();
    let version = before.metadata.resource_version.clone().unwrap();
    let mut alive: BTreeMap<String, String> = before
        .iter()
        .map(|pod| (pod.name_any(), image(pod).to_owned()))
        .collect();
    deployments
        .patch("recreate", &PatchParams::default(), &with_image("app:v2"))
        .await
        .unwrap();
    until(&deployments, "recreate", |d| {
        d.is_some_and(|d| revision(d) == "2")
    })
    .await;
    complete(&deployments, "recreate").await;

    // What happened meanwhile, one Pod after another.
    let since = WatchParams::default().timeout(1);
    let mut events = std::pin::pin!(pods.watch(&since, &version).await.unwrap());
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            WatchEvent::Added(pod) => alive.insert(pod.name_any(), image(&pod).to_owned()),
            WatchEvent::Deleted(pod) => alive.remove(&pod.name_any()),
            _ => None,
        };
        let images: BTreeSet<&String> = alive.values().collect();
        assert!(images.len() <= 1, "{alive:?}");
    }
    let images: BTreeSet<&str> = alive.values().map(String::as_str).collect();
    assert_eq!(images, BTreeSet::from(["app:v2"]));
    assert_eq!(alive.len(), 3);
}

/// Must: ReplicaSets beyond `revisionHistoryLimit` are deleted.
#[tokio::test]
async fn deployment_deployment_should_delete_old_replica_sets() {
    let cluster = Cluster::new().await;
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let more = json!({"name": "sample-pod", "pod": "httpd"});
    create(&sets, workload("to-be-cleaned", 1, &more, "app:v1")).await;
    let mut body = workload("cleaning", 1, &labels(), "app:v2");
    body["spec"]["revisionHistoryLimit"] = json!(0);
    create(&deployments, body).await;
    let deployment = complete(&deployments, "cleaning").await.unwrap();
    until(&sets, "to-be-cleaned", |set| set.is_none()).await;
    assert_eq!(sets_of(&cluster, &deployment).await.len(), 1);
}

/// Must: the template may change again before a rollout has finished: the newest is rolled out,
/// and all before it, adopted or begun, are taken down.
#[tokio::test]
async fn deployment_deployment_should_support_rollover() {
    let cluster = Cluster::new().await;
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let more = json!({"name": "sample-pod", "pod": "httpd"});
    create(&sets, workload("to-be-rolled-over", 1, &more, "app:v1")).await;
    let mut body = workload("rollover", 1, &labels(), MISSING);
    body["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let deployment = create(&deployments, body).await;
    until(&sets, "to-be-rolled-over", |set| {
        set.is_some_and(|set| controlled_by(set, &deployment))
    })
    .await;
    // The rollout cannot finish: the new Pod never becomes ready.
    until(&deployments, "rollover", |deployment| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| {
            status.updated_replicas == Some(1) && status.available_replicas == Some(1)
        })
    })
    .await;
    deployments
        .patch("rollover", &PatchParams::default(), &with_image("app:v2"))
        .await
        .unwrap();
    let deployment = complete(&deployments, "rollover").await.unwrap();
    let sets = sets_of(&cluster, &deployment).await;
    let sizes: Vec<i32> = sets.iter().map(replicas).collect();
    assert_eq!(sizes, [0, 0, 1]);
}

/// Must: a Deployment that is scaled during a rollout scales its ReplicaSets in proportion.
#[tokio::test]
async fn deployment_deployment_should_support_proportional_scaling() {
    let cluster = Cluster::new().await;
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let mut body = workload("webserver", 10, &labels(), "app:v1");
    body["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2, "maxSurge": 3}});
    create(&deployments, body).await;
    let deployment = complete(&deployments, "webserver").await.unwrap();
    let first = sets_of(&cluster, &deployment).await[0].name_any();

    deployments
        .patch("webserver", &PatchParams::default(), &with_image(MISSING))
        .await
        .unwrap();
    // Ten, less the two that may be away; beside them as many as three more make thirteen.
    sized(&sets, &first, 8).await;
    until(&deployments, "webserver", |deployment| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.updated_replicas == Some(5))
    })
    .await;
    let second = sets_of(&cluster, &deployment).await[1].name_any();
    sized(&sets, &second, 5).await;

    let scale = Patch::Merge(json!({"spec": {"replicas": 30}}));
    deployments
        .patch("webserver", &PatchParams::default(), &scale)
        .await
        .unwrap();
    // Thirty-three, shared out as eight to five.
    sized(&sets, &first, 20).await;
    sized(&sets, &second, 13).await;
}

/// Must: the Pod of a new Deployment runs.
/// Must: its scale is read, and says one.
/// Must: its scale is updated, and the Deployment is of that size.
/// Must: its scale is patched, and the Deployment is of that size.
#[tokio::test]
async fn deployment_deployment_should_have_a_working_scale_subresource() {
    let cluster = Cluster::new().await;
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    create(&deployments, workload("scaled", 1, &labels(), "app:v1")).await;
    complete(&deployments, "scaled").await;
    scales(&deployments, "scaled").await;
    let scaled = complete(&deployments, "scaled").await.unwrap();
    assert_eq!(scaled.spec.replicas, Some(4));
}

/// Must: a Deployment is created, and has the Pods that it asks for.
/// Must: it is patched: its label, its size and its template, and has the Pods that that says.
/// Must: it is scaled by an update, with another image, and has those Pods.
/// Must: its status is read, and patched.
/// Must: it is deleted, as a collection.
#[tokio::test]
async fn deployment_should_run_the_lifecycle_of_a_deployment() {
    let cluster = Cluster::new().await;
    let deployments: Api<Deployment> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    let static_labels = json!({"test-deployment-static": "true"});
    create(&deployments, workload("test", 2, &static_labels, "app:v1")).await;
    complete(&deployments, "test").await;

    let containers = json!([{"name": "c", "image": "app:v2"}]);
    let patch = Patch::Strategic(json!({
        "metadata": {"labels": {"test-deployment": "patched"}},
        "spec": {"replicas": 1, "template": {"spec": {"terminationGracePeriodSeconds": 2, "containers": containers}}},
    }));
    deployments
        .patch("test", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let patched = complete(&deployments, "test").await.unwrap();
    assert_eq!(patched.labels()["test-deployment"], "patched");
    let everywhere: Api<Deployment> = cluster.all();
    let selected = ListParams::default().labels("test-deployment-static=true");
    assert_eq!(everywhere.list(&selected).await.unwrap().items.len(), 1);

    let mut updated = workload("test", 2, &static_labels, "app:v3");
    updated["metadata"]["labels"]["test-deployment"] = json!("updated");
    let updated: Deployment = serde_json::from_value(updated).unwrap();
    deployments
        .replace("test", &PostParams::default(), &updated)
        .await
        .unwrap();
    complete(&deployments, "test").await;
    let status = deployments.get_status("test").await.unwrap();
    assert_eq!(status.labels()["test-deployment"], "updated");
    let template = status.spec.template;
    assert_eq!(
        template.spec.unwrap().containers[0].image.as_deref(),
        Some("app:v3")
    );

    let patch = Patch::Strategic(json!({
        "metadata": {"labels": {"test-deployment": "patched-status"}},
        "status": {"readyReplicas": 0, "availableReplicas": 0},
    }));
    let patched = deployments
        .patch_status("test", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(patched.status.unwrap().ready_replicas.unwrap_or(0), 0);
    // The labels are not the status'; and its controller counts again.
    assert_eq!(
        patched.metadata.labels.unwrap()["test-deployment"],
        "updated"
    );
    complete(&deployments, "test").await;

    let options = DeleteParams::default().grace_period(1);
    deployments
        .delete_collection(&options, &selected)
        .await
        .unwrap();
    until(&deployments, "test", |deployment| deployment.is_none()).await;
}
