//! Kinds that a PUT to where there is none creates.

use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS};

#[tokio::test]
async fn some_kinds_are_created_by_an_update() {
    let api = Api::new().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a";
    let lease = json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 40}});
    let created = api.put(path, &lease).await.ok(201);
    api.put(path, &created).await.ok(200);
    // A Lease is never overwritten by one who has not seen it.
    api.put(path, &lease).await.fails(422, "Invalid");
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (collection, body, created) in [
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            lease,
            true,
        ),
        (
            "/api/v1/namespaces/default/limitranges",
            json!({"spec": {"limits": []}}),
            true,
        ),
        ("/api/v1/namespaces/default/endpoints", json!({}), true),
        (
            "/api/v1/namespaces/default/services",
            json!({"spec": {"ports": [{"port": 80}]}}),
            true,
        ),
        (
            "/api/v1/namespaces/default/events",
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}),
            true,
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "h"}),
            true,
        ),
        (&*format!("{rbac}/clusterroles"), json!({}), true),
        (
            &*format!("{rbac}/namespaces/default/roles"),
            json!({}),
            true,
        ),
        (
            &*format!("{rbac}/clusterrolebindings"),
            json!({"roleRef": role}),
            true,
        ),
        (
            &*format!("{rbac}/namespaces/default/rolebindings"),
            json!({"roleRef": role}),
            true,
        ),
        (CONFIG_MAPS, json!({}), false),
    ] {
        let path = format!("{collection}/b");
        let mut body = body;
        body["metadata"] = json!({"name": "b", "uid": "x", "resourceVersion": "999999"});
        let another = api.put(&path, &body).await;
        if !created {
            another.fails(404, "NotFound");
            continue;
        }
        let message = another.fails(409, "Conflict");
        assert!(message.contains("UID in precondition: x"), "{message}");
        // The version of an object that is gone does not count, as upstream.
        body["metadata"] = json!({"name": "b", "resourceVersion": "999999"});
        let made = api.put(&path, &body).await.ok(201);
        assert_ne!(made["metadata"]["resourceVersion"], "999999", "{path}");
        api.put(&path, &body).await.fails(409, "Conflict");
    }
}
