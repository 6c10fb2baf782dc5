#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::ResourceSliceStrategy;
use super::tests::made;
use crate::registry::strategy::Strategy;
use crate::validation::testing::assert_causes;

pub(super) fn slice(change: &Value) -> Value {
    let mut spec = json!({"driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}});
    for (name, field) in change.as_object().unwrap() {
        spec[name] = field.clone();
    }
    json!({ "spec": spec })
}

#[test]
fn slices() {
    let term = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    let table: Vec<(Value, &[&str])> = vec![
        (
            json!({"devices": [{"name": "a", "attributes": {"model": {"string": "m"}, "d.example.com/v": {"version": "1.0.0"}}, "capacity": {"memory": {"value": "1Gi"}}}]}),
            &[],
        ),
        (
            json!({"nodeName": null, "perDeviceNodeSelection": true, "devices": [{"name": "a", "allNodes": true}]}),
            &[],
        ),
        (
            json!({"sharedCounters": [{"name": "s", "counters": {"c": {"value": "1"}, "none": {}}}]}),
            &[],
        ),
        (
            json!({"driver": "", "pool": {"name": "", "generation": -1, "resourceSliceCount": 0}, "nodeName": "", "nodeSelector": {"nodeSelectorTerms": [term, term]}, "allNodes": false, "perDeviceNodeSelection": false}),
            &[
                "spec.driver FieldValueRequired",
                "spec.pool.name FieldValueRequired",
                "spec.pool.resourceSliceCount FieldValueInvalid must be greater than zero",
                "spec.pool.generation FieldValueInvalid must be greater than or equal to zero",
                "spec.nodeName FieldValueInvalid must be either unset or set to a non-empty string",
                "spec.allNodes FieldValueInvalid must be either unset or set to true",
                "spec.nodeSelector.nodeSelectorTerms FieldValueInvalid must have exactly one node selector term",
                "spec.perDeviceNodeSelection FieldValueInvalid must be either unset or set to true",
            ],
        ),
        (
            json!({"allNodes": true}),
            &[
                "spec FieldValueInvalid exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple",
            ],
        ),
        (
            json!({"nodeName": null}),
            &["spec FieldValueRequired exactly one of"],
        ),
        (
            json!({"devices": [], "sharedCounters": [{"name": "", "counters": {}}, {"name": "S", "counters": {"C": {"value": "x"}}}]}),
            &[
                "spec FieldValueInvalid only one of `sharedCounters` or `devices` is allowed",
                "spec.sharedCounters[0].name FieldValueRequired",
                "spec.sharedCounters[0].counters FieldValueRequired",
                "spec.sharedCounters[1].name FieldValueInvalid",
                "spec.sharedCounters[1].counters FieldValueInvalid",
                "spec.sharedCounters[1].counters[C].value FieldValueInvalid",
            ],
        ),
        (
            json!({"devices": [
                {"name": "A", "nodeName": "n", "attributes": {"a b": {}, "c": {"int": 1, "bool": true}, "d": {"version": "1", "string": null}, "e": {"string": "x".repeat(65)}}},
                {"name": "b", "capacity": {"memory": {"value": "1", "requestPolicy": {}}}, "taints": [{"key": "", "effect": "Some", "value": "a b"}], "bindingConditions": ["a"]},
                {"name": "b", "consumesCounters": [{"counterSet": "s", "counters": {"c": {"value": "1"}}}, {"counterSet": "s", "counters": {}}]},
            ]}),
            &[
                "spec.devices[0].name FieldValueInvalid",
                "spec.devices[0].attributes FieldValueInvalid a valid C identifier",
                "spec.devices[0].attributes[a b] FieldValueInvalid must specify one of: `int`, `bool`",
                "spec.devices[0].attributes[c] FieldValueInvalid must specify exactly one of: `int`, `bool`",
                "spec.devices[0].attributes[d].version FieldValueInvalid must be a string compatible with semver.org",
                "spec.devices[0].attributes[e].string FieldValueTooLong",
                "spec.devices[0] FieldValueInvalid `nodeName`, `nodeSelector` and `allNodes` can only be set if",
                "spec.devices[1].capacity[memory].requestPolicy FieldValueForbidden allowMultipleAllocations must be true",
                "spec.devices[1].taints[0].key FieldValueInvalid",
                "spec.devices[1].taints[0].key FieldValueInvalid",
                "spec.devices[1].taints[0].value FieldValueInvalid",
                "spec.devices[1].taints[0].effect FieldValueNotSupported",
                "spec.devices[1].bindingFailureConditions FieldValueInvalid bindingFailureConditions are required",
                "spec.devices[2].consumesCounters[1].counters FieldValueRequired",
                "spec.devices[2].consumesCounters[1] FieldValueDuplicate",
                "spec.devices[2] FieldValueDuplicate",
            ],
        ),
    ];
    for (change, want) in table {
        let object = made(&ResourceSliceStrategy, &slice(&change));
        assert_causes(&ResourceSliceStrategy.validate(&object), want);
    }
    let old = made(&ResourceSliceStrategy, &slice(&json!({})));
    let selected = [
        ("spec.nodeName", "n"),
        ("spec.driver", "d.example.com"),
        ("spec.pool.name", "p"),
    ];
    assert_eq!(
        ResourceSliceStrategy.selectable_fields(&old),
        selected.map(|(field, value)| (field, value.to_owned()))
    );
    let new = json!({"driver": "e", "nodeName": "m", "pool": {"name": "q", "generation": 2, "resourceSliceCount": 1}});
    let new = made(&ResourceSliceStrategy, &slice(&new));
    assert_causes(
        &ResourceSliceStrategy.validate_update(&new, &old),
        &[
            "spec.pool.name FieldValueInvalid field is immutable",
            "spec.driver FieldValueInvalid field is immutable",
            "spec.nodeName FieldValueInvalid field is immutable",
        ],
    );
    let upper = made(&ResourceSliceStrategy, &slice(&json!({"driver": "D"})));
    assert_eq!(ResourceSliceStrategy.warnings(&upper).len(), 1);
}
