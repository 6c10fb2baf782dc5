//! ReplicationController, PodTemplate, ComponentStatus.

use serde_json::json;

use super::{Subject, TABLE, lifecycle, template};
use crate::harness::Api;

fn controller() -> Subject<'static> {
    Subject {
        group_version: "/api/v1",
        plural: "replicationcontrollers",
        namespaced: true,
        body: json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"app": "web"}, "template": template()}}),
        status: Some(json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1})),
    }
}

#[tokio::test]
async fn a_replication_controller_has_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &controller()).await;
}

fn pod_template() -> Subject<'static> {
    Subject {
        group_version: "/api/v1",
        plural: "podtemplates",
        namespaced: true,
        body: json!({"metadata": {"name": "nginx"}, "template": template()}),
        status: None,
    }
}

#[tokio::test]
async fn a_pod_template_has_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &pod_template()).await;
}

#[tokio::test]
async fn component_statuses_are_computed_and_read_only() {
    let api = Api::new().await;
    let path = "/api/v1/componentstatuses";
    let list = api.get(path).await.ok(200);
    assert_eq!(list["kind"], "ComponentStatusList");
    let store = api.get(&format!("{path}/etcd-0")).await.ok(200);
    assert_eq!(
        store["conditions"],
        json!([{"type": "Healthy", "status": "True", "message": "ok"}])
    );
    let table = api.get_as(path, TABLE).await.ok(200);
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["etcd-0", "Healthy", "ok", ""])
    );
    api.get(&format!("{path}/none"))
        .await
        .fails(404, "NotFound");
    api.delete(&format!("{path}/etcd-0"))
        .await
        .fails(405, "MethodNotAllowed");
    api.post(path, &json!({"metadata": {"name": "x"}}))
        .await
        .fails(405, "MethodNotAllowed");
}
