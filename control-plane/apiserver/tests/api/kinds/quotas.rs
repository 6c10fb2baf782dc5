//! ResourceQuota, and the charges of admission. The status that its controller would write is
//! written by the tests.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::apply::{config_map, fields};
use crate::harness::{Api, CONFIG_MAPS, PODS, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

fn subject() -> Subject<'static> {
    let hard = json!({"cpu": "500m", "memory": "200Mi"});
    Subject {
        group_version: "/api/v1",
        plural: "resourcequotas",
        namespaced: true,
        body: json!({"metadata": {"name": "quota"}, "spec": {"hard": hard}}),
        status: Some(json!({"hard": hard, "used": {"cpu": "0", "memory": "0"}})),
    }
}

/// Makes a quota that has been counted: nothing is used.
async fn quota(api: &Api, name: &str, hard: Value, more: Value) {
    let mut body = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
    for (field, value) in more.as_object().unwrap() {
        body["spec"][field] = value.clone();
    }
    api.post(QUOTAS, &body).await.ok(201);
    let used: serde_json::Map<String, Value> = hard
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (name.clone(), json!("0")))
        .collect();
    let status = json!({"status": {"hard": hard, "used": used}});
    api.patch(&format!("{QUOTAS}/{name}/status"), "merge", &status)
        .await
        .ok(200);
}

async fn used(api: &Api, name: &str) -> Value {
    let quota = api.get(&format!("{QUOTAS}/{name}")).await.ok(200);
    quota["status"]["used"].clone()
}

fn with_requests(name: &str, requests: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({ "requests": requests });
    pod
}

#[tokio::test]
async fn resource_quotas() {
    lifecycle(&Api::new().await, &subject()).await;
}

#[tokio::test]
async fn pods_are_charged_with_their_requests() {
    let api = Api::new().await;
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi", "requests.example.com/gpu": "3"});
    quota(&api, "quota", hard, json!({})).await;
    let requests = json!({"cpu": "500m", "memory": "252Mi"});
    api.post(PODS, &with_requests("a", requests)).await.ok(201);
    assert_eq!(
        used(&api, "quota").await,
        json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "requests.example.com/gpu": "0"})
    );
    let too_much = json!({"cpu": "600m", "memory": "100Mi"});
    let message = api
        .post(PODS, &with_requests("b", too_much))
        .await
        .fails(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"b\" is forbidden: exceeded quota: quota, requested: cpu=600m, used: cpu=500m, limited: cpu=1"
    );
    let mut gpu = with_requests(
        "gpu",
        json!({"cpu": "100m", "memory": "1Mi", "example.com/gpu": "4"}),
    );
    gpu["spec"]["containers"][0]["resources"]["limits"] = json!({"example.com/gpu": "4"});
    let message = api.post(PODS, &gpu).await.fails(403, "Forbidden");
    assert!(
        message.contains("requested: requests.example.com/gpu=4, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=3"),
        "{message}"
    );
    let message = api.post(PODS, &pod("c")).await.fails(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"c\" is forbidden: failed quota: quota: must specify cpu for: c; memory for: c"
    );
    // What was refused is not charged, and an update of a Pod is no new one.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    api.patch(&format!("{PODS}/a"), "merge", &label)
        .await
        .ok(200);
    assert_eq!(used(&api, "quota").await["cpu"], "500m");
}

#[tokio::test]
async fn objects_are_charged_by_count() {
    let api = Api::new().await;
    let namespace = "/api/v1/namespaces/default";
    let template = super::template();
    let set = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    let table = [
        (
            "configmaps",
            CONFIG_MAPS.to_owned(),
            json!({}),
            "configmaps",
        ),
        (
            "secrets",
            format!("{namespace}/secrets"),
            json!({}),
            "secrets",
        ),
        (
            "replicationcontrollers",
            format!("{namespace}/replicationcontrollers"),
            json!({"spec": {"template": template}}),
            "replicationcontrollers",
        ),
        (
            "count/replicasets.apps",
            "/apis/apps/v1/namespaces/default/replicasets".to_owned(),
            json!({ "spec": set }),
            "replicasets.apps",
        ),
    ];
    for (resource, path, mut body, shown) in table {
        let name = resource.replace('/', "-");
        quota(&api, &name, json!({resource: "1"}), json!({})).await;
        body["metadata"] = json!({"name": "one"});
        api.post(&path, &body).await.ok(201);
        assert_eq!(used(&api, &name).await, json!({resource: "1"}));
        body["metadata"]["name"] = json!("two");
        let message = api.post(&path, &body).await.fails(403, "Forbidden");
        assert_eq!(
            message,
            format!(
                "{shown} \"two\" is forbidden: exceeded quota: {name}, requested: {resource}=1, used: {resource}=1, limited: {resource}=1"
            )
        );
    }
}

