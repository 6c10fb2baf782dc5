#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::registry::strategy::{ApiType, Cell, ErrorList, Strategy};
use crate::validation::testing::assert_causes;

/// An object with its defaults.
fn made<S: Strategy>(strategy: &S, fields: &Value) -> S::Object {
    let mut value = json!({"metadata": {"name": "a.example.com"}});
    for (name, field) in fields.as_object().unwrap() {
        value[name] = field.clone();
    }
    let mut object = serde_json::from_value(value).unwrap();
    strategy.set_defaults(&mut object);
    object
}

fn found<S: Strategy>(strategy: &S, fields: &Value) -> ErrorList {
    strategy.validate(&made(strategy, fields))
}

fn shown<T: ApiType>(object: &T) -> Value {
    serde_json::to_value(object).unwrap()
}

fn webhook(change: Value) -> Value {
    let mut webhook = json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "n", "namespace": "s"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    });
    for (name, field) in change.as_object().unwrap() {
        webhook[name] = field.clone();
    }
    json!({ "webhooks": [webhook] })
}

#[test]
fn webhooks_have_defaults() {
    let mutating = made(&MutatingWebhookStrategy, &webhook(json!({})));
    let mutating = &shown(&mutating)["webhooks"][0];
    assert_eq!(mutating["reinvocationPolicy"], "Never");
    let validating = made(&ValidatingWebhookStrategy, &webhook(json!({})));
    let validating = &shown(&validating)["webhooks"][0];
    assert_eq!(validating["reinvocationPolicy"], Value::Null);
    for webhook in [mutating, validating] {
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["matchPolicy"], "Equivalent");
        assert_eq!(webhook["timeoutSeconds"], 10);
        assert_eq!(webhook["namespaceSelector"], json!({}));
        assert_eq!(webhook["objectSelector"], json!({}));
        assert_eq!(webhook["rules"][0]["scope"], "*");
        assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
    }
}

#[test]
fn webhooks() {
    let condition = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    let table: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (
            json!({"matchConditions": [condition("a", " request.operation == 'CREATE' && authorizer.requestResource.check('get').allowed() ")]}),
            &[],
        ),
        (
            json!({"name": "example.com", "failurePolicy": "Wait", "matchPolicy": "Some", "sideEffects": "Some", "timeoutSeconds": 31,
                "admissionReviewVersions": ["v2", "v2", "V"], "namespaceSelector": {"matchLabels": {"": ""}}}),
            &[
                "webhooks[0].name FieldValueInvalid should be a domain with at least three segments",
                "webhooks[0].failurePolicy FieldValueNotSupported supported values: \"Fail\", \"Ignore\"",
                "webhooks[0].matchPolicy FieldValueNotSupported supported values: \"Equivalent\", \"Exact\"",
                "webhooks[0].sideEffects FieldValueNotSupported supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].timeoutSeconds FieldValueInvalid the timeout value must be between 1 and 30 seconds",
                "webhooks[0].namespaceSelector.matchLabels FieldValueInvalid",
                "webhooks[0].namespaceSelector.matchLabels FieldValueInvalid",
                "webhooks[0].admissionReviewVersions[1] FieldValueInvalid duplicate version",
                "webhooks[0].admissionReviewVersions[2] FieldValueInvalid a DNS-1035 label",
                "webhooks[0].admissionReviewVersions FieldValueInvalid must include at least one of v1, v1beta1",
            ],
        ),
        (
            json!({"name": "", "sideEffects": "", "admissionReviewVersions": [], "clientConfig": {}}),
            &[
                "webhooks[0].name FieldValueRequired",
                "webhooks[0].sideEffects FieldValueRequired must specify one of None, NoneOnDryRun",
                "webhooks[0].clientConfig FieldValueRequired exactly one of url or service is required",
                "webhooks[0].admissionReviewVersions FieldValueRequired must specify one of v1, v1beta1",
            ],
        ),
        (
            json!({"matchConditions": [condition("a", "object.spec.count"), condition("a", "params.a"), condition("", " "), condition("a b", "[][`")]}),
            &[
                "webhooks[0].matchConditions[0].expression FieldValueInvalid must evaluate to bool but got dyn",
                "webhooks[0].matchConditions[1].expression FieldValueInvalid compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
                "webhooks[0].matchConditions[1].name FieldValueDuplicate",
                "webhooks[0].matchConditions[2].expression FieldValueRequired",
                "webhooks[0].matchConditions[2].name FieldValueRequired",
                "webhooks[0].matchConditions[3].expression FieldValueInvalid compilation failed: ",
                "webhooks[0].matchConditions[3].name FieldValueInvalid name part must consist of",
            ],
        ),
    ];
    for (change, want) in table {
        let fields = webhook(change);
        assert_causes(&found(&ValidatingWebhookStrategy, &fields), want);
        assert_causes(&found(&MutatingWebhookStrategy, &fields), want);
    }
    let again = webhook(json!({"reinvocationPolicy": "Always"}));
    assert_causes(
        &found(&MutatingWebhookStrategy, &again),
        &[
            "webhooks[0].reinvocationPolicy FieldValueNotSupported supported values: \"IfNeeded\", \"Never\"",
        ],
    );
    let one = webhook(json!({}))["webhooks"][0].clone();
    let twice = json!({ "webhooks": [one, one] });
    assert_causes(
        &found(&ValidatingWebhookStrategy, &twice),
        &["webhooks[1].name FieldValueDuplicate"],
    );
    let many = |webhooks: usize, expression: &str| {
        let condition = |i: usize| condition(&format!("c{i}"), expression);
        let conditions: Vec<Value> = (0..64).map(condition).collect();
        let one = |i: usize| {
            let name = format!("a{i}.example.com");
            let fields = json!({"name": name, "matchConditions": conditions});
            webhook(fields)["webhooks"][0].clone()
        };
        json!({"webhooks": (0..webhooks).map(one).collect::<Vec<_>>()})
    };
    let long = format!("'{}' == ''", "a".repeat(5_000));
    for (fields, want) in [
        (many(15, "true"), &[][..]),
        (many(16, "true"), &["webhooks FieldValueTooMany"]),
        (
            many(1, &long),
            &["webhooks FieldValueInvalid expressions must not exceed 262144 bytes in all"],
        ),
    ] {
        assert_causes(&found(&ValidatingWebhookStrategy, &fields), want);
        assert_causes(&found(&MutatingWebhookStrategy, &fields), want);
    }
}

