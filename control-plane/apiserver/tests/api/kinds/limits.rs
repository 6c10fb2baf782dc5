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

#[tokio::test]
async fn a_limit_range_has_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &range()).await;
}

#[tokio::test]
async fn a_pod_says_what_limits_gave_it_or_is_told_which_it_breaks() {
    let api = Api::new().await;
    range().create(&api, "limits").await;
    let created = api.post(PODS, &pod("none")).await.ok(201);
    let note = &created["metadata"]["annotations"]["kubernetes.io/limit-ranger"];
    assert_eq!(
        note,
        "LimitRanger plugin set: cpu, ephemeral-storage, memory request for container c; cpu, ephemeral-storage, memory limit for container c"
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
