//! Deletion: at once, with grace, with finalizers; collections and namespaces.

use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, PODS, deployment, pod};

#[tokio::test]
async fn an_object_without_finalizers_goes_at_once() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let status = api.delete(&path).await.ok(200);
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"]["name"], "a");
    assert_eq!(status["details"]["uid"], object["metadata"]["uid"]);
    api.delete(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn preconditions() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    for wrong in [json!({"uid": "x"}), json!({"resourceVersion": "1"})] {
        let message = api
            .delete_with(&path, &json!({"preconditions": wrong}))
            .await
            .fails(409, "Conflict");
        assert!(message.contains("Precondition failed"), "{message}");
    }
    let meta = &object["metadata"];
    let right = json!({"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]});
    api.delete_with(&path, &json!({"preconditions": right}))
        .await
        .ok(200);
}

#[tokio::test]
async fn an_object_with_finalizers_waits_for_them() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["x.io/a", "x.io/b"]}});
    api.post(CONFIG_MAPS, &body).await.ok(201);
    let path = format!("{CONFIG_MAPS}/a");
    let deleted = api.delete(&path).await.ok(200);
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.delete(&path).await.ok(200), deleted);
    let add = json!({"metadata": {"finalizers": ["x.io/a", "x.io/b", "x.io/c"]}});
    let message = api.patch(&path, "merge", &add).await.fails(422, "Invalid");
    assert!(
        message.contains("no new finalizers can be added"),
        "{message}"
    );
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    api.patch(&path, "merge", &finalizers(json!(["x.io/b"])))
        .await
        .ok(200);
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED a");
    api.patch(&path, "merge", &finalizers(json!(null)))
        .await
        .ok(200);
    assert_eq!(watch.line().await, "DELETED a");
    api.get(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn propagation_sets_the_collectors_finalizers() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        api.post(deployments, &deployment("web")).await.ok(201);
        let path = format!("{deployments}/web");
        let deleted = api
            .delete_with(&path, &json!({"propagationPolicy": policy}))
            .await
            .ok(200);
        assert_eq!(deleted["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(deleted["metadata"]["generation"], 2);
        // Changing one's mind.
        api.delete_with(&path, &json!({"propagationPolicy": "Background"}))
            .await
            .ok(200);
        api.get(&path).await.fails(404, "NotFound");
    }
}

/// Creates a Pod on a node.
async fn running_pod(api: &Api, name: &str) -> String {
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

#[tokio::test]
async fn collections() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.config_map(name).await;
    }
    let deleted = api
        .delete(&format!("{CONFIG_MAPS}?labelSelector=name%20in%20(a,b)"))
        .await
        .ok(200);
    assert_eq!(deleted["kind"], "ConfigMapList");
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = api.get(CONFIG_MAPS).await.ok(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/gone";
    let created = api
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "gone"}}))
        .await
        .ok(201);
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    let body = json!({"metadata": {"name": "a"}});
    api.post(&format!("{path}/configmaps"), &body).await.ok(201);
    let deleted = api.delete(path).await.ok(200);
    assert_eq!(deleted["status"]["phase"], "Terminating");
    let refused = api
        .post(
            &format!("{path}/configmaps"),
            &json!({"metadata": {"name": "b"}}),
        )
        .await;
    let message = refused.fails(403, "Forbidden");
    assert!(
        message.contains("because it is being terminated"),
        "{message}"
    );
    assert_eq!(
        refused.json()["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    // What is there can still be changed and deleted.
    api.delete(&format!("{path}/configmaps/a")).await.ok(200);
    let mut finalized = deleted.clone();
    finalized["spec"]["finalizers"] = json!([]);
    api.put(&format!("{path}/finalize"), &finalized)
        .await
        .ok(200);
    api.get(path).await.fails(404, "NotFound");
    let message = api
        .delete("/api/v1/namespaces/default")
        .await
        .fails(403, "Forbidden");
    assert!(
        message.contains("this namespace may not be deleted"),
        "{message}"
    );
}
