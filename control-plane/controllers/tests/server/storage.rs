use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, delete, set_status, until};

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}})
}

fn pod(claim: &str) -> Value {
    json!({"metadata": {"name": "user"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}})
}

async fn is_held<K>(api: &Api<K>, name: &str)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let held = api.get(name).await.unwrap();
    assert!(held.meta().deletion_timestamp.is_some(), "{held:?}");
}

#[tokio::test]
async fn a_claim_goes_once_no_pod_needs_it() {
    let cluster = Cluster::new().await;
    let claims: Api<PersistentVolumeClaim> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    create(&claims, claim("unused")).await;
    delete(&claims, "unused").await;
    until(&claims, "unused", |claim| claim.is_none()).await;

    create(&claims, claim("deleted")).await;
    create(&pods, pod("deleted")).await;
    delete(&claims, "deleted").await;
    // Another claim's end shows that the controller had its turn.
    create(&claims, claim("later")).await;
    delete(&claims, "later").await;
    until(&claims, "later", |claim| claim.is_none()).await;
    is_held(&claims, "deleted").await;
    delete(&pods, "user").await;
    until(&claims, "deleted", |claim| claim.is_none()).await;

    create(&claims, claim("ended")).await;
    create(&pods, pod("ended")).await;
    delete(&claims, "ended").await;
    is_held(&claims, "ended").await;
    set_status(&pods, "user", json!({"phase": "Succeeded"})).await;
    until(&claims, "ended", |claim| claim.is_none()).await;
}

#[tokio::test]
async fn what_lacks_protection_gets_it() {
    let cluster = Cluster::new().await;
    let claims: Api<PersistentVolumeClaim> = cluster.namespaced("default");
    create(&claims, claim("bare")).await;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null, "labels": {"bare": "yes"}}}));
    let bare = claims.patch("bare", &PatchParams::default(), &none).await;
    assert!(bare.unwrap().finalizers().is_empty());
    until(&claims, "bare", |claim| {
        claim.is_some_and(|claim| claim.finalizers() == ["kubernetes.io/pvc-protection"])
    })
    .await;
}

#[tokio::test]
async fn volumes_and_classes_go_once_nobody_names_them() {
    let cluster = Cluster::new().await;
    let volumes: Api<PersistentVolume> = cluster.all();
    let classes: Api<VolumeAttributesClass> = cluster.all();
    let claims: Api<PersistentVolumeClaim> = cluster.namespaced("default");
    create(
        &classes,
        json!({"metadata": {"name": "gold"}, "driverName": "a.b", "parameters": {"iops": "1"}}),
    )
    .await;
    create(&claims, claim("bound")).await;
    create(&volumes, json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "volumeAttributesClassName": "gold", "csi": {"driver": "a.b", "volumeHandle": "h"},
        "claimRef": {"namespace": "default", "name": "bound"}}})).await;
    set_status(&volumes, "v", json!({"phase": "Bound"})).await;
    delete(&classes, "gold").await;
    delete(&volumes, "v").await;
    create(
        &volumes,
        json!({"metadata": {"name": "later"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "a.b", "volumeHandle": "i"}}}),
    )
    .await;
    delete(&volumes, "later").await;
    until(&volumes, "later", |volume| volume.is_none()).await;
    is_held(&volumes, "v").await;
    is_held(&classes, "gold").await;

    delete(&claims, "bound").await;
    until(&volumes, "v", |volume| volume.is_none()).await;
    until(&classes, "gold", |class| class.is_none()).await;
}

#[tokio::test]
async fn a_namespace_with_a_claim_in_use_empties() {
    let cluster = Cluster::new().await;
    let namespaces: Api<Namespace> = cluster.all();
    create(&namespaces, json!({"metadata": {"name": "full"}})).await;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = cluster.namespaced("full");
    until(&accounts, "default", |account| account.is_some()).await;
    let claims: Api<PersistentVolumeClaim> = cluster.namespaced("full");
    create(&claims, claim("data")).await;
    create(&cluster.namespaced::<Pod>("full"), pod("data")).await;
    delete(&namespaces, "full").await;
    until(&namespaces, "full", |namespace| namespace.is_none()).await;
}
