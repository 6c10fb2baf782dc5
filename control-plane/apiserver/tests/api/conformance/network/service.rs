//! Services as objects. What is behind them is tested with controllers and nodes.

use serde_json::{Value, json};

use crate::harness::Api;

const SERVICES: &str = "/api/v1/namespaces/test/services";

/// A server with a namespace that has no Services.
async fn server() -> Api {
    let api = Api::new().await;
    let namespace = json!({"metadata": {"name": "test"}});
    api.post("/api/v1/namespaces", &namespace).await.ok(201);
    api
}

async fn count(api: &Api) -> usize {
    let list = api.get(SERVICES).await.ok(200);
    list["items"].as_array().unwrap().len()
}

/// Must: the Services of all namespaces include `kubernetes` of the default one
#[tokio::test]
async fn services_should_find_a_service_from_listing_all_namespaces() {
    let list = server().await.get("/api/v1/services").await.ok(200);
    let is_kubernetes = |service: &Value| {
        service["metadata"]["name"] == "kubernetes" && service["metadata"]["namespace"] == "default"
    };
    assert!(list["items"].as_array().unwrap().iter().any(is_kubernetes));
}

/// Must: three Services are in the namespace that they were created in
/// Must: those with a label can be deleted together
/// Must: only the one without it remains
#[tokio::test]
async fn services_should_delete_a_collection_of_services() {
    let api = server().await;
    for (name, label, port) in [
        ("a", "delete", 8001),
        ("b", "delete", 8002),
        ("c", "keep", 8003),
    ] {
        let ports = json!([{"name": "http", "port": port, "targetPort": port}]);
        let body = json!({"metadata": {"name": name, "labels": {"test": label}}, "spec": {"ports": ports}});
        api.post(SERVICES, &body).await.ok(201);
    }
    assert_eq!(count(&api).await, 3);
    let selected = format!("{SERVICES}?labelSelector=test%3Ddelete");
    api.delete(&selected).await.ok(200);
    assert_eq!(count(&api).await, 1);
    api.get(&format!("{SERVICES}/c")).await.ok(200);
}

/// Must: a Service that was created is there
/// Must: its status can be read
/// Must: its status can be patched, which a watch tells
/// Must: its status can be updated, which a watch tells
/// Must: the Service can be patched, which a watch tells, as its deletion
#[tokio::test]
async fn services_should_complete_a_service_status_lifecycle() {
    let api = server().await;
    let selected = format!("{SERVICES}?watch=true&labelSelector=static%3Dtrue");
    let mut watch = api.watch(&selected).await;
    let body = json!({
        "metadata": {"name": "s", "labels": {"static": "true"}},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip",
            "ports": [{"name": "http", "port": 80, "targetPort": 80}],
        },
    });
    let created = api.post(SERVICES, &body).await.ok(201);
    watch.expect("ADDED", &created).await;

    let path = format!("{SERVICES}/s");
    let of_status = format!("{path}/status");
    let read = api.get(&of_status).await.ok(200);
    assert_eq!(
        (&read["kind"], &read["status"]),
        (&json!("Service"), &json!({"loadBalancer": {}}))
    );

    let balancer = json!({"ingress": [{"ip": "203.0.113.1"}]});
    let patch = json!({
        "metadata": {"annotations": {"patched": "true"}},
        "status": {"loadBalancer": balancer},
    });
    let patched = api.patch(&of_status, "merge", &patch).await.ok(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    assert_eq!(
        patched["status"]["loadBalancer"]["ingress"][0]["ip"],
        "203.0.113.1"
    );
    watch.expect("MODIFIED", &patched).await;

    let mut update = api.get(&path).await.ok(200);
    update["status"]["conditions"] = json!([{
        "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set by a test",
        "lastTransitionTime": null,
    }]);
    let updated = api.put(&of_status, &update).await.ok(200);
    assert_eq!(
        updated["status"]["conditions"][0]["message"],
        "Set by a test"
    );
    watch.expect("MODIFIED", &updated).await;

    let patch = json!({"metadata": {"labels": {"service": "patched"}}});
    let patched = api.patch(&path, "strategic-merge", &patch).await.ok(200);
    assert_eq!(patched["metadata"]["labels"]["service"], "patched");
    watch.expect("MODIFIED", &patched).await;
    api.delete(&path).await.ok(200);
    assert_eq!(watch.line().await, "DELETED s");
}
