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

/// [sig-apps] ReplicationController should test the lifecycle of a ReplicationController
#[tokio::test]
async fn should_test_the_lifecycle_of_a_replication_controller() {
    let api = Api::new().await;
    lifecycle(&api, &controller()).await;
}

/// [sig-apps] ReplicationController should get and update a ReplicationController scale
#[tokio::test]
async fn should_get_and_update_a_replication_controller_scale() {
    let api = Api::new().await;
    let subject = controller();
    subject.create(&api, "web").await;
    let path = format!("{}/web/scale", subject.collection());
    let mut scale = api.get(&path).await.ok(200);
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["spec"]["replicas"] = json!(2);
    let scaled = api.put(&path, &scale).await.ok(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
    let read = api
        .get(&format!("{}/web", subject.collection()))
        .await
        .ok(200);
    assert_eq!(read["spec"]["replicas"], 2);
    assert_eq!(read["metadata"]["generation"], 2);
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

/// [sig-node] PodTemplates should run the lifecycle of PodTemplates
#[tokio::test]
async fn should_run_the_lifecycle_of_pod_templates() {
    let api = Api::new().await;
    lifecycle(&api, &pod_template()).await;
}

/// [sig-node] PodTemplates should replace a pod template
#[tokio::test]
async fn should_replace_a_pod_template() {
    let api = Api::new().await;
    let subject = pod_template();
    let mut replacement = subject.create(&api, "nginx").await;
    assert_eq!(replacement["metadata"]["generation"], 1);
    replacement["template"]["spec"]["containers"][0]["image"] = json!("app:v2");
    let path = format!("{}/nginx", subject.collection());
    let replaced = api.put(&path, &replacement).await.ok(200);
    assert_eq!(
        replaced["template"]["spec"]["containers"][0]["image"],
        "app:v2"
    );
    assert_eq!(replaced["metadata"]["generation"], 2);
}

/// [sig-node] PodTemplates should delete a collection of pod templates
#[tokio::test]
async fn should_delete_a_collection_of_pod_templates() {
    let api = Api::new().await;
    let subject = pod_template();
    for name in ["a", "b", "c"] {
        subject.create(&api, name).await;
    }
    let selected = format!("{}?labelSelector=lifecycle%3Dyes", subject.collection());
    let items = |list: serde_json::Value| list["items"].as_array().unwrap().len();
    assert_eq!(items(api.get(&selected).await.ok(200)), 3);
    api.delete(&selected).await.ok(200);
    assert_eq!(items(api.get(&selected).await.ok(200)), 0);
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