#[test]
fn conditions_that_were_taken_once_stay() {
    let strategy = ValidatingWebhookStrategy;
    let wrong = json!({"matchConditions": [{"name": "a", "expression": "gone"}]});
    let old = made(&strategy, &webhook(wrong.clone()));
    let mut changed = wrong;
    changed["timeoutSeconds"] = json!(5);
    let new = made(&strategy, &webhook(changed.clone()));
    assert_causes(&strategy.validate_update(&new, &old), &[]);
    assert!(strategy.spec_changed(&new, &old));
    changed["matchConditions"][0]["expression"] = json!("gone.too");
    let new = made(&strategy, &webhook(changed));
    assert_causes(
        &strategy.validate_update(&new, &old),
        &["webhooks[0].matchConditions[0].expression FieldValueInvalid compilation failed"],
    );
}

fn policy(change: Value) -> Value {
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]});
    let mut spec = json!({"matchConstraints": {"resourceRules": [rule]}});
    for (name, field) in change.as_object().unwrap() {
        spec[name] = field.clone();
    }
    json!({ "spec": spec })
}

#[test]
fn policies_have_no_more_expressions_than_can_be_compiled() {
    let many = |count: usize, expression: &str| {
        let validations = vec![json!({"expression": expression}); count];
        policy(json!({"validations": validations}))
    };
    assert_causes(&found(&ValidatingPolicyStrategy, &many(1000, "true")), &[]);
    assert_causes(
        &found(&ValidatingPolicyStrategy, &many(1001, "true")),
        &["spec FieldValueTooMany"],
    );
    let long = format!("'{}' == ''", "a".repeat(90_000));
    assert_causes(
        &found(&ValidatingPolicyStrategy, &many(3, &long)),
        &["spec FieldValueInvalid expressions must not exceed 262144 bytes in all"],
    );
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}});
    let mutations =
        policy(json!({"reinvocationPolicy": "Never", "mutations": vec![mutation; 1001]}));
    assert_causes(
        &found(&MutatingPolicyStrategy, &mutations),
        &["spec FieldValueTooMany"],
    );
}

