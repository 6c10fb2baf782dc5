//! Claims of devices, their classes, and what drivers offer, as the API keeps them.

use serde_json::{Value, json};

use super::{SELECTOR, Subject, TABLE, lifecycle};
use crate::harness::Api;

const GROUP_VERSION: &str = "/apis/resource.k8s.io/v1";
const LABELLED: &str = r#"{"metadata": {"labels": {"test.dra.example.com": "test"}}}"#;

fn subject(plural: &'static str, namespaced: bool, spec: Value) -> Subject<'static> {
    Subject {
        group_version: GROUP_VERSION,
        plural,
        namespaced,
        body: json!({"metadata": {"name": "test"}, "spec": spec}),
        status: None,
    }
}

fn claim_spec() -> Value {
    let requests = json!([{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]);
    json!({"devices": {"requests": requests}})
}

/// Create, read, update, patch, list and delete, and what an informer sees of it.
async fn assert_crud(api: &Api, subject: &Subject<'_>, change: &Value, field: &str) {
    let collection = subject.collection();
    let path = format!("{collection}/test");
    let served = api.get(GROUP_VERSION).await.ok(200);
    let served = served["resources"].as_array().unwrap().clone();
    assert!(served.iter().any(|known| known["name"] == subject.plural));
    let mut watch = api
        .watch(&format!("{collection}?watch=true&{SELECTOR}"))
        .await;
    let created = subject.create(api, "test").await;
    assert_eq!(watch.line().await, "ADDED test");
    assert_eq!(api.get(&path).await.ok(200), created);
    let changed = |object: &Value| object.pointer(field).cloned();
    let wanted = changed(change);
    let patched = api.patch(&path, "strategic-merge", change).await.ok(200);
    assert_eq!(changed(&patched), wanted);
    assert_eq!(watch.event().await.unwrap()["object"], patched);
    let list = api.get(&format!("{collection}?{SELECTOR}")).await.ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    api.delete(&path).await.ok(200);
    assert_eq!(watch.line().await, "DELETED test");

    let mut object = subject.create(api, "test").await;
    merge(&mut object, change);
    let updated = api.put(&path, &object).await.ok(200);
    assert_eq!(changed(&updated), wanted);
    api.delete(&path).await.ok(200);
    lifecycle(api, subject).await;
}

fn merge(object: &mut Value, change: &Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (name, value) in change {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        (object, change) => *object = change.clone(),
    }
}

/// Must: device classes are created, read, updated, listed, patched and deleted.
#[tokio::test]
async fn crud_tests_resource_k8s_io_v1_deviceclass() {
    let api = Api::new().await;
    let spec = json!({"selectors": [{"cel": {"expression": "false"}}]});
    let subject = subject("deviceclasses", false, spec);
    let change = json!({"spec": {"selectors": [{"cel": {"expression": "1 == 0"}}]}});
    let field = "/spec/selectors/0/cel/expression";
    assert_crud(&api, &subject, &change, field).await;
}

/// Must: claims are created, read, updated, listed, patched and deleted, and so is their status,
/// with every sort of patch.
#[tokio::test]
async fn crud_tests_resource_k8s_io_v1_resourceclaim() {
    let api = Api::new().await;
    let subject = Subject {
        status: Some(json!({"allocation": {}})),
        ..subject("resourceclaims", true, claim_spec())
    };
    let change: Value = serde_json::from_str(LABELLED).unwrap();
    let field = "/metadata/labels/test.dra.example.com";
    assert_crud(&api, &subject, &change, field).await;

    let path = format!("{}/test", subject.collection());
    let of_status = format!("{path}/status");
    let status = json!({"status": {"allocation": {}}});
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let named = |body: &Value| {
        let mut body = body.clone();
        body["apiVersion"] = json!("resource.k8s.io/v1");
        body["kind"] = json!("ResourceClaim");
        body
    };
    let label = add("/metadata/labels/test.dra.example.com", json!("test"));
    for (sort, of_main, of_its_status) in [
        ("strategic-merge", change.clone(), status.clone()),
        ("merge", change.clone(), status.clone()),
        ("json", label, add("/status/allocation", json!({}))),
        ("apply", named(&change), named(&status)),
    ] {
        subject.create(&api, "test").await;
        let (main, part) = match sort {
            "apply" => ("?fieldManager=test", "?fieldManager=test"),
            _ => ("", ""),
        };
        let send = |path: String, body: Value| {
            let api = api.clone();
            async move {
                if sort == "apply" {
                    let media_type = "application/apply-patch+yaml";
                    let body = body.to_string();
                    api.raw(http::Method::PATCH, &path, media_type, body).await
                } else {
                    api.patch(&path, sort, &body).await
                }
            }
        };
        let patched = send(format!("{path}{main}"), of_main).await.ok(200);
        assert_eq!(patched.pointer(field), Some(&json!("test")), "{sort}");
        let patched = send(format!("{of_status}{part}"), of_its_status)
            .await
            .ok(200);
        assert_eq!(patched["status"]["allocation"], json!({}), "{sort}");
        let read = api.get(&of_status).await.ok(200);
        assert_eq!(read, patched);
        let row = api.get_as(&path, TABLE).await.ok(200);
        assert_eq!(row["rows"][0]["cells"][1], "allocated");
        api.delete(&path).await.ok(200);
    }
}

/// Must: templates of claims are created, read, updated, listed, patched and deleted.
#[tokio::test]
async fn crud_tests_resource_k8s_io_v1_resourceclaimtemplate() {
    let api = Api::new().await;
    let subject = subject(
        "resourceclaimtemplates",
        true,
        json!({"spec": claim_spec()}),
    );
    let change: Value = serde_json::from_str(LABELLED).unwrap();
    let field = "/metadata/labels/test.dra.example.com";
    assert_crud(&api, &subject, &change, field).await;
}

/// Must: slices are created, read, updated, listed, patched and deleted.
#[tokio::test]
async fn crud_tests_resource_k8s_io_v1_resourceslice() {
    let api = Api::new().await;
    let pool = json!({"name": "cluster", "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "dra.example.com", "pool": pool, "nodeName": "no-such-node"});
    let subject = subject("resourceslices", false, spec);
    let change = json!({"spec": {"devices": [{"name": "device-0"}]}});
    assert_crud(&api, &subject, &change, "/spec/devices/0/name").await;
    subject.create(&api, "test").await;
    let collection = subject.collection();
    for (selector, found) in [
        ("spec.nodeName%3Dno-such-node", 1),
        ("spec.driver%3Ddra.example.com", 1),
        ("spec.driver%3Dother", 0),
    ] {
        let list = api
            .get(&format!("{collection}?fieldSelector={selector}"))
            .await
            .ok(200);
        assert_eq!(list["items"].as_array().unwrap().len(), found, "{selector}");
    }
    let unknown = format!("{collection}?fieldSelector=spec.allNodes%3Dtrue");
    api.get(&unknown).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn taint_rules_say_since_when() {
    let api = Api::new().await;
    let condition = json!({"type": "EvictionInProgress", "status": "False", "reason": "Test", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let taint = json!({"key": "dra.example.com/broken", "effect": "NoSchedule"});
    let subject = Subject {
        status: Some(json!({ "conditions": [condition] })),
        ..subject("devicetaintrules", false, json!({ "taint": taint }))
    };
    lifecycle(&api, &subject).await;
    let mut rule = subject.create(&api, "test").await;
    let path = format!("{}/test", subject.collection());
    assert!(rule["spec"]["taint"]["timeAdded"].is_string());
    rule["spec"]["taint"]["timeAdded"] = json!("2026-01-01T00:00:00Z");
    let mut rule = api.put(&path, &rule).await.ok(200);
    assert_eq!(rule["spec"]["taint"]["timeAdded"], "2026-01-01T00:00:00Z");
    rule["spec"]["taint"]["effect"] = json!("NoExecute");
    let mut rule = api.put(&path, &rule).await.ok(200);
    assert_ne!(rule["spec"]["taint"]["timeAdded"], "2026-01-01T00:00:00Z");
    rule["metadata"]["resourceVersion"] = Value::Null;
    rule["spec"]["taint"]["value"] = json!("v");
    let message = api.put(&path, &rule).await.fails(422, "Invalid");
    assert!(message.contains("metadata.resourceVersion"), "{message}");
}

#[tokio::test]
async fn administrators_get_devices_in_marked_namespaces() {
    let api = Api::new().await;
    let exactly = json!({"deviceClassName": "dra.example.com", "adminAccess": true});
    let spec = json!({"devices": {"requests": [{"name": "req-0", "exactly": exactly}]}});
    let claims = subject("resourceclaims", true, spec.clone());
    let templates = subject("resourceclaimtemplates", true, json!({ "spec": spec }));
    for subject in [&claims, &templates] {
        let refused = api
            .post(&subject.collection(), &subject.named("test"))
            .await;
        let message = refused.fails(422, "Invalid");
        let want = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
        assert!(message.contains(want), "{message}");
        assert!(
            message.contains("devices.requests[0].adminAccess: Forbidden"),
            "{message}"
        );
    }
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    api.patch("/api/v1/namespaces/default", "merge", &label)
        .await
        .ok(200);
    for subject in [&claims, &templates] {
        subject.create(&api, "test").await;
    }
}
