//! StorageVersionMigration.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::Api;

fn migration() -> Subject<'static> {
    let resource = json!({"group": "apps", "resource": "deployments"});
    Subject {
        group_version: "/apis/storagemigration.k8s.io/v1",
        plural: "storageversionmigrations",
        namespaced: false,
        body: json!({"metadata": {"name": "m"}, "spec": {"resource": resource}}),
        status: Some(json!({"conditions": [condition("Running")]})),
    }
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[tokio::test]
async fn migrations_have_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &migration()).await;
}

#[tokio::test]
async fn migrations_stay_what_they_are_and_what_they_have_become() {
    let api = Api::new().await;
    let created = migration().create(&api, "m").await;
    assert_eq!(created["status"], json!({}));
    assert!(created["metadata"].get("generation").is_none());
    let path = format!("{}/m", migration().collection());
    let other = json!({"spec": {"resource": {"resource": "statefulsets"}}});
    let refused = api.patch(&path, "merge", &other).await;
    refused.fails(422, "Invalid");
    assert!(refused.text.contains("field is immutable"));
    let mut unconditional = created;
    unconditional["metadata"]["resourceVersion"] = json!("");
    api.put(&path, &unconditional).await.fails(422, "Invalid");

    let of_status = format!("{path}/status");
    let done = json!({"status": {"resourceVersion": "7", "conditions": [condition("Succeeded")]}});
    api.patch(&of_status, "merge", &done).await.ok(200);
    for undone in [
        json!({"status": {"conditions": []}}),
        json!({"status": {"resourceVersion": "8"}}),
    ] {
        let refused = api.patch(&of_status, "merge", &undone).await;
        refused.fails(422, "Invalid");
    }
}
