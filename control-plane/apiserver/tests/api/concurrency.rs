//! Optimistic concurrency: whoever says which version they saw changes no other, on every path.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, PODS, deployment, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A way to write something that says which object it is about.
struct Way {
    method: Method,
    path: String,
    media_type: &'static str,
    /// The body, given the object's `metadata` to send.
    body: fn(&Value, &Value) -> Value,
}

/// A number that is another one for each version.
fn seen(meta: &Value) -> Value {
    let version: i64 = meta["resourceVersion"].as_str().unwrap().parse().unwrap();
    json!(version)
}

fn ways() -> Vec<Way> {
    let way = |method: Method, sub: &str, media_type: &'static str, body| Way {
        method,
        path: format!("{DEPLOYMENTS}/web{sub}"),
        media_type,
        body,
    };
    let whole = |object: &Value, meta: &Value| {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = meta["resourceVersion"].clone();
        object["metadata"]["uid"] = meta["uid"].clone();
        // The one is for the object itself, the other for its status.
        object["metadata"]["labels"]["at"] = meta["resourceVersion"].clone();
        object["status"]["replicas"] = seen(meta);
        object
    };
    let scale = |object: &Value, meta: &Value| {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "web", "namespace": "default", "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap() + 1},
        })
    };
    let part = |_: &Value, meta: &Value| {
        let labels = json!({"at": meta["resourceVersion"]});
        json!({"metadata": {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"], "labels": labels}})
    };
    let of_status = |_: &Value, meta: &Value| json!({"metadata": {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}, "status": {"replicas": seen(meta)}});
    let operations = |_: &Value, meta: &Value| {
        json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
            {"op": "replace", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "add", "path": "/metadata/labels", "value": {"at": meta["resourceVersion"]}},
        ])
    };
    const JSON: &str = "application/json";
    const MERGE: &str = "application/merge-patch+json";
    vec![
        way(Method::PUT, "", JSON, whole),
        way(Method::PUT, "/status", JSON, whole),
        way(Method::PUT, "/scale", JSON, scale),
        way(Method::PATCH, "", MERGE, part),
        way(
            Method::PATCH,
            "",
            "application/strategic-merge-patch+json",
            part,
        ),
        way(Method::PATCH, "", "application/json-patch+json", operations),
        way(Method::PATCH, "/status", MERGE, of_status),
        way(Method::PATCH, "/scale", MERGE, scale),
    ]
}

async fn send(api: &Api, way: &Way, object: &Value, meta: &Value) -> Answer {
    let body = (way.body)(object, meta).to_string();
    api.raw(way.method.clone(), &way.path, way.media_type, body)
        .await
}

#[tokio::test]
async fn a_write_that_names_another_version_or_another_object_is_refused() {
    let api = Api::new().await;
    let first = api.post(DEPLOYMENTS, &deployment("web")).await.ok(201);
    let label = json!({"metadata": {"labels": {"at": "first"}}});
    let path = format!("{DEPLOYMENTS}/web");
    api.patch(&path, "merge", &label).await.ok(200);
    for way in ways() {
        let what = format!("{} {} {}", way.method, way.path, way.media_type);
        let current = api.get(&path).await.ok(200);
        let stale = send(&api, &way, &current, &first["metadata"]).await;
        assert_eq!(stale.code, 409, "{what}: {}", stale.text);
        let message = stale.fails(409, "Conflict");
        assert!(
            message.contains("the object has been modified"),
            "{what}: {message}"
        );

        let mut other = current["metadata"].clone();
        other["uid"] = json!("another");
        let other = send(&api, &way, &current, &other).await;
        // Who sends the whole object, or a scale, names which it means; who patches would change it.
        let names = way.method == Method::PUT || way.path.ends_with("/scale");
        let code = if names { 409 } else { 422 };
        assert_eq!(other.code, code, "{what}: {}", other.text);
        assert_eq!(api.get(&path).await.ok(200), current, "{what}");

        let written = send(&api, &way, &current, &current["metadata"]).await;
        assert_eq!(written.code, 200, "{what}: {}", written.text);
        let after = api.get(&path).await.ok(200);
        assert_ne!(
            after["metadata"]["resourceVersion"], current["metadata"]["resourceVersion"],
            "{what}"
        );
    }
}

#[tokio::test]
async fn deletes_and_evictions_name_the_object_that_they_mean() {
    let api = Api::new().await;
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let path = format!("{PODS}/p");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let current = api.patch(&path, "merge", &label).await.ok(200);
    let stale = &created["metadata"]["resourceVersion"];
    let preconditions = [json!({"resourceVersion": stale}), json!({"uid": "another"})];
    for wrong in &preconditions {
        let options = json!({"preconditions": wrong});
        api.delete_with(&path, &options)
            .await
            .fails(409, "Conflict");
        let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": options});
        api.post(&format!("{path}/eviction"), &eviction)
            .await
            .fails(409, "Conflict");
        let collection = format!("{PODS}?labelSelector=a");
        api.delete_with(&collection, &options)
            .await
            .fails(409, "Conflict");
    }
    assert_eq!(api.get(&path).await.ok(200), current);
    let right = json!({"preconditions": {
        "uid": current["metadata"]["uid"],
        "resourceVersion": current["metadata"]["resourceVersion"],
    }});
    let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": right});
    api.post(&format!("{path}/eviction"), &eviction)
        .await
        .ok(201);
    api.get(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn finalize_and_approval_are_conditional_too() {
    let api = Api::new().await;
    let space = json!({"metadata": {"name": "space"}});
    let stale = api.post("/api/v1/namespaces", &space).await.ok(201);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    api.patch("/api/v1/namespaces/space", "merge", &label)
        .await
        .ok(200);
    api.put("/api/v1/namespaces/space/finalize", &stale)
        .await
        .fails(409, "Conflict");
    api.put("/api/v1/namespaces/space/status", &stale)
        .await
        .fails(409, "Conflict");
}

#[tokio::test]
async fn some_kinds_are_changed_only_by_who_has_seen_them() {
    let api = Api::new().await;
    let table = [
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"spec": {}}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
            json!({}),
        ),
        (
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            json!({}),
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "h"}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1}}),
        ),
        ("/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {}})),
        (
            "/apis/storage.k8s.io/v1/csinodes",
            json!({"spec": {"drivers": []}}),
        ),
        (
            "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            json!({"storageClassName": "gold"}),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"spec": {"attacher": "a.io", "nodeName": "n1", "source": {"persistentVolumeName": "v"}}}),
        ),
    ];
    for (collection, mut body) in table {
        body["metadata"]["name"] = json!("a");
        api.post(collection, &body).await.ok(201);
        let path = format!("{collection}/a");
        let message = api.put(&path, &body).await.fails(422, "Invalid");
        assert!(
            message.contains("metadata.resourceVersion: Invalid value"),
            "{collection}: {message}"
        );
        // A patch is of what is there.
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        api.patch(&path, "merge", &label).await.ok(200);
    }
}
