//! Tables for HorizontalPodAutoscalers of both versions.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::autoscaling::v1 as old;
use serde_json::{Value, json};

use super::*;
use crate::registry::kinds::versions::{View, Viewed};
use crate::validation::testing::assert_causes;

fn target() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"})
}

fn autoscaler(change: Value) -> HorizontalPodAutoscaler {
    let mut spec = json!({"scaleTargetRef": target(), "maxReplicas": 5});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let mut object = serde_json::from_value(
        json!({"metadata": {"name": "web", "annotations": {"mine": "1"}}, "spec": spec}),
    )
    .unwrap();
    AutoscalerStrategy.set_defaults(&mut object);
    object
}

/// Every kind of metric, and everything else that v1 has no field for.
fn rich() -> HorizontalPodAutoscaler {
    let selector = json!({"matchLabels": {"a": "b"}});
    let mut object = autoscaler(json!({
        "minReplicas": 2,
        "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "10"}}},
            {"type": "Object", "object": {"describedObject": target(), "metric": {"name": "hits"}, "target": {"type": "Value", "value": "1k"}}},
            {"type": "Object", "object": {"describedObject": target(), "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "External", "external": {"metric": {"name": "queue", "selector": selector}, "target": {"type": "Value", "value": "30"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300, "tolerance": "100m"}},
    }));
    object.status = serde_json::from_value(json!({
        "currentReplicas": 3, "desiredReplicas": 4, "observedGeneration": 2,
        "lastScaleTime": "2026-01-01T00:00:00Z",
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "Ready", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "200m"}}},
            {"type": "Object", "object": {"describedObject": target(), "metric": {"name": "hits"}, "current": {"averageValue": "3"}}},
            {"type": "External", "external": {"metric": {"name": "queue", "selector": selector}, "current": {"value": "20"}}},
        ],
    }))
    .unwrap();
    object
}

