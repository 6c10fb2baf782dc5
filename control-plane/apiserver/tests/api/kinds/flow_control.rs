//! FlowSchema and PriorityLevelConfiguration.

use serde_json::{Value, json};

use super::{Subject, TABLE, lifecycle};
use crate::harness::Api;

const GROUP_VERSION: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn subject(plural: &'static str, spec: Value) -> Subject<'static> {
    let condition = json!({"type": "TestCondition", "status": "True", "reason": "E2E", "message": "Set by a test"});
    Subject {
        group_version: GROUP_VERSION,
        plural,
        namespaced: false,
        body: json!({"metadata": {"name": "test"}, "spec": spec}),
        status: Some(json!({ "conditions": [condition] })),
    }
}

/// Must: discovery has the group flowcontrol.apiserver.k8s.io
/// Must: the group has version v1
/// Must: the version has flowschemas and flowschemas/status
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
/// Must: the status can be read, updated and patched
#[tokio::test]
async fn api_priority_and_fairness_should_support_flowschema_api_operations() {
    let api = Api::new().await;
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz"]}],
    });
    let spec = json!({
        "matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"}, "rules": [rule],
    });
    lifecycle(&api, &subject("flowschemas", spec)).await;
}

/// Must: discovery has the group flowcontrol.apiserver.k8s.io
/// Must: the group has version v1
/// Must: the version has prioritylevelconfigurations and their status
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
/// Must: the status can be read, updated and patched
#[tokio::test]
async fn api_priority_and_fairness_should_support_prioritylevelconfiguration_api_operations() {
    let api = Api::new().await;
    let limited = json!({"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}});
    let spec = json!({"type": "Limited", "limited": limited});
    lifecycle(&api, &subject("prioritylevelconfigurations", spec)).await;
}

#[tokio::test]
async fn mandatory_objects_are_made_at_start() {
    let api = Api::new().await;
    let rows = |table: Value| -> Vec<Value> {
        let rows = table["rows"].as_array().unwrap().clone();
        rows.into_iter().map(|row| row["cells"].clone()).collect()
    };
    let schemas = format!("{GROUP_VERSION}/flowschemas");
    let table = rows(api.get_as(&schemas, TABLE).await.ok(200));
    let cells = table[0].as_array().unwrap();
    assert_eq!(
        cells[..4],
        [
            json!("catch-all"),
            json!("catch-all"),
            json!(10000),
            json!("ByUser")
        ]
    );
    assert_eq!(table[1][0], "exempt");
    let levels = format!("{GROUP_VERSION}/prioritylevelconfigurations");
    let table = rows(api.get_as(&levels, TABLE).await.ok(200));
    // With those that are suggested.
    assert_eq!(table.len(), 8);
    for path in [&schemas, &levels] {
        let change = json!({"spec": {"matchingPrecedence": 9, "limited": {"lendablePercent": 9}}});
        let path = format!("{path}/catch-all?fieldValidation=Ignore");
        let message = api
            .patch(&path, "merge", &change)
            .await
            .fails(422, "Invalid");
        let want = "spec of 'catch-all' must equal the fixed value";
        assert!(message.contains(want), "{message}");
    }
}
