//! What becomes of what deleted objects own.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, until, until_all};

fn deployment() -> Value {
    let labels = json!({"gc": "test"});
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    json!({"metadata": {"name": "owner"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }})
}

/// Options of a deletion, of this very object.
fn only(options: DeleteParams, uid: Option<String>) -> DeleteParams {
    options.preconditions(Preconditions {
        uid,
        resource_version: None,
    })
}

/// A Deployment whose ReplicaSet and Pods are there.
struct Family {
    deployments: Api<Deployment>,
    sets: Api<ReplicaSet>,
    pods: Api<Pod>,
    uid: Option<String>,
}

impl Family {
    async fn new(cluster: &Cluster) -> Self {
        let deployments: Api<Deployment> = cluster.namespaced("default");
        let (sets, pods) = (cluster.namespaced("default"), cluster.namespaced("default"));
        let uid = create(&deployments, deployment()).await.uid();
        until_all(&sets, "gc=test", |sets: &[&ReplicaSet]| sets.len() == 1).await;
        until_all(&pods, "gc=test", |pods: &[&Pod]| pods.len() == 2).await;
        Self {
            deployments,
            sets,
            pods,
            uid,
        }
    }

    async fn delete(&self, options: DeleteParams) {
        let options = only(options, self.uid.clone());
        self.deployments.delete("owner", &options).await.unwrap();
        until(&self.deployments, "owner", |owner| owner.is_none()).await;
    }
}

/// Must: when a Deployment is deleted in the background, so is its ReplicaSet
/// Must: so are the Pods of that
#[tokio::test]
async fn garbage_collector_should_delete_rs_created_by_deployment_when_not_orphaning() {
    let cluster = Cluster::new().await;
    let family = Family::new(&cluster).await;
    family.delete(DeleteParams::background()).await;
    until_all(&family.sets, "gc=test", |left| left.is_empty()).await;
    until_all(&family.pods, "gc=test", |left| left.is_empty()).await;
}

/// Must: when a Deployment is deleted and orphans are wanted, its ReplicaSet stays, without owner
/// Must: so do its Pods
#[tokio::test]
async fn garbage_collector_should_orphan_rs_created_by_deployment_when_deleteoptions_propagationpolicy_is_orphan()
 {
    let cluster = Cluster::new().await;
    let family = Family::new(&cluster).await;
    let before = family.pods.list(&Default::default()).await.unwrap();
    family.delete(DeleteParams::orphan()).await;
    // Something else that is owned goes: the collector has had its turn.
    let gone =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "owner", "uid": family.uid});
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    let dependent =
        json!({"metadata": {"name": "dependent", "ownerReferences": [gone]}, "spec": pod});
    create(&family.pods, dependent).await;
    until(&family.pods, "dependent", |pod| pod.is_none()).await;

    let sets = until_all(&family.sets, "gc=test", |sets| sets.len() == 1).await;
    assert!(sets[0].owner_references().is_empty());
    assert!(sets[0].metadata.deletion_timestamp.is_none());
    let after = family.pods.list(&Default::default()).await.unwrap();
    let uids = |pods: &[Pod]| pods.iter().map(ResourceExt::uid).collect::<Vec<_>>();
    assert_eq!(uids(&after.items), uids(&before.items));
    for pod in after {
        assert_eq!(pod.owner_references()[0].uid, sets[0].uid().unwrap());
    }
}

/// Must: of Pods that own each other in a circle, the deletion of one deletes all
/// Must: the circle does not keep any of them
#[tokio::test]
async fn garbage_collector_should_not_be_blocked_by_dependency_circle() {
    let cluster = Cluster::new().await;
    let pods: Api<Pod> = cluster.namespaced("default");
    let mut uids = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        let body = json!({"metadata": {"name": name, "labels": {"gc": "circle"}}, "spec": spec});
        uids.push(create(&pods, body).await.uid());
    }
    for (name, owner, uid) in [
        ("pod1", "pod3", 2),
        ("pod2", "pod1", 0),
        ("pod3", "pod2", 1),
    ] {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": uids[uid],
            "controller": true, "blockOwnerDeletion": true});
        let patch = Patch::Strategic(json!({"metadata": {"ownerReferences": [owner]}}));
        pods.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let foreground = only(DeleteParams::foreground(), uids[0].clone());
    pods.delete("pod1", &foreground).await.unwrap();
    until_all(&pods, "gc=circle", |left| left.is_empty()).await;
}
