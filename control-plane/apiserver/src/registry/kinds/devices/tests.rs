#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::slice_tests::slice;
use super::*;
use crate::registry::strategy::{Cell, Strategy};
use crate::validation::testing::assert_causes;

/// An object with its defaults.
pub(super) fn made<S: Strategy>(strategy: &S, fields: &Value) -> S::Object {
    let mut value = json!({"metadata": {"name": "a"}});
    for (name, field) in fields.as_object().unwrap() {
        value[name] = field.clone();
    }
    let mut object = serde_json::from_value(value).unwrap();
    strategy.set_defaults(&mut object);
    object
}

fn claim(devices: &Value) -> Value {
    json!({"spec": {"devices": devices}})
}

#[track_caller]
fn assert_claim(devices: &Value, want: &[&str]) {
    let object = made(&ResourceClaimStrategy, &claim(devices));
    assert_causes(&ResourceClaimStrategy.validate(&object), want);
    let template = json!({ "spec": claim(devices) });
    let template = made(&ResourceClaimTemplateStrategy, &template);
    let want: Vec<String> = want.iter().map(|want| format!("spec.{want}")).collect();
    let want: Vec<&str> = want.iter().map(String::as_str).collect();
    assert_causes(&ResourceClaimTemplateStrategy.validate(&template), &want);
}

#[test]
fn one_device_is_claimed_where_nothing_else_is_said() {
    let tolerations = json!([{"key": "k", "effect": "NoExecute"}]);
    let requests = json!([
        {"name": "a", "exactly": {"deviceClassName": "c", "tolerations": tolerations, "capacity": {"requests": {"memory": "1024Mi", "Any name": "1"}}}},
        {"name": "b", "firstAvailable": [{"name": "all", "deviceClassName": "c", "allocationMode": "All"}, {"name": "one", "deviceClassName": "c"}]},
    ]);
    let object = made(
        &ResourceClaimStrategy,
        &claim(&json!({ "requests": requests })),
    );
    assert_causes(&ResourceClaimStrategy.validate(&object), &[]);
    let object = serde_json::to_value(&object).unwrap();
    let requests = &object["spec"]["devices"]["requests"];
    let exactly = &requests[0]["exactly"];
    assert_eq!(
        (&exactly["allocationMode"], &exactly["count"]),
        (&json!("ExactCount"), &json!(1))
    );
    assert_eq!(exactly["tolerations"][0]["operator"], "Equal");
    assert_eq!(exactly["capacity"]["requests"]["memory"], "1Gi");
    assert_eq!(requests[1]["firstAvailable"][0]["count"], Value::Null);
    assert_eq!(requests[1]["firstAvailable"][1]["count"], 1);
    assert_eq!(object["status"], json!({}));
}

#[test]
fn requests_for_devices() {
    let wrong = json!([
        {"name": "A"},
        {"name": "b", "exactly": {"deviceClassName": "", "allocationMode": "Some", "selectors": [{}]}},
        {"name": "b", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 1}, "firstAvailable": [{"name": "x", "deviceClassName": "c"}]},
        {"name": "c", "exactly": {"deviceClassName": "C", "allocationMode": "All", "count": 1, "tolerations": [{"operator": "Exists", "value": "v", "effect": "Never"}, {"operator": "Is", "key": "-"}]}},
        {"name": "d", "firstAvailable": [{"name": "x", "deviceClassName": "c", "count": -1}, {"name": "x", "deviceClassName": "c"}]},
    ]);
    assert_claim(
        &json!({ "requests": wrong }),
        &[
            "spec.devices.requests[0].name FieldValueInvalid a lowercase RFC 1123 label",
            "spec.devices.requests[0] FieldValueRequired exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[1].exactly.deviceClassName FieldValueRequired",
            "spec.devices.requests[1].exactly.selectors[0].cel FieldValueRequired",
            "spec.devices.requests[1].exactly.allocationMode FieldValueNotSupported",
            "spec.devices.requests[2] FieldValueInvalid exactly one of `exactly` or `firstAvailable` is required, but multiple",
            "spec.devices.requests[3].exactly.deviceClassName FieldValueInvalid a lowercase RFC 1123 subdomain",
            "spec.devices.requests[3].exactly.count FieldValueInvalid must not be specified when allocationMode is 'All'",
            "spec.devices.requests[3].exactly.tolerations[0].value FieldValueInvalid must be empty for operator `Exists`",
            "spec.devices.requests[3].exactly.tolerations[0].effect FieldValueNotSupported",
            "spec.devices.requests[3].exactly.tolerations[1].key FieldValueInvalid",
            "spec.devices.requests[3].exactly.tolerations[1].operator FieldValueNotSupported",
            "spec.devices.requests[4].firstAvailable[0].count FieldValueInvalid must be greater than zero",
            "spec.devices.requests[4].firstAvailable[1] FieldValueDuplicate",
            "spec.devices.requests[2] FieldValueDuplicate",
        ],
    );
    let many = vec![json!({"name": "a", "exactly": {"deviceClassName": "c"}}); 33];
    assert_claim(
        &json!({ "requests": many }),
        &["spec.devices.requests FieldValueTooMany must have at most 32 items"],
    );
}

