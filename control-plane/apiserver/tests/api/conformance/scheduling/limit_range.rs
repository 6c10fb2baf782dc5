//! test/e2e/scheduling/limit_range.go: LimitRange, and Pods under it.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::{Api, pod};

fn resources(cpu: &str, memory: &str, storage: &str) -> Value {
    json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage})
}

fn limit_range(name: &str) -> Value {
    let item = json!({
        "type": "Container",
        "min": resources("50m", "100Mi", "100Gi"), "max": resources("500m", "500Mi", "500Gi"),
        "default": resources("500m", "500Mi", "500Gi"),
        "defaultRequest": resources("100m", "200Mi", "200Gi"),
    });
    json!({"metadata": {"name": name, "labels": {"e2e-test": "limits"}}, "spec": {"limits": [item]}})
}

fn pod_with(name: &str, requests: Value, limits: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": limits});
    pod
}

/// What the only container of a new Pod asks for.
async fn given(pods: &Objects<'_>, pod: &Value) -> Value {
    let created = pods.create(pod).await;
    created["spec"]["containers"][0]["resources"].clone()
}

/// Must: a LimitRange is created, a watch sees it, and its defaults are read as they were given.
/// Must: a Pod without resources gets the defaults.
/// Must: a Pod with some resources keeps them, a limit is the default of its request, and the
/// rest are the defaults.
/// Must: a Pod below the minimum, and one above the maximum, are refused.
/// Must: the LimitRange is updated: a Pod below the former minimum is taken, one above the maximum
/// is refused.
/// Must: the LimitRange is deleted: a Pod above the former maximum is taken.
#[tokio::test]
async fn limitrange_should_create_a_limitrange_with_defaults_and_ensure_pod_has_those_defaults_applied()
 {
    let api = Api::new().await;
    let ranges = Objects::namespaced(&api, "/api/v1", "limitranges");
    let pods = Objects::namespaced(&api, "/api/v1", "pods");
    let mut watch = ranges.watch("e2e-test=limits").await;
    ranges.create(&limit_range("limits")).await;
    assert_eq!(watch.line().await, "ADDED limits");
    let mut range = ranges.get("limits").await;
    assert_eq!(range["spec"], limit_range("limits")["spec"]);

    let defaults = json!({
        "requests": resources("100m", "200Mi", "200Gi"),
        "limits": resources("500m", "500Mi", "500Gi"),
    });
    assert_eq!(given(&pods, &pod("no-resources")).await, defaults);
    let partial = pod_with(
        "partial-resources",
        json!({"memory": "150Mi", "ephemeral-storage": "150Gi"}),
        json!({"cpu": "300m"}),
    );
    let merged = json!({
        "requests": resources("300m", "150Mi", "150Gi"),
        "limits": resources("300m", "500Mi", "500Gi"),
    });
    assert_eq!(given(&pods, &partial).await, merged);

    let less = pod_with("less", resources("10m", "50Mi", "50Gi"), json!({}));
    let more = pod_with("more", resources("600m", "600Mi", "600Gi"), json!({}));
    let message = pods.try_create(&less).await.fails(403, "Forbidden");
    assert!(
        message.contains("minimum cpu usage per Container is 50m, but request is 10m"),
        "{message}"
    );
    // The default limit is below what is requested.
    let refused = pods.try_create(&more).await;
    assert!(matches!(refused.code, 403 | 422), "{}", refused.text);

    range["spec"]["limits"][0]["min"] = resources("9m", "49Mi", "49Gi");
    let updated = ranges.update(&range).await;
    assert_eq!(
        updated["spec"]["limits"][0]["min"],
        resources("9m", "49Mi", "49Gi")
    );
    pods.create(&less).await;
    let refused = pods.try_create(&more).await;
    assert!(matches!(refused.code, 403 | 422), "{}", refused.text);

    let grace = json!({"gracePeriodSeconds": 30});
    api.delete_with(&ranges.path("limits"), &grace)
        .await
        .ok(200);
    assert!(ranges.list("e2e-test=limits").await.is_empty());
    pods.create(&more).await;
}

/// Must: two LimitRanges are created in different namespaces.
/// Must: a list of all namespaces by a label finds both.
/// Must: the first is patched.
/// Must: its label and its minimum are the new ones.
/// Must: deletecollection by a label deletes that one only.
#[tokio::test]
async fn limitrange_should_list_patch_and_delete_a_limitrange_by_collection() {
    let api = Api::new().await;
    let ranges = Objects::namespaced(&api, "/api/v1", "limitranges");
    let created = ranges.create(&limit_range("limits")).await;
    let other = json!({"metadata": {"name": "other"}});
    api.post("/api/v1/namespaces", &other).await.ok(201);
    let elsewhere = "/api/v1/namespaces/other/limitranges";
    api.post(elsewhere, &limit_range("limits")).await.ok(201);
    assert_eq!(ranges.list_everywhere("e2e-test=limits").await.len(), 2);

    let mut limits = created["spec"]["limits"].clone();
    limits[0]["min"] = resources("9m", "49Mi", "49Gi");
    let patch = json!({"metadata": {"labels": {"state": "patched"}}, "spec": {"limits": limits}});
    let patched = ranges.patch("limits", "strategic-merge", &patch).await;
    assert_eq!(patched["metadata"]["labels"]["state"], "patched");
    assert_eq!(patched["spec"]["limits"], limits);

    ranges.delete_all("state=patched").await;
    assert!(ranges.list("state=patched").await.is_empty());
    let left = ranges.list_everywhere("e2e-test=limits").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["metadata"]["namespace"], "other");
}
