//! Tables for StatefulSets.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::validation::testing::assert_causes;

fn set(change: Value) -> StatefulSet {
    let mut spec = json!({
        "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}},
    });
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let mut set =
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
    StatefulSetStrategy.set_defaults(&mut set);
    set
}

#[test]
fn defaults() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let spec = serde_json::to_value(set(json!({"volumeClaimTemplates": claims})).spec).unwrap();
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
    );
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    assert_eq!(spec["revisionHistoryLimit"], 10);
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    assert_eq!(claim["status"]["phase"], "Pending");
}

#[test]
fn validation() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"podManagementPolicy": "Random", "replicas": -1, "ordinals": {"start": -1}}),
            vec![
                "spec.podManagementPolicy FieldValueInvalid must be 'OrderedReady' or 'Parallel'",
                "spec.replicas FieldValueInvalid",
                "spec.ordinals.start FieldValueInvalid",
            ],
        ),
        (
            json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {}}, "selector": {"matchLabels": {}}}),
            vec![
                "spec.updateStrategy.rollingUpdate FieldValueInvalid only allowed for updateStrategy 'RollingUpdate'",
                "spec.selector FieldValueInvalid empty selector is invalid for statefulset",
            ],
        ),
        (
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "0%", "partition": -1}}, "selector": {"matchLabels": {"app": "x"}}}),
            vec![
                "spec.updateStrategy.rollingUpdate.partition FieldValueInvalid",
                "spec.updateStrategy.rollingUpdate.maxUnavailable FieldValueInvalid cannot be 0",
                "spec.template.metadata.labels FieldValueInvalid `selector` does not match",
            ],
        ),
    ];
    for (change, want) in table {
        assert_causes(&StatefulSetStrategy.validate(&set(change)), &want);
    }
}

#[test]
fn pods_and_claims_are_looked_at() {
    let pod = |mounted: &str| {
        let mounts = json!([{"name": mounted, "mountPath": "/data"}]);
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "hostname": "_", "containers": [{"name": "c", "image": "app:v1", "volumeMounts": mounts}],
            },
        })
    };
    let claim = |requests: Value| json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": requests}}}]);
    let gigabyte = claim(json!({"storage": "1Gi"}));
    let table: Vec<(Value, Vec<&str>)> = vec![
        (
            json!({"template": pod("data"), "volumeClaimTemplates": gigabyte}),
            vec![],
        ),
        (
            json!({"template": pod("other"), "volumeClaimTemplates": gigabyte}),
            vec!["spec.template.spec.containers[0].volumeMounts[0].name FieldValueNotFound"],
        ),
        (
            json!({"volumeClaimTemplates": claim(json!({}))}),
            vec!["spec.volumeClaimTemplates[0].spec.resources[storage] FieldValueRequired"],
        ),
        (
            json!({"serviceName": "web.example"}),
            vec!["spec.serviceName FieldValueInvalid must not contain dots"],
        ),
        (
            json!({"selector": {}}),
            vec![
                "spec.selector FieldValueRequired",
                "spec.template.metadata.labels FieldValueInvalid `selector` does not match",
            ],
        ),
    ];
    for (change, want) in table {
        assert_causes(&StatefulSetStrategy.validate(&set(change)), &want);
    }
    let bad = set(json!({"template": pod("other")}));
    assert_causes(&StatefulSetStrategy.validate_update(&bad, &bad), &[]);
    let warnings = StatefulSetStrategy.warnings(&set(json!({"revisionHistoryLimit": -1})));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn updates() {
    let errors = |change| StatefulSetStrategy.validate_update(&set(change), &set(json!({})));
    assert_causes(
        &errors(json!({"replicas": 3, "minReadySeconds": 2, "revisionHistoryLimit": -1})),
        &[],
    );
    assert_causes(
        &errors(json!({"serviceName": "other"})),
        &["spec.serviceName FieldValueInvalid field is immutable"],
    );
}
