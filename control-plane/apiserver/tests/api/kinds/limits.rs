//! LimitRange, and admission by it.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::{Api, PODS, pod};

fn range() -> Subject<'static> {
    let cpu = |request: &str, memory: &str, storage: &str| json!({"cpu": request, "memory": memory, "ephemeral-storage": storage});
    let item = json!({
        "type": "Container",
        "min": cpu("50m", "100Mi", "100Gi"), "max": cpu("500m", "500Mi", "500Gi"),
        "default": cpu("500m", "500Mi", "500Gi"), "defaultRequest": cpu("100m", "200Mi", "200Gi"),
    });
    Subject {
        group_version: "/api/v1",
        plural: "limitranges",
        namespaced: true,
        body: json!({"metadata": {"name": "limits"}, "spec": {"limits": [item]}}),
        status: None,
    }
}

fn with_resources(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

/// [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those
/// defaults applied.
#[tokio::test]
async fn should_create_a_limit_range_with_defaults_and_ensure_pod_has_those_defaults_applied() {
    let api = Api::new().await;
    let mut watch = api.watch("/api/v1/limitranges?watch=true").await;
    range().create(&api, "limits").await;
    assert_eq!(watch.line().await, "ADDED limits");
    let path = format!("{}/limits", range().collection());
    let created = api.get(&path).await.ok(200);
    assert_eq!(created["spec"], range().body["spec"]);

    let created = api.post(PODS, &pod("none")).await.ok(201);
    let resources = &created["spec"]["containers"][0]["resources"];
    let item = &range().body["spec"]["limits"][0];
    assert_eq!(resources["requests"], item["defaultRequest"]);
    assert_eq!(resources["limits"], item["default"]);
    let note = &created["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(
        note,
        "LimitRanger plugin set: cpu, ephemeral-storage, memory request for container c; cpu, ephemeral-storage, memory limit for container c"
    );
    let partial =
        json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}});
    let created = api
        .post(PODS, &with_resources("partial", partial))
        .await
        .ok(201);
    let resources = &created["spec"]["containers"][0]["resources"];
    assert_eq!(
        resources["requests"],
        json!({"cpu": "300m", "memory": "150Mi", "ephemeral-storage": "200Gi"})
    );
    assert_eq!(
        resources["limits"],
        json!({"cpu": "300m", "memory": "500Mi", "ephemeral-storage": "500Gi"})
    );
    let less = json!({"requests": {"cpu": "10m"}});
    let message = api
        .post(PODS, &with_resources("less", less))
        .await
        .fails(403, "Forbidden");
    assert_eq!(
        message,
        "pods \"less\" is forbidden: minimum cpu usage per Container is 50m, but request is 10m"
    );
    let more = json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}});
    let message = api
        .post(PODS, &with_resources("more", more))
        .await
        .fails(403, "Forbidden");
    assert!(
        message.ends_with("maximum cpu usage per Container is 500m, but limit is 600m"),
        "{message}"
    );

    let mut updated = api.get(&path).await.ok(200);
    updated["spec"]["limits"][0]["min"]["cpu"] = json!("9m");
    api.put(&path, &updated).await.ok(200);
    let fits = json!({"requests": {"cpu": "10m"}});
    api.post(PODS, &with_resources("fits", fits)).await.ok(201);
    api.delete(&path).await.ok(200);
    let free = json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}});
    api.post(PODS, &with_resources("free", free)).await.ok(201);
}

/// [sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection
#[tokio::test]
async fn should_list_patch_and_delete_a_limit_range_by_collection() {
    let api = Api::new().await;
    lifecycle(&api, &range()).await;
    range().create(&api, "limits").await;
    let path = format!("{}/limits", range().collection());
    let patch = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "40m"}}]}});
    let patched = api.patch(&path, "strategic-merge", &patch).await.ok(200);
    assert_eq!(patched["spec"]["limits"][0]["min"]["cpu"], "40m");
}

#[tokio::test]
async fn claims_are_held_to_limits_too() {
    let api = Api::new().await;
    let item = json!({"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}});
    let limits = json!({"metadata": {"name": "limits"}, "spec": {"limits": [item]}});
    api.post(&range().collection(), &limits).await.ok(201);
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "3Gi"}}}});
    let message = api
        .post("/api/v1/namespaces/default/persistentvolumeclaims", &claim)
        .await
        .fails(403, "Forbidden");
    assert_eq!(
        message,
        "persistentvolumeclaims \"data\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
    );
}
