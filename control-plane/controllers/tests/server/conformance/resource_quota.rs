//! Quotas that follow what there is.

use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, delete, until};

const QUOTA: &str = "test-quota";

/// A cluster, and quotas of a namespace of it that has nothing else.
pub(super) struct Quotas {
    pub(super) cluster: Cluster,
    pub(super) quotas: Api<ResourceQuota>,
}

impl Quotas {
    pub(super) async fn new() -> Self {
        let cluster = Cluster::new().await;
        cluster.namespace("quota").await;
        let quotas = cluster.namespaced("quota");
        Self { cluster, quotas }
    }

    /// Creates the quota that most tests have, and waits until it has been counted.
    async fn with_quota() -> Self {
        let quotas = Self::new().await;
        let hard = json!({
            "pods": "5", "services": "10", "services.nodeports": "1",
            "services.loadbalancers": "1", "replicationcontrollers": "10", "resourcequotas": "1",
            "cpu": "1", "memory": "500Mi", "configmaps": "10", "secrets": "10",
            "ephemeral-storage": "50Gi", "count/replicasets.apps": "5",
            "requests.example.com/dongle": "3",
        });
        let created = create(
            &quotas.quotas,
            json!({"metadata": {"name": QUOTA}, "spec": {"hard": hard}}),
        )
        .await;
        assert_eq!(
            serde_json::to_value(created.spec.unwrap().hard).unwrap(),
            hard
        );
        let mut used = hard.clone();
        for amount in used.as_object_mut().unwrap().values_mut() {
            *amount = json!("0");
        }
        used["resourcequotas"] = json!("1");
        let status = quotas.shows(QUOTA, used).await;
        assert_eq!(status["hard"], hard);
        quotas
    }

    /// Waits until a quota shows this use, whatever else it shows; gives its status.
    pub(super) async fn shows(&self, name: &str, want: Value) -> Value {
        let quota = until(&self.quotas, name, |quota| {
            let used = quota.and_then(|quota| quota.status.as_ref()?.used.clone());
            let used = serde_json::to_value(used).unwrap();
            let mut pairs = want.as_object().unwrap().iter();
            pairs.all(|(name, amount)| used.get(name) == Some(amount))
        })
        .await;
        serde_json::to_value(quota.unwrap().status).unwrap()
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        self.cluster.namespaced("quota")
    }

    fn objects(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client.clone(), "quota", &resource)
    }

    /// Creates an object of a kind and deletes it, and sees it counted while it is there.
    async fn captures(objects: (&str, &str, &str), counted: &str, body: Value) {
        let quotas = Self::with_quota().await;
        let (group, version, kind) = objects;
        let api = quotas.objects(group, version, kind);
        let mut object = body;
        object["metadata"] = json!({"name": "one"});
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
        quotas
            .shows(QUOTA, json!({counted: "1", "resourcequotas": "1"}))
            .await;
        api.delete("one", &Default::default()).await.unwrap();
        quotas
            .shows(QUOTA, json!({counted: "0", "resourcequotas": "1"}))
            .await;
    }
}

/// A Pod with one container of these resources.
pub(super) fn pod(name: &str, requests: Value, limits: Value) -> Value {
    let resources = json!({"requests": requests, "limits": limits});
    let container = json!({"name": "pause", "image": "i", "resources": resources});
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}

/// Must: a quota can be created
/// Must: its status soon says what is used, itself among it, and what may be
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_ensure_its_status_is_promptly_calculated()
{
    Quotas::with_quota().await;
}

/// Must: a quota can be created
/// Must: its status says what is used and what may be
/// Must: a ConfigMap can be created
/// Must: the quota counts it
/// Must: the ConfigMap can be deleted
/// Must: the quota counts it no longer
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_capture_the_life_of_a_configmap() {
    Quotas::captures(
        ("", "v1", "ConfigMap"),
        "configmaps",
        json!({"data": {"a": "b"}}),
    )
    .await;
}

/// Must: a quota can be created
/// Must: its status says what is used and what may be
/// Must: a Secret can be created
/// Must: the quota counts it
/// Must: the Secret can be deleted
/// Must: the quota counts it no longer
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_capture_the_life_of_a_secret() {
    Quotas::captures(
        ("", "v1", "Secret"),
        "secrets",
        json!({"data": {"a": "MQ=="}}),
    )
    .await;
}

fn workload(selector: Value) -> Value {
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let template = json!({"metadata": {"labels": {"name": "test"}}, "spec": spec});
    json!({"spec": {"replicas": 0, "selector": selector, "template": template}})
}