#[tokio::test]
async fn services_are_charged_with_their_node_ports() {
    let api = Api::new().await;
    let services = "/api/v1/namespaces/default/services";
    let hard = json!({"services": "3", "services.nodeports": "1", "services.loadbalancers": "1"});
    quota(&api, "quota", hard, json!({})).await;
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    api.post(services, &service("plain", "ClusterIP"))
        .await
        .ok(201);
    api.post(services, &service("node", "NodePort"))
        .await
        .ok(201);
    assert_eq!(
        used(&api, "quota").await,
        json!({"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"})
    );
    let message = api
        .post(services, &service("balanced", "LoadBalancer"))
        .await
        .fails(403, "Forbidden");
    assert!(
        message.contains("exceeded quota: quota, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"),
        "{message}"
    );
    // An update is charged with what it adds.
    let message = api
        .patch(
            &format!("{services}/plain"),
            "merge",
            &json!({"spec": {"type": "NodePort"}}),
        )
        .await
        .fails(403, "Forbidden");
    assert!(message.contains("services.nodeports=1"), "{message}");
}

#[tokio::test]
async fn scopes_choose_the_pods_that_are_charged() {
    let api = Api::new().await;
    let one = || json!({"pods": "5"});
    for scope in [
        "BestEffort",
        "NotBestEffort",
        "Terminating",
        "NotTerminating",
    ] {
        let name = scope.to_lowercase();
        quota(&api, &name, one(), json!({ "scopes": [scope] })).await;
    }
    api.post(PODS, &pod("best-effort")).await.ok(201);
    let mut ends = with_requests("ends", json!({"cpu": "1"}));
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    api.post(PODS, &ends).await.ok(201);
    for scope in [
        "besteffort",
        "notbesteffort",
        "terminating",
        "notterminating",
    ] {
        assert_eq!(used(&api, scope).await, json!({"pods": "1"}), "{scope}");
    }
    let again = json!({"spec": {"scopes": ["Terminating"]}});
    api.patch(&format!("{QUOTAS}/besteffort"), "merge", &again)
        .await
        .fails(422, "Invalid");
}

#[tokio::test]
async fn a_quota_is_never_exceeded_by_creations_at_the_same_time() {
    let api = Api::new().await;
    quota(&api, "quota", json!({"configmaps": "5"}), json!({})).await;
    let creations = (0..20).map(|i| {
        let api = api.clone();
        async move {
            let body = json!({"metadata": {"name": format!("m{i}")}});
            api.post(CONFIG_MAPS, &body).await.code
        }
    });
    let codes = futures::future::join_all(creations).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5);
    assert_eq!(used(&api, "quota").await, json!({"configmaps": "5"}));
}

#[tokio::test]
async fn the_server_manages_what_it_charges() {
    let api = Api::new().await;
    let hard = json!({"configmaps": "5"});
    quota(&api, "quota", hard, json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let config = config_map(json!({"a": "1"}));
    api.apply(&path, "fieldManager=x", &config).await.ok(201);
    let charged = api.get(&format!("{QUOTAS}/quota")).await.ok(200);
    assert_eq!(charged["status"]["used"], json!({"configmaps": "1"}));
    assert_eq!(
        fields(&charged, "kube-apiserver/Update/status"),
        json!({"f:status": {"f:used": {"f:configmaps": {}}}})
    );
}

#[tokio::test]
async fn a_quota_that_is_not_counted_yet_refuses_and_a_dry_run_is_free() {
    let api = Api::new().await;
    let hard = json!({"configmaps": "5"});
    quota(&api, "quota", hard, json!({})).await;
    let body = json!({"metadata": {"name": "m"}});
    api.post(&format!("{CONFIG_MAPS}?dryRun=All"), &body)
        .await
        .ok(201);
    assert_eq!(used(&api, "quota").await, json!({"configmaps": "0"}));
    let unknown = json!({"status": {"used": null}});
    api.patch(&format!("{QUOTAS}/quota/status"), "merge", &unknown)
        .await
        .ok(200);
    let message = api.post(CONFIG_MAPS, &body).await.fails(403, "Forbidden");
    assert_eq!(
        message,
        "configmaps \"m\" is forbidden: status unknown for quota: quota, resources: configmaps"
    );
}