#[test]
fn selectors_are_expressions_about_devices() {
    let selected = |expression: &str| {
        let selectors = json!([{"cel": {"expression": expression}}]);
        json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "selectors": selectors}}]})
    };
    assert_claim(
        &selected("device.driver == 'a' && device.attributes['a'].b"),
        &[],
    );
    assert_claim(&selected("device.attributes['a'].b"), &[]);
    let at = "spec.devices.requests[0].exactly.selectors[0].cel.expression";
    for (expression, want) in [
        (
            "device.driver",
            "FieldValueInvalid must evaluate to bool or the unknown type, not string",
        ),
        (
            "device.",
            "FieldValueInvalid compilation failed: ERROR: <input>:1:",
        ),
        (
            "object.a",
            "FieldValueInvalid compilation failed: ERROR: <input>:1:",
        ),
        (
            &*" ".repeat(10241),
            "FieldValueTooLong may not be more than 10240 bytes",
        ),
    ] {
        assert_claim(&selected(expression), &[&format!("{at} {want}")]);
    }
}

#[test]
fn constraints_and_configuration_name_requests() {
    let requests = json!([
        {"name": "a", "exactly": {"deviceClassName": "c"}},
        {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}]},
    ]);
    let with = |constraints: Value, config: Value| json!({"requests": requests, "constraints": constraints, "config": config});
    let opaque = json!({"driver": "a.b", "parameters": {"k": 1}});
    assert_claim(
        &with(
            json!([{"requests": ["a", "b", "b/x"], "matchAttribute": "a.b/c"}, {"distinctAttribute": "a/d"}]),
            json!([{"requests": ["a"], "opaque": opaque}]),
        ),
        &[],
    );
    assert_claim(
        &with(
            json!([{"requests": ["x", "a/x", "a/b/c", "a", "a"]}, {"matchAttribute": "c"}, {"matchAttribute": "a/b", "distinctAttribute": "d"}]),
            json!([{}, {"opaque": {"driver": "", "parameters": null}}, {"opaque": {"driver": "a", "parameters": [1]}}]),
        ),
        &[
            "spec.devices.constraints[0].requests[0] FieldValueInvalid must be the name of a request",
            "spec.devices.constraints[0].requests[1] FieldValueInvalid must be the name of a request",
            "spec.devices.constraints[0].requests[2] FieldValueInvalid must be the name of a request",
            "spec.devices.constraints[0].requests[4] FieldValueDuplicate",
            "spec.devices.constraints[0] FieldValueRequired exactly one of",
            "spec.devices.constraints[1].matchAttribute FieldValueInvalid a fully qualified name",
            "spec.devices.constraints[2].distinctAttribute FieldValueInvalid a fully qualified name",
            "spec.devices.config[0].opaque FieldValueRequired",
            "spec.devices.config[1].opaque.driver FieldValueRequired",
            "spec.devices.config[1].opaque.parameters FieldValueRequired",
            "spec.devices.config[2].opaque.parameters FieldValueInvalid must be a valid JSON object",
        ],
    );
}

#[test]
fn what_is_claimed_stays() {
    let one = |class: &str| {
        let requests = json!([{"name": "a", "exactly": {"deviceClassName": class}}]);
        json!({ "requests": requests })
    };
    let strategy = ResourceClaimStrategy;
    let (new, old) = (
        made(&strategy, &claim(&one("c"))),
        made(&strategy, &claim(&one("d"))),
    );
    assert_causes(
        &strategy.validate_update(&new, &old),
        &["spec FieldValueInvalid field is immutable"],
    );
    let template = ResourceClaimTemplateStrategy;
    let of = |class: &str| made(&template, &json!({ "spec": claim(&one(class)) }));
    assert_causes(&template.validate_update(&of("c"), &of("c")), &[]);
    assert_causes(
        &template.validate_update(&of("c"), &of("d")),
        &["spec FieldValueInvalid field is immutable"],
    );
    let bad = json!({"spec": {"metadata": {"name": "x", "labels": {"": "a"}, "annotations": {"a b": ""}}}});
    assert_causes(
        &template.validate(&made(&template, &bad)),
        &[
            "spec.metadata.annotations FieldValueInvalid",
            "spec.metadata.labels FieldValueInvalid",
            "spec.metadata.labels FieldValueInvalid",
            "spec.metadata.name FieldValueForbidden cannot be set",
        ],
    );
}

