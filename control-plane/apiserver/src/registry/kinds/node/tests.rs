//! Tables for Nodes.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::validation::testing::assert_causes;

fn node(value: Value) -> Node {
    let mut node = serde_json::from_value(value).unwrap();
    NodeStrategy.set_defaults(&mut node);
    node
}

#[test]
fn defaults() {
    let object = node(
        json!({"spec": {"podCIDR": "10.42.0.0/24"}, "status": {"capacity": {"cpu": "2000m"}}}),
    );
    assert_eq!(object.spec.unwrap().pod_cidrs.unwrap(), ["10.42.0.0/24"]);
    assert_eq!(object.status.unwrap().allocatable.unwrap()["cpu"].0, "2");
}

#[test]
fn validation() {
    let object = node(json!({
        "spec": {"podCIDRs": ["10.42.0.0/24", "10.43.0.0/24", "x"], "taints": [{"key": "a", "effect": "Now"}]},
        "status": {"capacity": {"pods": "-1"}},
    }));
    assert_causes(
        &NodeStrategy.validate(&object),
        &[
            "metadata.taints[0].effect FieldValueNotSupported",
            "status.capacity.pods FieldValueInvalid must be greater than or equal to 0",
            "status.allocatable.pods FieldValueInvalid must be greater than or equal to 0",
            "spec.podCIDRs[2] FieldValueInvalid must be a valid CIDR value",
            "spec.podCIDRs FieldValueInvalid may specify no more than one CIDR",
        ],
    );
    let old = node(json!({"spec": {"podCIDR": "10.42.0.0/24", "providerID": "a"}}));
    let new = node(json!({"spec": {"podCIDR": "10.42.1.0/24", "providerID": "b"}}));
    assert_causes(
        &NodeStrategy.validate_update(&new, &old),
        &[
            "spec.podCIDRs FieldValueForbidden",
            "spec.providerID FieldValueInvalid field cannot be modified once set",
        ],
    );
    assert!(
        NodeStrategy
            .validate_update(&new, &node(json!({})))
            .is_empty()
    );
}

#[test]
fn features_are_listed_in_order() {
    let object = node(json!({"status": {"declaredFeatures": ["B/a", "A", "A", "a"]}}));
    assert_causes(
        &NodeStrategy.validate(&object),
        &[
            "status.declaredFeatures[1] FieldValueInvalid list must be sorted alphabetically",
            "status.declaredFeatures[2] FieldValueDuplicate",
            "status.declaredFeatures[3] FieldValueInvalid invalid feature name \"a\"",
        ],
    );
}

#[test]
fn what_is_no_more_is_dropped() {
    let source = json!({"configMap": {"name": "c", "namespace": "n", "kubeletConfigKey": "k"}});
    let mut object = node(json!({
        "spec": {"configSource": source, "externalID": "x"},
        "status": {"config": {"error": "e"}},
    }));
    let old = object.clone();
    NodeStrategy.prepare_for_create(&mut object);
    assert!(object.spec.as_ref().unwrap().config_source.is_none());
    assert!(object.status.as_ref().unwrap().config.is_none());
    assert_eq!(NodeStrategy.warnings(&object).len(), 1);
    let mut kept = old.clone();
    NodeStrategy.prepare_for_update(&mut kept, &old);
    assert!(kept.spec.unwrap().config_source.is_some());
}

#[test]
fn rows() {
    let object = node(json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64"},
        },
    }));
    let cells = NodeStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
    let want = [
        "n",
        "NotReady,SchedulingDisabled",
        "control-plane,edge",
        "<unknown>",
        "v1.37.0",
        "10.0.0.1",
        "<none>",
        "Debian",
        "6.1 (amd64)",
        "<unknown>",
    ];
    assert_eq!(cells, want.map(Cell::from));
    assert_eq!(cells.len(), NodeStrategy.columns().len());
}