#[test]
fn validating_policies() {
    let table: Vec<(Value, &[&str])> = vec![
        (
            json!({
                "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "Limit"},
                "variables": [{"name": "count", "expression": "object.spec.replicas"}, {"name": "few", "expression": "variables.count < params.most"}],
                "matchConditions": [{"name": "a", "expression": "has(params.most)"}],
                "validations": [{"expression": "variables.few", "messageExpression": "'at most ' + string(params.most)", "reason": "Invalid"}],
                "auditAnnotations": [{"key": "k", "valueExpression": "variables.few ? null : 'many'"}],
            }),
            &[
                "spec.auditAnnotations[0].valueExpression FieldValueInvalid compilation failed: ERROR: <input>:1:",
            ],
        ),
        (
            json!({}),
            &[
                "spec.validations FieldValueRequired validations or auditAnnotations must contain",
                "spec.auditAnnotations FieldValueRequired validations or auditAnnotations must contain",
            ],
        ),
        (
            json!({
                "failurePolicy": "Wait", "paramKind": {"apiVersion": "a/b/c", "kind": "1"}, "matchConstraints": {"resourceRules": [], "matchPolicy": "Some"},
                "variables": [{"name": "a-b", "expression": "1"}, {"name": "", "expression": ""}, {"name": "c", "expression": "variables.d"}],
                "validations": [{"expression": "", "message": "a\nb", "messageExpression": " ", "reason": "Conflict"}, {"expression": "1", "message": " ", "messageExpression": "authorizer"}],
            }),
            &[
                "spec.failurePolicy FieldValueNotSupported",
                "spec.paramKind.apiVersion FieldValueInvalid unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind FieldValueInvalid may have mixed case, but should otherwise match: a DNS-1035",
                "spec.matchConstraints.matchPolicy FieldValueNotSupported",
                "spec.matchConstraints.resourceRules FieldValueRequired",
                "spec.variables[0].name FieldValueInvalid must be a valid CEL identifier",
                "spec.variables[1].name FieldValueRequired name is not specified",
                "spec.variables[1].expression FieldValueRequired expression is not specified",
                "spec.variables[2].expression FieldValueInvalid compilation failed: ERROR: <input>:1:",
                "spec.validations[0].expression FieldValueRequired expression is not specified",
                "spec.validations[0].messageExpression FieldValueInvalid must be non-empty if specified",
                "spec.validations[0].message FieldValueInvalid must not contain line breaks",
                "spec.validations[0].reason FieldValueNotSupported",
                "spec.validations[1].expression FieldValueInvalid must evaluate to bool but got int",
                "spec.validations[1].messageExpression FieldValueInvalid compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer'",
                "spec.validations[1].message FieldValueInvalid must be non-empty if specified",
            ],
        ),
        (
            json!({"auditAnnotations": [{"key": "a b", "valueExpression": " "}, {"key": "c", "valueExpression": "1"}, {"key": "c", "valueExpression": "null"}]}),
            &[
                "spec.auditAnnotations[0].key FieldValueInvalid name part must consist of",
                "spec.auditAnnotations[0].valueExpression FieldValueRequired valueExpression is not specified",
                "spec.auditAnnotations[1].valueExpression FieldValueInvalid must evaluate to one of [string null_type] but got int",
                "spec.auditAnnotations[2].key FieldValueDuplicate",
            ],
        ),
    ];
    for (change, want) in table {
        assert_causes(&found(&ValidatingPolicyStrategy, &policy(change)), want);
    }
    let none = json!({});
    assert_causes(
        &found(&ValidatingPolicyStrategy, &none),
        &[
            "spec.matchConstraints FieldValueRequired",
            "spec.validations FieldValueRequired",
            "spec.auditAnnotations FieldValueRequired",
        ],
    );
}