fn with_status(status: &Value) -> k8s_openapi::api::resource::v1::ResourceClaim {
    let requests = json!([{"name": "a", "exactly": {"deviceClassName": "c"}}]);
    let mut fields = claim(&json!({ "requests": requests }));
    fields["status"] = status.clone();
    made(&ResourceClaimStrategy, &fields)
}

#[test]
fn allocations() {
    let strategy = ResourceClaimStrategy;
    let none = with_status(&json!({}));
    let result = json!({"request": "a", "driver": "d", "pool": "p", "device": "gpu-0"});
    let consumer = json!({"resource": "pods", "name": "p", "uid": "1"});
    let told = json!({"driver": "d", "pool": "p", "device": "gpu-0", "networkData": {"ips": ["10.1.1.2/24", "fd00::1/64"]}});
    let got = json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": [consumer], "devices": [told]});
    let allocated = with_status(&got);
    assert_causes(&strategy.validate_status_update(&allocated, &none), &[]);
    assert_causes(&strategy.validate_status_update(&none, &allocated), &[]);
    let nothing = with_status(&json!({"allocation": {}}));
    assert_causes(&strategy.validate_status_update(&nothing, &none), &[]);
    assert_causes(
        &strategy.validate_status_update(&nothing, &allocated),
        &["status.allocation FieldValueInvalid field is immutable"],
    );
    let reserved = with_status(
        &json!({"reservedFor": [consumer, {"resource": "", "name": "", "uid": ""}, consumer]}),
    );
    assert_causes(
        &strategy.validate_status_update(&reserved, &none),
        &[
            "status.reservedFor[1].resource FieldValueRequired",
            "status.reservedFor[1].name FieldValueRequired",
            "status.reservedFor[1].uid FieldValueRequired",
            "status.reservedFor[2] FieldValueDuplicate",
            "status.reservedFor FieldValueForbidden may not be specified when `allocated` is not set",
        ],
    );
    let mut deleted = allocated.clone();
    deleted.metadata.deletion_timestamp = Some(crate::registry::meta::now());
    let mut before = allocated.clone();
    before.status.as_mut().unwrap().reserved_for = None;
    assert_causes(
        &strategy.validate_status_update(&deleted, &before),
        &["status.reservedFor FieldValueForbidden new entries may not be added"],
    );
    let wrong = with_status(&json!({
        "allocation": {
            "devices": {
                "results": [{"request": "b", "driver": "", "pool": "", "device": "", "shareID": "x", "bindingConditions": ["c", "c"], "bindingFailureConditions": ["c"]}],
                "config": [{"source": "Elsewhere", "requests": ["a", "a"]}],
            },
            "nodeSelector": {"nodeSelectorTerms": []},
        },
        "devices": [{"driver": "e", "pool": "p", "device": "x", "data": 1, "networkData": {"ips": ["10.1.1.2", "fd00::0/64"], "interfaceName": "i".repeat(257)}}],
    }));
    assert_causes(
        &strategy.validate_status_update(&wrong, &none),
        &[
            "status.devices[0] FieldValueInvalid must be an allocated device in the claim",
            "status.devices[0].data FieldValueInvalid must be a valid JSON object",
            "status.devices[0].networkData.interfaceName FieldValueTooLong",
            "status.devices[0].networkData.ips[0] FieldValueInvalid must be a valid address in CIDR form",
            "status.devices[0].networkData.ips[1] FieldValueInvalid must be in canonical form (\"fd00::/64\")",
            "status.allocation.devices.results[0].request FieldValueInvalid must be the name of a request",
            "status.allocation.devices.results[0].driver FieldValueRequired",
            "status.allocation.devices.results[0].pool FieldValueRequired",
            "status.allocation.devices.results[0].device FieldValueInvalid",
            "status.allocation.devices.results[0].bindingConditions[1] FieldValueDuplicate",
            "status.allocation.devices.results[0].bindingFailureConditions[0] FieldValueInvalid bindingFailureConditions must not overlap",
            "status.allocation.devices.results[0].shareID FieldValueInvalid must be a lowercase UUID",
            "status.allocation.devices.config[0].source FieldValueNotSupported",
            "status.allocation.devices.config[0].requests[1] FieldValueDuplicate",
            "status.allocation.devices.config[0].opaque FieldValueRequired",
            "status.allocation.nodeSelector.nodeSelectorTerms FieldValueRequired",
        ],
    );
}