/// Must: a quota can be created
/// Must: its status says what is used and what may be
/// Must: a ReplicationController can be created
/// Must: the quota counts it
/// Must: the ReplicationController can be deleted
/// Must: the quota counts it no longer
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_capture_the_life_of_a_replication_controller()
 {
    let body = workload(json!({"name": "test"}));
    let kind = ("", "v1", "ReplicationController");
    Quotas::captures(kind, "replicationcontrollers", body).await;
}

/// Must: a quota can be created
/// Must: its status says what is used and what may be
/// Must: a ReplicaSet can be created
/// Must: the quota counts it
/// Must: the ReplicaSet can be deleted
/// Must: the quota counts it no longer
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_capture_the_life_of_a_replica_set() {
    let body = workload(json!({"matchLabels": {"name": "test"}}));
    let kind = ("apps", "v1", "ReplicaSet");
    Quotas::captures(kind, "count/replicasets.apps", body).await;
}

/// Must: a quota can be created
/// Must: its status says what is used and what may be
/// Must: Services can be created, but none with more node ports than may be
/// Must: the quota counts them and their node ports
/// Must: the Services can be deleted
/// Must: the quota counts them no longer
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_capture_the_life_of_a_service() {
    let quotas = Quotas::with_quota().await;
    let services = quotas.objects("", "v1", "Service");
    let service = |name: &str, kind: &str| -> DynamicObject {
        let spec = json!({"type": kind, "ports": [{"port": 80, "targetPort": 80}]});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    let options = PostParams::default();
    for (name, kind) in [("plain", "ClusterIP"), ("node", "NodePort")] {
        services
            .create(&options, &service(name, kind))
            .await
            .unwrap();
    }
    let balanced = services
        .create(&options, &service("balanced", "LoadBalancer"))
        .await;
    let refused = balanced.unwrap_err().to_string();
    assert!(refused.contains("exceeded quota"), "{refused}");
    quotas
        .shows(
            QUOTA,
            json!({"resourcequotas": "1", "services": "2", "services.nodeports": "1"}),
        )
        .await;
    for name in ["plain", "node"] {
        services.delete(name, &Default::default()).await.unwrap();
    }
    quotas
        .shows(
            QUOTA,
            json!({"resourcequotas": "1", "services": "0", "services.nodeports": "0"}),
        )
        .await;
}

/// Must: a quota can be created
/// Must: its status says what is used and what may be
/// Must: a Pod that fits can be created
/// Must: the quota counts what it requests of each resource
/// Must: a Pod that asks for more than is left, also of an extended resource, is refused
/// Must: the Pod's requests cannot be changed, and what is counted stays
/// Must: the Pod can be deleted
/// Must: the quota counts it and its requests no longer
#[tokio::test]
async fn resourcequota_should_create_a_resourcequota_and_capture_the_life_of_a_pod() {
    let quotas = Quotas::with_quota().await;
    let pods = quotas.pods();
    let requests = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    let limits = json!({"example.com/dongle": "2"});
    let mut fits = create(&pods, pod("test-pod", requests, limits.clone())).await;
    let used = json!({
        "resourcequotas": "1", "pods": "1", "cpu": "500m", "memory": "252Mi",
        "ephemeral-storage": "30Gi", "requests.example.com/dongle": "2",
    });
    quotas.shows(QUOTA, used.clone()).await;

    let too_much = [
        (json!({"cpu": "600m", "memory": "100Mi"}), json!({})),
        (
            json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"}),
            limits,
        ),
    ];
    for (requests, limits) in too_much {
        let body = serde_json::from_value(pod("fail-pod", requests, limits)).unwrap();
        let answer = pods.create(&PostParams::default(), &body).await;
        let refused = answer.unwrap_err();
        assert!(
            matches!(&refused, kube::Error::Api(status) if status.code == 403),
            "{refused}"
        );
    }
    let less = json!({"requests": {"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "10Gi"}});
    let container = &mut fits.spec.as_mut().unwrap().containers[0];
    container.resources = serde_json::from_value(less).unwrap();
    let answer = pods
        .replace("test-pod", &PostParams::default(), &fits)
        .await;
    let refused = answer.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422),
        "{refused}"
    );
    quotas.shows(QUOTA, used).await;

    delete(&pods, "test-pod").await;
    let none = json!({
        "resourcequotas": "1", "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0",
        "requests.example.com/dongle": "0",
    });
    quotas.shows(QUOTA, none).await;
}
