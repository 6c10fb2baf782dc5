//! Behaviours of Kubernetes' conformance that need controllers and no node: each test has the name
//! of its behaviour and a line `Must:` for each demand, as those of the API alone have
//! (`apiserver/tests/api/conformance`). What a node says of its Pods, [`run_pods`] says.

mod deployment;
mod disruption;
mod endpoints;
mod garbage_collector;
mod namespace;
mod quota_scopes;
mod replica_set;
mod resource_quota;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Cluster, until};

/// The annotation of Deployments and their ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The image that no node can pull.
const MISSING: &str = "missing:v1";

/// Says of each Pod that it runs and is ready, but for those of an image that is not there. Ends
/// with what it returns.
fn run_pods(cluster: &Cluster) -> JoinSet<()> {
    let pods: Api<Pod> = cluster.namespaced("default");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let seen = watcher(pods.clone(), watcher::Config::default());
        let mut seen = std::pin::pin!(seen.default_backoff().applied_objects());
        while let Some(pod) = seen.next().await {
            let pod = pod.unwrap();
            if is_ready(&pod) || image(&pod) == MISSING {
                continue;
            }
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
            // One that is deleted meanwhile is not found.
            let _ = pods
                .patch_status(
                    &pod.name_any(),
                    &PatchParams::default(),
                    &Patch::Strategic(status),
                )
                .await;
        }
    });
    tasks
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn image(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref().unwrap();
    spec.containers[0].image.as_deref().unwrap()
}

/// A Pod template's, or a selector's, worth of a workload with Pods of this image.
fn workload(name: &str, replicas: i32, labels: &Value, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

/// Waits until a Deployment has only Pods of its template, all of them available.
#[track_caller]
fn complete(deployments: &Api<Deployment>, name: &str) -> impl Future<Output = Option<Deployment>> {
    until(deployments, name, |deployment| {
        let Some(deployment) = deployment else {
            return false;
        };
        let Some(status) = &deployment.status else {
            return false;
        };
        let wanted = [deployment.spec.replicas; 3];
        [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ] == wanted
            && status.observed_generation == deployment.metadata.generation
    })
}

/// The ReplicaSets of a Deployment, the oldest first.
async fn sets_of(cluster: &Cluster, deployment: &Deployment) -> Vec<ReplicaSet> {
    let sets: Api<ReplicaSet> = cluster.namespaced("default");
    let mut sets = sets.list(&ListParams::default()).await.unwrap().items;
    sets.retain(|set| controlled_by(set, deployment));
    // One that was adopted may have none.
    sets.sort_by_key(|set| revision(set).parse::<u64>().unwrap_or(0));
    sets
}

fn controlled_by<K: Resource, O: Resource>(object: &K, owner: &O) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    let uid = owner.meta().uid.as_deref().unwrap();
    owners
        .filter(|reference| reference.controller == Some(true))
        .any(|reference| reference.uid == uid)
}

fn revision<K: ResourceExt>(object: &K) -> &str {
    let revision = object.annotations().get(REVISION);
    revision.map_or("", String::as_str)
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap()
}

/// Sets the image of a workload's only container.
fn with_image(image: &str) -> Patch<Value> {
    let containers = json!([{"name": "c", "image": image}]);
    Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}))
}

/// Reads the scale of what has one Pod, updates it to two, and patches it to four.
async fn scales<K>(objects: &Api<K>, name: &str)
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut scale = objects.get_scale(name).await.unwrap();
    let size = |scale: &Scale| scale.spec.as_ref().unwrap().replicas;
    assert_eq!(size(&scale), Some(1));
    assert_eq!(scale.status.as_ref().unwrap().replicas, 1);
    // Without a version it holds whatever happened meanwhile.
    scale.metadata.resource_version = None;
    scale.spec.as_mut().unwrap().replicas = Some(2);
    let scaled = objects
        .replace_scale(name, &PostParams::default(), &scale)
        .await
        .unwrap();
    assert_eq!(size(&scaled), Some(2));
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scaled = objects
        .patch_scale(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(size(&scaled), Some(4));
}