#[test]
fn what_is_told_of_devices_goes_with_them() {
    let strategy = ResourceClaimStrategy;
    let device = json!({"driver": "d", "pool": "p", "device": "x"});
    let mut result = device.clone();
    result["request"] = json!("a");
    let old = with_status(
        &json!({"allocation": {"devices": {"results": [result]}}, "devices": [device]}),
    );
    let mut new = with_status(&json!({"devices": [device]}));
    new.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    strategy.prepare_for_status_update(&mut new, &old);
    assert_eq!(new.status.as_ref().unwrap().devices, None);
    assert_eq!(new.metadata.labels, None);
    let state = |status: Value, deleted: bool| {
        let mut object = with_status(&status);
        object.metadata.deletion_timestamp = deleted.then(crate::registry::meta::now);
        strategy.row(&object, jiff::Timestamp::UNIX_EPOCH)[1].clone()
    };
    let reserved =
        json!({"allocation": {}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}]});
    assert_eq!(state(json!({}), false), Cell::from("pending"));
    assert_eq!(
        state(json!({"allocation": {}}), false),
        Cell::from("allocated")
    );
    assert_eq!(
        state(reserved, true),
        Cell::from("deleted,allocated,reserved")
    );
    assert_eq!(state(json!({}), true), Cell::from("deleted"));
}

#[test]
fn classes() {
    let strategy = DeviceClassStrategy;
    let class = |spec: &Value| made(&strategy, &json!({ "spec": spec }));
    let wrong = json!({
        "selectors": [{"cel": {"expression": "gone"}}], "config": [{"opaque": {"driver": "a", "parameters": {"k": "v".repeat(10240)}}}],
        "extendedResourceName": "cpu",
    });
    let wrong = class(&wrong);
    let name = "spec.extendedResourceName FieldValueInvalid must be a valid extended resource name";
    assert_causes(
        &strategy.validate(&wrong),
        &[
            "spec.selectors[0].cel.expression FieldValueInvalid compilation failed",
            "spec.config[0].opaque.parameters FieldValueTooLong",
            name,
        ],
    );
    assert_causes(&strategy.validate_update(&wrong, &wrong), &[name]);
    let right = json!({"selectors": [{"cel": {"expression": "false"}}], "extendedResourceName": "example.com/gpu"});
    assert_causes(&strategy.validate(&class(&right)), &[]);
}

#[test]
fn fields_of_features_that_are_off_are_dropped() {
    let devices = json!([{"name": "a", "attributes": {"b": {"ints": [1]}}, "nodeAllocatableResources": {"cpu": {}}, "consumesCounters": [{"counterSet": "s", "counters": {}, "compatibilityGroups": ["g"]}]}]);
    let mut object = made(
        &ResourceSliceStrategy,
        &slice(
            &json!({"devices": devices, "skipNodeOperations": ["*"], "partitionTypeAttribute": "a/b"}),
        ),
    );
    ResourceSliceStrategy.prepare_for_create(&mut object);
    let spec = serde_json::to_value(&object.spec).unwrap();
    assert_eq!(
        spec["devices"],
        json!([{"name": "a", "attributes": {"b": {}}, "consumesCounters": [{"counterSet": "s", "counters": {}}]}])
    );
    assert_eq!(
        (&spec["skipNodeOperations"], &spec["partitionTypeAttribute"]),
        (&Value::Null, &Value::Null)
    );
    let derived = json!([{"name": "a/b", "expression": "1"}]);
    let requests =
        json!([{"name": "a", "exactly": {"deviceClassName": "c", "derivedAttributes": derived}}]);
    let mut object = made(
        &ResourceClaimStrategy,
        &claim(&json!({ "requests": requests })),
    );
    ResourceClaimStrategy.prepare_for_create(&mut object);
    let spec = serde_json::to_value(&object.spec).unwrap();
    assert_eq!(
        spec["devices"]["requests"][0]["exactly"].get("derivedAttributes"),
        None
    );
}

#[test]
fn taint_rules() {
    let strategy = DeviceTaintRuleStrategy;
    let rule = |spec: Value| made(&strategy, &json!({ "spec": spec }));
    let right = rule(
        json!({"taint": {"key": "a", "effect": "NoExecute"}, "deviceSelector": {"driver": "d", "pool": "a/b", "device": "x"}}),
    );
    assert_causes(&strategy.validate(&right), &[]);
    let wrong = rule(
        json!({"taint": {"key": "a", "effect": ""}, "deviceSelector": {"driver": "", "pool": "", "device": "X"}}),
    );
    assert_causes(
        &strategy.validate(&wrong),
        &[
            "spec.deviceSelector.driver FieldValueRequired",
            "spec.deviceSelector.pool FieldValueRequired",
            "spec.deviceSelector.device FieldValueInvalid",
            "spec.taint.effect FieldValueRequired",
        ],
    );
    let condition = |kind: usize| json!({"type": format!("A{kind}"), "status": "True", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions: Vec<Value> = (0..9).map(condition).collect();
    let mut many = right.clone();
    many.status = serde_json::from_value(json!({ "conditions": conditions })).unwrap();
    assert_causes(
        &strategy.validate_status_update(&many, &right),
        &["status.conditions FieldValueTooMany must have at most 8 items"],
    );
}
