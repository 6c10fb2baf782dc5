//! Mirrors of static Pods: who may make them, and of what.

use coracle_apiserver::auth::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};

const MIRROR: &str = "kubernetes.io/config.mirror";

async fn node(api: &Api, name: &str) -> String {
    let node = json!({"metadata": {"name": name}});
    let made = api.post("/api/v1/nodes", &node).await.ok(201);
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn mirror(name: &str, node: &str, uid: &str) -> Value {
    let mut mirror = pod(name);
    mirror["metadata"]["annotations"] = json!({MIRROR: "hash"});
    mirror["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true},
    ]);
    mirror["spec"]["nodeName"] = json!(node);
    mirror
}

#[tokio::test]
async fn a_node_shows_what_it_runs_and_nothing_else() {
    let api = Api::new().await;
    let (a, b) = (node(&api, "a").await, node(&api, "b").await);
    let as_a = api.user(Some(UserInfo::new("system:node:a", &["system:nodes"])));
    let made = as_a.post(PODS, &mirror("own", "a", &a)).await.ok(201);
    // What the node says is all: it gets no token.
    assert!(made["spec"]["volumes"].is_null(), "{made}");
    assert!(made["spec"]["serviceAccountName"].is_null(), "{made}");
    let mut plain = mirror("plain", "a", &a);
    plain["metadata"]["annotations"] = json!({});
    let mut secret = mirror("secret", "a", &a);
    secret["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    for (pod, cause) in [
        (plain, "can only create mirror pods"),
        (mirror("other", "b", &b), "spec.nodeName set to itself"),
        (mirror("uid", "a", &b), "UID mismatch"),
        (secret.clone(), "may not reference secrets"),
    ] {
        let refused = as_a.post(PODS, &pod).await.fails(403, "Forbidden");
        assert!(refused.contains(cause), "{refused}");
    }
    // Nobody else may either.
    let refused = api.post(PODS, &secret).await.fails(403, "Forbidden");
    assert!(
        refused.contains("a mirror pod may not reference secrets"),
        "{refused}"
    );

    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("b");
    api.post(PODS, &bound).await.ok(201);
    let refused = as_a
        .delete(&format!("{PODS}/bound"))
        .await
        .fails(403, "Forbidden");
    assert!(
        refused.contains("can only delete pods with spec.nodeName"),
        "{refused}"
    );
    let now = json!({"gracePeriodSeconds": 0});
    as_a.delete_with(&format!("{PODS}/own"), &now).await.ok(200);
}