#[test]
fn the_status_of_a_policy() {
    let strategy = ValidatingPolicyStrategy;
    let status = json!({
        "typeChecking": {"expressionWarnings": [
            {"fieldRef": "spec.validations[0].expression", "warning": "w"}, {"fieldRef": "", "warning": ""}, {"fieldRef": "spec.a[0", "warning": "w"},
            {"fieldRef": "spec.a['b'].c..d[0,1][?(@.e == 'f')]", "warning": "w"}, {"fieldRef": "../x", "warning": "w"},
            {"fieldRef": "1.2.3", "warning": "w"}, {"fieldRef": "a[b]", "warning": "w"},
        ]},
        "conditions": [{"type": "", "status": "Yes", "reason": "A", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let object = made(&strategy, &json!({ "status": status }));
    assert_causes(
        &strategy.validate_status_update(&object, &object),
        &[
            "status.typeChecking.expressionWarnings[1].warning FieldValueRequired",
            "status.typeChecking.expressionWarnings[1].fieldRef FieldValueRequired",
            "status.typeChecking.expressionWarnings[2].fieldRef FieldValueInvalid invalid JSONPath: unterminated array",
            "status.typeChecking.expressionWarnings[4].fieldRef FieldValueInvalid invalid JSONPath: unrecognized character in action: U+002F '/'",
            "status.typeChecking.expressionWarnings[5].fieldRef FieldValueInvalid invalid JSONPath: cannot parse number 1.2.3",
            "status.typeChecking.expressionWarnings[6].fieldRef FieldValueInvalid invalid JSONPath: invalid array index b",
            "status.conditions[0].type FieldValueRequired is required",
            "status.conditions[0].status FieldValueNotSupported",
        ],
    );
}

#[test]
fn mutating_policies() {
    let apply = |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let patch = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
    let with = |mutations: Value| json!({"reinvocationPolicy": "IfNeeded", "mutations": mutations});
    let table: Vec<(Value, &[&str])> = vec![
        (
            with(json!([
                apply("Object{metadata: Object.metadata{annotations: {'a': 'b'}}}"),
                patch("[JSONPatch{op: 'add', path: '/a', value: object.spec}]"),
            ])),
            &[],
        ),
        (
            json!({"reinvocationPolicy": "Always", "mutations": []}),
            &[
                "spec.mutations FieldValueRequired mutations must contain at least one item",
                "spec.reinvocationPolicy FieldValueNotSupported",
            ],
        ),
        (
            with(json!([
                apply("{'a': 'b'}"),
                patch("Object{}"),
                {"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}},
                {"patchType": "Replace"},
                {"patchType": ""},
                apply(""),
            ])),
            &[
                "spec.mutations[0].applyConfiguration.expression FieldValueInvalid must evaluate to Object but got map(string, string)",
                "spec.mutations[1].jsonPatch.expression FieldValueInvalid must evaluate to list(JSONPatch) but got Object",
                "spec.mutations[2].applyConfiguration FieldValueRequired must be specified when patchType is ApplyConfiguration",
                "spec.mutations[2].jsonPatch FieldValueInvalid must not be specified when patchType is ApplyConfiguration",
                "spec.mutations[3].patchType FieldValueNotSupported",
                "spec.mutations[4].patchType FieldValueRequired",
                "spec.mutations[5].applyConfiguration.expression FieldValueRequired",
            ],
        ),
    ];
    for (change, want) in table {
        assert_causes(&found(&MutatingPolicyStrategy, &policy(change)), want);
    }
    let mut deleted = policy(with(json!([apply("Object{}")])));
    deleted["spec"]["matchConstraints"]["resourceRules"][0]["operations"] = json!(["DELETE"]);
    assert_causes(
        &found(&MutatingPolicyStrategy, &deleted),
        &[
            "spec.matchConstraints.resourceRules.operations FieldValueNotSupported supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
        ],
    );
}

#[test]
fn bindings() {
    let wrong = json!({
        "policyName": "A", "validationActions": ["Deny", "Warn", "Deny", "Log"],
        "paramRef": {"name": "a/b", "selector": {}}, "matchResources": {"matchPolicy": "Some"},
    });
    let both = [
        "spec.policyName FieldValueInvalid a lowercase RFC 1123 subdomain",
        "spec.paramRef.name FieldValueInvalid may not contain '/'",
        "spec.paramRef.name FieldValueForbidden name and selector are mutually exclusive",
        "spec.paramRef.selector FieldValueForbidden name and selector are mutually exclusive",
        "spec.paramRef.parameterNotFoundAction FieldValueRequired",
        "spec.matchResources.matchPolicy FieldValueNotSupported",
    ];
    let mutating = json!({ "spec": wrong });
    assert_causes(&found(&MutatingBindingStrategy, &mutating), &both);
    let actions = [
        "spec.validationActions[2] FieldValueDuplicate",
        "spec.validationActions[3] FieldValueNotSupported",
        "spec.validationActions FieldValueInvalid must not contain both Deny and Warn",
    ];
    let all = [&both[..], &actions[..]].concat();
    assert_causes(&found(&ValidatingBindingStrategy, &mutating), &all);
    let none = json!({"spec": {"policyName": "", "validationActions": [], "paramRef": {"parameterNotFoundAction": "Wait"}}});
    assert_causes(
        &found(&ValidatingBindingStrategy, &none),
        &[
            "spec.policyName FieldValueRequired",
            "spec.paramRef FieldValueRequired one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction FieldValueNotSupported supported values: \"Deny\", \"Allow\"",
            "spec.validationActions FieldValueRequired",
        ],
    );
}

#[test]
fn rows_tell_of_parameters() {
    let row = |params: Value| {
        let spec = json!({"policyName": "p", "paramRef": params, "validationActions": ["Deny"]});
        let object = made(&ValidatingBindingStrategy, &json!({ "spec": spec }));
        ValidatingBindingStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH)[2].clone()
    };
    let table = [
        (json!(null), "<unset>"),
        (json!({"name": "a"}), "*/a"),
        (json!({"name": "a", "namespace": "n"}), "n/a"),
        (
            json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}}),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}",
        ),
    ];
    for (params, want) in table {
        assert_eq!(row(params), Cell::from(want));
    }
    let kinds = policy(
        json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}]}),
    );
    let object = made(&ValidatingPolicyStrategy, &kinds);
    let cells = ValidatingPolicyStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        cells[1..3],
        [Cell::Json(1.into()), Cell::from("v1/ConfigMap")]
    );
}
