//! What becomes of what deleted objects own.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
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

/// Makes Pods of an owner, as its controller makes them: what is looked at is what becomes of them.
async fn pods_of(cluster: &Cluster, owner: &Value, names: &[&str]) -> Api<Pod> {
    let pods: Api<Pod> = cluster.namespaced("default");
    for name in names {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        let body = json!({
            "metadata": {"name": name, "labels": {"gc": "owned"}, "ownerReferences": [owner]},
            "spec": spec,
        });
        create(&pods, body).await;
    }
    pods
}

fn controller(kind: &str, api_version: &str, name: &str, uid: Option<String>) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A ReplicationController, and how its Pods name it.
async fn replication_controller(
    controllers: &Api<ReplicationController>,
    name: &str,
) -> (Option<String>, Value) {
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    let labels = json!({"gc": "owned", "of": name});
    let body = json!({"metadata": {"name": name}, "spec": {
        "replicas": 4, "selector": labels,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }});
    let uid = create(controllers, body).await.uid();
    let owner = controller("ReplicationController", "v1", name, uid.clone());
    (uid, owner)
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Must: the deletion of a ReplicationController in the background deletes its Pods
#[tokio::test]
async fn garbage_collector_should_delete_pods_created_by_rc_when_not_orphaning() {
    let cluster = Cluster::new().await;
    let controllers: Api<ReplicationController> = cluster.namespaced("default");
    let (uid, owner) = replication_controller(&controllers, "rc").await;
    let pods = pods_of(&cluster, &owner, &NAMES).await;
    let background = only(DeleteParams::background(), uid);
    controllers.delete("rc", &background).await.unwrap();
    until_all(&pods, "gc=owned", |left| left.is_empty()).await;
    until(&controllers, "rc", |owner| owner.is_none()).await;
}

/// Must: a ReplicationController that is deleted in the foreground goes after its Pods: it is there
/// as long as one of them is
#[tokio::test]
async fn garbage_collector_should_keep_the_rc_around_until_all_its_pods_are_deleted_if_the_deleteoptions_says_so()
 {
    let cluster = Cluster::new().await;
    let controllers: Api<ReplicationController> = cluster.namespaced("default");
    let (uid, owner) = replication_controller(&controllers, "rc").await;
    let pods = pods_of(&cluster, &owner, &NAMES).await;
    let finalizers = |of: Value| Patch::Merge(json!({"metadata": {"finalizers": of}}));
    let held = finalizers(json!(["example.com/held"]));
    pods.patch("c", &PatchParams::default(), &held)
        .await
        .unwrap();

    let foreground = only(DeleteParams::foreground(), uid);
    controllers.delete("rc", &foreground).await.unwrap();
    until_all(&pods, "gc=owned", |left| left.len() == 1).await;
    let waiting = controllers.get("rc").await.unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);

    // The last of the Pods goes, and only then what owns it.
    let released = finalizers(Value::Null);
    pods.patch("c", &PatchParams::default(), &released)
        .await
        .unwrap();
    until(&controllers, "rc", |owner| owner.is_none()).await;
    until_all(&pods, "gc=owned", |left| left.is_empty()).await;
}

/// Must: the Pods of a ReplicationController that is deleted with orphans stay, without owner
#[tokio::test]
async fn garbage_collector_should_orphan_pods_created_by_rc_if_delete_options_say_so() {
    let cluster = Cluster::new().await;
    let controllers: Api<ReplicationController> = cluster.namespaced("default");
    let (uid, owner) = replication_controller(&controllers, "rc").await;
    let pods = pods_of(&cluster, &owner, &NAMES).await;
    let orphan = only(DeleteParams::orphan(), uid);
    controllers.delete("rc", &orphan).await.unwrap();
    until(&controllers, "rc", |owner| owner.is_none()).await;
    // Something else that is owned goes: the collector has had its turn.
    let gone = json!({"metadata": {
        "name": "dependent", "labels": {"gc": "turn"}, "ownerReferences": [owner],
    }, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    create(&pods, gone).await;
    until(&pods, "dependent", |pod| pod.is_none()).await;
    for pod in until_all(&pods, "gc=owned", |left| left.len() == NAMES.len()).await {
        assert!(pod.owner_references().is_empty());
        assert!(pod.metadata.deletion_timestamp.is_none());
    }
}

/// Must: when one of two owners waits for its dependents to be deleted, those of both stay and have
/// no deletion timestamp
/// Must: the first owner goes all the same, and its own dependents; those of both are then the
/// other's
#[tokio::test]
async fn garbage_collector_should_not_delete_dependents_that_have_both_valid_owner_and_owner_that_s_waiting_for_dependents_to_be_deleted()
 {
    let cluster = Cluster::new().await;
    let controllers: Api<ReplicationController> = cluster.namespaced("default");
    let (uid, owner) = replication_controller(&controllers, "deleted").await;
    let (_, mut stays) = replication_controller(&controllers, "stays").await;
    let pods = pods_of(&cluster, &owner, &NAMES).await;
    for field in ["controller", "blockOwnerDeletion"] {
        stays.as_object_mut().unwrap().remove(field);
    }
    let both = Patch::Strategic(json!({"metadata": {"ownerReferences": [stays]}}));
    for name in ["a", "b"] {
        pods.patch(name, &PatchParams::default(), &both)
            .await
            .unwrap();
    }
    let foreground = only(DeleteParams::foreground(), uid);
    controllers.delete("deleted", &foreground).await.unwrap();
    until(&controllers, "deleted", |owner| owner.is_none()).await;
    let left = until_all(&pods, "gc=owned", |left| left.len() == 2).await;
    for (pod, name) in left.iter().zip(["a", "b"]) {
        assert_eq!(pod.name_any(), name);
        assert!(pod.metadata.deletion_timestamp.is_none());
        let owners = pod.owner_references().iter();
        let names: Vec<&str> = owners.map(|owner| owner.name.as_str()).collect();
        assert_eq!(names, ["stays"]);
    }
}

/// Must: a Job whose Pods are as many as it wants at once is deleted, and its Pods are
#[tokio::test]
async fn job_should_delete_a_job() {
    let cluster = Cluster::new().await;
    let jobs: Api<Job> = cluster.namespaced("default");
    let containers = json!([{"name": "c", "image": "i"}]);
    let body = json!({"metadata": {"name": "foo"}, "spec": {
        "parallelism": 2, "completions": 4, "backoffLimit": 6,
        "template": {"spec": {"restartPolicy": "Never", "containers": containers}},
    }});
    let uid = create(&jobs, body).await.uid();
    let owner = controller("Job", "batch/v1", "foo", uid.clone());
    let pods = pods_of(&cluster, &owner, &["foo-a", "foo-b"]).await;
    let background = only(DeleteParams::background(), uid);
    jobs.delete("foo", &background).await.unwrap();
    until_all(&pods, "gc=owned", |left| left.is_empty()).await;
    let gone = jobs.get("foo").await.unwrap_err();
    assert!(matches!(gone, kube::Error::Api(status) if status.code == 404));
}
