//! HorizontalPodAutoscaler in both versions.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::Api;

fn subject(version: &'static str, spec: Value, status: Value) -> Subject<'static> {
    let mut body = json!({"metadata": {"name": "web"}, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5}});
    for (field, value) in spec.as_object().unwrap() {
        body["spec"][field] = value.clone();
    }
    Subject {
        group_version: version,
        plural: "horizontalpodautoscalers",
        namespaced: true,
        body,
        status: Some(status),
    }
}

#[tokio::test]
async fn both_versions_have_every_verb() {
    let api = Api::new().await;
    let status = json!({"currentReplicas": 1, "desiredReplicas": 2});
    let v2 = subject("/apis/autoscaling/v2", json!({}), status.clone());
    lifecycle(&api, &v2).await;
    let v1 = subject(
        "/apis/autoscaling/v1",
        json!({"targetCPUUtilizationPercentage": 60}),
        status,
    );
    lifecycle(&api, &v1).await;
}

#[tokio::test]
async fn one_object_is_seen_in_both_versions() {
    let api = Api::new().await;
    let metric = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let v2 = subject(
        "/apis/autoscaling/v2",
        json!({"metrics": [cpu, metric]}),
        json!({}),
    );
    let created = v2.create(&api, "web").await;
    let old = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let mut watch = api.watch(&format!("{old}?watch=true")).await;
    let added = watch.event().await.unwrap();
    assert_eq!(added["object"]["apiVersion"], "autoscaling/v1");
    let path = format!("{old}/web");
    let mut served = api.get(&path).await.ok(200);
    assert_eq!(served["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(served["metadata"]["uid"], created["metadata"]["uid"]);
    let carried = &served["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    assert!(carried.as_str().unwrap().contains("rps"), "{carried}");

    served["spec"]["maxReplicas"] = json!(7);
    api.put(&path, &served).await.ok(200);
    let read = api.get(&format!("{}/web", v2.collection())).await.ok(200);
    assert_eq!(read["spec"]["maxReplicas"], 7);
    assert_eq!(read["spec"]["metrics"], created["spec"]["metrics"]);
    assert!(read["metadata"].get("annotations").is_none());
    assert_eq!(read["metadata"]["generation"], 2);

    let groups = api.get("/apis/autoscaling").await.ok(200);
    assert_eq!(groups["preferredVersion"]["version"], "v2");
}
