//! Roles and their bindings.

use serde_json::{Value, json};

use super::{Subject, TABLE, lifecycle};
use crate::harness::Api;

const GROUP_VERSION: &str = "/apis/rbac.authorization.k8s.io/v1";

fn subject(plural: &'static str, namespaced: bool, body: Value) -> Subject<'static> {
    Subject {
        group_version: GROUP_VERSION,
        plural,
        namespaced,
        body,
        status: None,
    }
}

fn binding(kind: &str) -> Value {
    json!({
        "metadata": {"name": "system:b"},
        "roleRef": {"kind": kind, "name": "system:r"},
        "subjects": [
            {"kind": "User", "name": "jane"},
            {"kind": "ServiceAccount", "name": "a", "namespace": "default"},
        ],
    })
}

#[tokio::test]
async fn roles_and_bindings() {
    let api = Api::new().await;
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let role = json!({"metadata": {"name": "system:r"}, "rules": [rule]});
    lifecycle(&api, &subject("roles", true, role.clone())).await;
    let mut aggregated = role;
    aggregated["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    lifecycle(&api, &subject("clusterroles", false, aggregated)).await;
    lifecycle(&api, &subject("rolebindings", true, binding("Role"))).await;
    let clusters = subject("clusterrolebindings", false, binding("ClusterRole"));
    lifecycle(&api, &clusters).await;
}

#[tokio::test]
async fn a_binding_stays_one_of_its_role() {
    let api = Api::new().await;
    let bindings = subject("rolebindings", true, binding("Role"));
    let created = bindings.create(&api, "system:b").await;
    let group = "rbac.authorization.k8s.io";
    assert_eq!(created["roleRef"]["apiGroup"], group);
    assert_eq!(created["subjects"][0]["apiGroup"], group);
    assert!(created["subjects"][1].get("apiGroup").is_none());
    let path = format!("{}/system:b", bindings.collection());
    let other = json!({"roleRef": {"name": "other"}});
    let message = api
        .patch(&path, "merge", &other)
        .await
        .fails(422, "Invalid");
    assert!(message.contains("field is immutable"), "{message}");
    let table = api.get_as(&path, TABLE).await.ok(200);
    let cells = &table["rows"][0]["cells"];
    assert_eq!(cells[1], "Role/system:r");
    assert_eq!(cells[3], "jane");
    assert_eq!(cells[5], "default/a");
}
