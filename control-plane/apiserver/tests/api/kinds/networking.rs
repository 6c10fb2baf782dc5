//! Ingress, IngressClass, NetworkPolicy, ServiceCIDR, IPAddress.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::Api;

const GROUP_VERSION: &str = "/apis/networking.k8s.io/v1";

fn subject(
    plural: &'static str,
    namespaced: bool,
    body: Value,
    status: Option<Value>,
) -> Subject<'static> {
    Subject {
        group_version: GROUP_VERSION,
        plural,
        namespaced,
        body,
        status,
    }
}

fn ingress() -> Subject<'static> {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let spec = json!({"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]});
    subject(
        "ingresses",
        true,
        json!({"metadata": {"name": "web"}, "spec": spec}),
        Some(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}})),
    )
}

/// Must: discovery has the group networking.k8s.io
/// Must: the group has version v1
/// Must: the version has ingresses
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
/// Must: the status can be read, updated and patched
#[tokio::test]
async fn ingress_api_should_support_creating_ingress_api_operations() {
    let api = Api::new().await;
    lifecycle(&api, &ingress()).await;
}

/// Must: discovery has the group networking.k8s.io
/// Must: the group has version v1
/// Must: the version has ingressclasses
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
#[tokio::test]
async fn ingressclass_api_should_support_creating_ingressclass_api_operations() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "c"}, "spec": {"controller": "example.com/controller"}});
    lifecycle(&api, &subject("ingressclasses", false, body, None)).await;
}

#[tokio::test]
async fn an_ingress_without_a_class_is_of_the_default_one() {
    let api = Api::new().await;
    let classes = format!("{GROUP_VERSION}/ingressclasses");
    let unclassed = ingress().create(&api, "before").await;
    assert!(unclassed["spec"].get("ingressClassName").is_none());
    let class = json!({"metadata": {"name": "usual", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}, "spec": {"controller": "example.com/c"}});
    api.post(&classes, &class).await.ok(201);
    let created = ingress().create(&api, "after").await;
    assert_eq!(created["spec"]["ingressClassName"], "usual");
    let mut annotated = ingress().named("annotated");
    annotated["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "old"});
    let answer = api.post(&ingress().collection(), &annotated).await;
    assert!(answer.ok(201)["spec"].get("ingressClassName").is_none());
    assert!(
        answer.headers["warning"]
            .to_str()
            .unwrap()
            .contains("deprecated")
    );
}

#[tokio::test]
async fn network_policies() {
    let api = Api::new().await;
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 90}]}]});
    let body = json!({"metadata": {"name": "p"}, "spec": spec});
    lifecycle(&api, &subject("networkpolicies", true, body, None)).await;
}

/// Must: discovery has the group networking.k8s.io
/// Must: the group has version v1
/// Must: the version has servicecidrs
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
/// Must: the status can be read, updated and patched
#[tokio::test]
async fn servicecidr_and_ipaddress_api_should_support_servicecidr_api_operations() {
    let api = Api::new().await;
    let path = format!("{GROUP_VERSION}/servicecidrs/kubernetes");
    let default = api.get(&path).await.ok(200);
    assert_eq!(default["spec"]["cidrs"], json!(["10.43.0.0/16"]));
    assert_eq!(default["status"]["conditions"][0]["type"], "Ready");
    assert_eq!(default["status"]["conditions"][0]["status"], "True");
    assert_eq!(api.get(&format!("{path}/status")).await.ok(200), default);
    let condition = json!({"type": "Ready", "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let body = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["203.0.113.0/24"]}});
    let status = Some(json!({ "conditions": [condition] }));
    lifecycle(&api, &subject("servicecidrs", false, body, status)).await;
}

/// Must: discovery has the group networking.k8s.io
/// Must: the group has version v1
/// Must: the version has ipaddresses
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
#[tokio::test]
async fn servicecidr_and_ipaddress_api_should_support_ipaddress_api_operations() {
    let api = Api::new().await;
    let parent =
        json!({"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"});
    for name in ["255.255.255.255", "fe80::42:1dff:fe84:f9e2"] {
        let body = json!({"metadata": {"name": name}, "spec": {"parentRef": parent}});
        lifecycle(&api, &subject("ipaddresses", false, body, None)).await;
    }
    for (name, fault) in [
        ("a", "must be a valid IP address"),
        ("FE80::1", "must be in canonical form (\\\"fe80::1\\\")"),
    ] {
        let body = json!({"metadata": {"name": name}, "spec": {"parentRef": parent}});
        let answer = api
            .post(&format!("{GROUP_VERSION}/ipaddresses"), &body)
            .await;
        answer.fails(422, "Invalid");
        assert!(answer.text.contains(fault), "{}", answer.text);
    }
}
