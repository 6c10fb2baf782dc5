//! Grace periods: how long what is deleted has to end in order.

use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};

/// Creates a Pod on a node.
pub(crate) async fn running_pod(api: &Api, name: &str) -> String {
    let mut body = pod(name);
    body["spec"]["nodeName"] = json!("n1");
    api.post(PODS, &body).await.ok(201);
    format!("{PODS}/{name}")
}

#[tokio::test]
async fn grace_only_shrinks() {
    let api = Api::new().await;
    let path = running_pod(&api, "p").await;
    let grace = |value: &Value| value["metadata"]["deletionGracePeriodSeconds"].clone();
    let first = api.delete(&path).await.ok(200);
    assert_eq!(grace(&first), 30);
    let until = |value: &Value| -> jiff::Timestamp {
        value["metadata"]["deletionTimestamp"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    let longer = api
        .delete_with(&path, &json!({"gracePeriodSeconds": 60}))
        .await
        .ok(200);
    assert_eq!(longer, first);
    assert_eq!(api.delete(&path).await.ok(200), first);
    let shorter = api
        .delete_with(&path, &json!({"gracePeriodSeconds": 10}))
        .await
        .ok(200);
    assert_eq!(grace(&shorter), 10);
    assert_eq!(until(&first).as_second() - until(&shorter).as_second(), 20);
    api.delete_with(&path, &json!({"gracePeriodSeconds": 0}))
        .await
        .ok(200);
    api.get(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn while_a_grace_lasts_nothing_else_is_decided() {
    let api = Api::new().await;
    let path = running_pod(&api, "p").await;
    let first = api.delete(&path).await.ok(200);
    // Also where the Pod has ended, and would have had no grace.
    let ended = json!({"status": {"phase": "Succeeded"}});
    let status = format!("{path}/status");
    let ended = api.patch(&status, "merge", &ended).await.ok(200);
    for options in [
        json!({"propagationPolicy": "Foreground"}),
        json!({"gracePeriodSeconds": 60}),
    ] {
        let again = api.delete_with(&path, &options).await.ok(200);
        assert_eq!(again, ended, "{options}");
    }
    assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 30);
    let foreground = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground"});
    let held = api.delete_with(&path, &foreground).await.ok(200);
    let finalizers = &held["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn a_pod_that_no_node_has_goes_at_once() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.ok(201);
    api.delete(&format!("{PODS}/p")).await.ok(200);
    api.get(&format!("{PODS}/p")).await.fails(404, "NotFound");
}

#[tokio::test]
async fn a_pod_with_a_finalizer_stays_after_its_node_is_done() {
    let api = Api::new().await;
    let path = running_pod(&api, "p").await;
    api.patch(
        &path,
        "merge",
        &json!({"metadata": {"finalizers": ["x.io/a"]}}),
    )
    .await
    .ok(200);
    api.delete(&path).await.ok(200);
    let done = api
        .delete_with(&path, &json!({"gracePeriodSeconds": 0}))
        .await
        .ok(200);
    assert_eq!(done["metadata"]["deletionGracePeriodSeconds"], 0);
    api.patch(&path, "merge", &json!({"metadata": {"finalizers": null}}))
        .await
        .ok(200);
    api.get(&path).await.fails(404, "NotFound");
}