#[test]
fn nothing_is_lost_between_the_versions() {
    for object in [rich(), autoscaler(json!({}))] {
        let served = AutoscalerView::from_stored(object.clone());
        assert_eq!(AutoscalerView::to_stored(served.clone()), object);
        let stored = Viewed(AutoscalerView).encode_stored(&served).unwrap();
        assert!(stored.starts_with(br#"{"apiVersion":"autoscaling/v2""#));
        let read = Viewed(AutoscalerView).decode_stored(&stored).unwrap();
        assert_eq!(read, served);
    }
}

#[test]
fn what_v1_carries_is_in_the_terms_of_kubernetes() {
    let served = serde_json::to_value(AutoscalerView::from_stored(rich())).unwrap();
    assert_eq!(served["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(served["status"]["currentCPUUtilizationPercentage"], 40);
    let annotations = &served["metadata"]["annotations"];
    let carried = |name: &str| -> Value {
        let name = format!("autoscaling.alpha.kubernetes.io/{name}");
        serde_json::from_str(annotations[&name].as_str().unwrap()).unwrap()
    };
    let metrics = carried("metrics");
    assert_eq!(
        metrics[0],
        json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}})
    );
    assert_eq!(
        metrics[2],
        json!({"type": "Pods", "pods": {"metricName": "rps", "selector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "10"}})
    );
    assert_eq!(
        metrics[3]["object"],
        json!({"target": target(), "metricName": "hits", "targetValue": "1k"})
    );
    assert_eq!(
        carried("behavior")["ScaleDown"]["StabilizationWindowSeconds"],
        300
    );
    assert_eq!(
        carried("current-metrics")[0]["resource"]["currentAverageUtilization"],
        40
    );
    assert_eq!(carried("conditions")[0]["type"], "AbleToScale");
    assert_eq!(annotations["mine"], "1");
}

#[test]
fn defaults_hold_in_both_versions() {
    let mut served: old::HorizontalPodAutoscaler =
        serde_json::from_value(json!({"spec": {"scaleTargetRef": target(), "maxReplicas": 5}}))
            .unwrap();
    Viewed(AutoscalerView).set_defaults(&mut served);
    let mut carrying = rich();
    let carried = "autoscaling.alpha.kubernetes.io/metrics".to_owned();
    let annotations = carrying.metadata.annotations.get_or_insert_default();
    annotations.insert(carried, "[]".to_owned());
    AutoscalerStrategy.set_defaults(&mut carrying);
    assert_eq!(carrying, rich());
    let odd = json!({"type": "AverageValue", "averageValue": "0.5"});
    let odd = autoscaler(json!({
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": odd}}],
        "behavior": {"scaleUp": {"tolerance": "0.1"}},
    }));
    let spec = serde_json::to_value(odd.spec).unwrap();
    assert_eq!(spec["metrics"][0]["pods"]["target"]["averageValue"], "500m");
    assert_eq!(spec["behavior"]["scaleUp"]["tolerance"], "100m");
    assert_eq!(served.spec.target_cpu_utilization_percentage, Some(80));
    assert_eq!(served.spec.min_replicas, Some(1));
    let spec = serde_json::to_value(autoscaler(json!({"behavior": {}})).spec).unwrap();
    assert_eq!(
        spec["behavior"]["scaleUp"],
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]})
    );
    assert_eq!(
        spec["behavior"]["scaleDown"],
        json!({"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
    );
}

#[test]
fn validation() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"minReplicas": -1, "maxReplicas": -2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "a/b", "name": ""}}),
            vec![
                "spec.minReplicas FieldValueInvalid must be greater than or equal to 0",
                "spec.maxReplicas FieldValueInvalid must be greater than or equal to 1",
                "spec.maxReplicas FieldValueInvalid must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.kind FieldValueInvalid",
                "spec.scaleTargetRef.name FieldValueRequired",
            ],
        ),
        (
            json!({"minReplicas": 0, "maxReplicas": 0, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}),
            vec![
                "spec.maxReplicas FieldValueRequired",
                "spec.scaleTargetRef.apiVersion FieldValueInvalid apiVersion must specify API group",
                "spec.metrics FieldValueForbidden must specify at least one Object or External metric",
            ],
        ),
        (
            json!({"scaleTargetRef": {"apiVersion": "a/b/c", "kind": "ReplicationController", "name": "web"}}),
            vec![
                "spec.scaleTargetRef.apiVersion FieldValueInvalid unexpected GroupVersion string: a/b/c",
            ],
        ),
        (
            json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController", "name": "web"}, "minReplicas": 0, "metrics": [
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "a", "apiVersion": "v1"}, "metric": {"name": "m", "selector": {"matchLabels": {"a": "b c"}}}, "target": {"type": "Value", "value": "1"}}},
            ]}),
            vec![],
        ),
        (
            json!({"metrics": [
                {"type": "ContainerResource", "containerResource": {"name": "odd", "container": "A", "target": {"type": "Utilization", "averageUtilization": 1}}},
                {"type": "Object", "object": {"describedObject": {"kind": "K", "name": "a", "apiVersion": "a/b/c"}, "metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}},
            ]}),
            vec![
                "spec.metrics[0].containerResource.container FieldValueInvalid",
                "spec.metrics[0].containerResource.name FieldValueInvalid must be a standard resource type",
                "spec.metrics[0].containerResource.name FieldValueInvalid must be a standard resource for containers",
                "spec.metrics[1].object.describedObject.apiVersion FieldValueInvalid",
            ],
        ),
        (
            json!({"metrics": [{"type": "Pods", "resource": {"name": "", "target": {"type": "Odd", "averageUtilization": 0, "averageValue": "-1"}}}]}),
            vec![
                "spec.metrics[0].resource.name FieldValueRequired must specify a resource name",
                "spec.metrics[0].resource.target.type FieldValueInvalid must be either",
                "spec.metrics[0].resource.target.averageValue FieldValueInvalid must be positive",
                "spec.metrics[0].resource.target.averageUtilization FieldValueInvalid must be greater than 0",
                "spec.metrics[0].resource.target.averageValue FieldValueForbidden may not set both",
                "spec.metrics[0].pods FieldValueRequired must populate information",
            ],
        ),
        (
            json!({"behavior": {"scaleUp": {"tolerance": "a"}}, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "much"}}}]}),
            vec![
                "spec.metrics[0].resource.target.averageValue FieldValueInvalid quantities must match",
                "spec.behavior.scaleUp.tolerance FieldValueInvalid quantities must match",
            ],
        ),
        (
            json!({"metrics": [{
                "type": "Pods",
                "pods": {"metric": {"name": "a"}, "target": {"type": "AverageValue", "averageValue": "1"}},
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}},
            }]}),
            vec![
                "spec.metrics[0].resource FieldValueForbidden must populate the given metric source only",
            ],
        ),
        (
            json!({"metrics": [{
                "type": "Odd",
                "pods": {"metric": {"name": "a"}, "target": {"type": "AverageValue", "averageValue": "1"}},
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}},
            }]}),
            vec![
                "spec.metrics[0].type FieldValueNotSupported",
                "spec.metrics[0].pods FieldValueForbidden must populate the given metric source only",
                "spec.metrics[0].resource FieldValueForbidden must populate the given metric source only",
            ],
        ),
        (
            json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Odd", "policies": []}, "scaleDown": {"policies": [{"type": "Odd", "value": 0, "periodSeconds": 1801}]}}}),
            vec![
                "spec.behavior.scaleUp.stabilizationWindowSeconds FieldValueInvalid must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy FieldValueNotSupported",
                "spec.behavior.scaleUp.policies FieldValueRequired must specify at least one Policy",
                "spec.behavior.scaleDown.policies[0].type FieldValueNotSupported",
                "spec.behavior.scaleDown.policies[0].value FieldValueInvalid",
                "spec.behavior.scaleDown.policies[0].periodSeconds FieldValueInvalid must be less",
            ],
        ),
    ];
    for (change, want) in table {
        assert_causes(&AutoscalerStrategy.validate(&autoscaler(change)), &want);
    }
    // What was taken once stays, but another kind is looked at.
    let core = |kind: &str| autoscaler(json!({"scaleTargetRef": {"kind": kind, "name": "web"}}));
    assert_causes(
        &AutoscalerStrategy.validate_update(&core("Deployment"), &core("Deployment")),
        &[],
    );
    assert_causes(
        &AutoscalerStrategy.validate_update(&core("StatefulSet"), &core("Deployment")),
        &["spec.scaleTargetRef.apiVersion FieldValueInvalid"],
    );
    let mut status = autoscaler(json!({}));
    status.status = serde_json::from_value(json!({"desiredReplicas": -1, "conditions": [
        {"type": "A", "status": "True", "observedGeneration": -1},
    ]}))
    .unwrap();
    assert_causes(
        &AutoscalerStrategy.validate_status_update(&status, &autoscaler(json!({}))),
        &[
            "status.conditions[0].observedGeneration FieldValueInvalid",
            "status.desiredReplicas FieldValueInvalid",
        ],
    );
    let mut served = AutoscalerView::from_stored(autoscaler(json!({})));
    let name = "autoscaling.alpha.kubernetes.io/metrics".to_owned();
    let annotations = served.metadata.annotations.get_or_insert_default();
    annotations.insert(name, "no".to_owned());
    assert_causes(
        &Viewed(AutoscalerView).validate(&served),
        &["metadata.annotations[autoscaling.alpha.kubernetes.io/metrics] FieldValueInvalid"],
    );
}

#[test]
fn rows() {
    let row = AutoscalerStrategy.row(&rich(), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(row[1], Cell::from("Deployment/web"));
    assert_eq!(
        row[2],
        Cell::from("cpu: 40%/50%, memory: <unknown>/1Gi + 6 more...")
    );
    assert_eq!(row[3..6], [Cell::from("2"), 5.into(), 3.into()]);
}
