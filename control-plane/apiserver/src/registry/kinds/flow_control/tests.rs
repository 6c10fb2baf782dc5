#![allow(clippy::unwrap_used)]

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::{Value, json};

use super::*;
use crate::registry::strategy::{Cell, Strategy};
use crate::validation::testing::assert_causes;

fn schema(name: &str, spec: Value) -> FlowSchema {
    let value = json!({"metadata": {"name": name}, "spec": spec});
    let mut schema = serde_json::from_value(value).unwrap();
    FlowSchemaStrategy.set_defaults(&mut schema);
    schema
}

fn level(name: &str, spec: Value) -> PriorityLevelConfiguration {
    let value = json!({"metadata": {"name": name}, "spec": spec});
    let mut level = serde_json::from_value(value).unwrap();
    PriorityLevelStrategy.set_defaults(&mut level);
    level
}

#[test]
fn what_is_mandatory_is_valid_and_stays() {
    for mut schema in schemas() {
        FlowSchemaStrategy.set_defaults(&mut schema);
        assert_causes(&FlowSchemaStrategy.validate(&schema), &[]);
        schema.spec.rules.as_mut().unwrap()[0].subjects[0]
            .group
            .as_mut()
            .unwrap()
            .name += "x";
        assert_causes(
            &FlowSchemaStrategy.validate(&schema),
            &["spec FieldValueInvalid spec of '"],
        );
    }
    let [mut exempt, mut rest] = levels();
    for level in [&mut exempt, &mut rest] {
        PriorityLevelStrategy.set_defaults(level);
        assert_causes(&PriorityLevelStrategy.validate(level), &[]);
    }
    exempt.spec.exempt.as_mut().unwrap().lendable_percent = Some(50);
    assert_causes(&PriorityLevelStrategy.validate(&exempt), &[]);
    rest.spec
        .limited
        .as_mut()
        .unwrap()
        .nominal_concurrency_shares = Some(6);
    assert_causes(
        &PriorityLevelStrategy.validate(&rest),
        &["spec FieldValueInvalid spec of 'catch-all' must equal the fixed value"],
    );
}

#[test]
fn flow_schemas() {
    let rule = |subject: Value, resource: Value, path: Value| json!({"priorityLevelConfiguration": {"name": "l"}, "rules": [{"subjects": [subject], "resourceRules": [resource], "nonResourceRules": [path]}]});
    let user = json!({"kind": "User", "user": {"name": "*"}});
    let pods =
        json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]});
    let paths = json!({"verbs": ["*"], "nonResourceURLs": ["/healthz", "/a/*"]});
    let at = |field: &str, detail: &str| format!("spec.rules[0].{field} {detail}");
    let table: Vec<(Value, Vec<String>)> = vec![
        (rule(user.clone(), pods.clone(), paths.clone()), vec![]),
        (
            json!({"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByName"}, "priorityLevelConfiguration": {"name": ""}, "rules": [{"subjects": []}]}),
            [
                "spec.matchingPrecedence FieldValueInvalid only the schema named 'exempt'",
                "spec.distinguisherMethod.type FieldValueNotSupported",
                "spec.priorityLevelConfiguration.name FieldValueRequired must reference a priority level",
                "spec.rules[0].subjects FieldValueRequired",
                "spec.rules[0] FieldValueRequired at least one of resourceRules",
            ]
            .map(str::to_owned)
            .into(),
        ),
        (
            rule(
                json!({"kind": "User", "group": {"name": "g"}}),
                json!({"verbs": ["fly"], "apiGroups": ["*", "a"], "resources": [], "namespaces": ["A"]}),
                json!({"verbs": ["*", "get"], "nonResourceURLs": ["", "a", "/a b", "//", "/*/a"]}),
            ),
            vec![
                at("subjects[0].user", "FieldValueRequired user is required when subject kind is 'User'"),
                at("subjects[0].group", "FieldValueForbidden group is forbidden when subject kind is not 'Group'"),
                at("resourceRules[0].verbs", "FieldValueNotSupported"),
                at("resourceRules[0].apiGroups", "FieldValueInvalid if '*' is present, must not specify other api groups"),
                at("resourceRules[0].resources", "FieldValueRequired"),
                at("resourceRules[0].namespaces[0]", "FieldValueInvalid each member of this list must be '*' or a DNS-1123 label; a lowercase"),
                at("nonResourceRules[0].verbs", "FieldValueInvalid if '*' is present, must not specify other verbs"),
                at("nonResourceRules[0].nonResourceURLs[0]", "FieldValueInvalid must not be empty"),
                at("nonResourceRules[0].nonResourceURLs[1]", "FieldValueInvalid must start with slash"),
                at("nonResourceRules[0].nonResourceURLs[2]", "FieldValueInvalid must not contain white-space"),
                at("nonResourceRules[0].nonResourceURLs[3]", "FieldValueInvalid must not contain double slash"),
                at("nonResourceRules[0].nonResourceURLs[4]", "FieldValueInvalid wildcard can only do suffix"),
            ],
        ),
        (
            rule(json!({"kind": "ServiceAccount", "serviceAccount": {"name": "", "namespace": ""}}), pods, paths),
            vec![
                at("subjects[0].serviceAccount.name", "FieldValueRequired"),
                at("subjects[0].serviceAccount.namespace", "FieldValueRequired must specify namespace"),
            ],
        ),
    ];
    for (spec, want) in table {
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        assert_causes(&FlowSchemaStrategy.validate(&schema("s", spec)), &want);
    }
    assert_eq!(
        schema("s", json!({"matchingPrecedence": 0})),
        schema("s", json!({}))
    );
    let default = schema("s", json!({}));
    assert_eq!(default.spec.matching_precedence, Some(1000));
}

#[test]
fn priority_levels() {
    let queuing = |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
    let table: Vec<(Value, Vec<&str>)> = vec![
        (queuing(json!({})), vec![]),
        (
            json!({"type": "", "limited": {"limitResponse": {"type": ""}}}),
            vec![
                "spec.type FieldValueRequired",
                "spec.limited FieldValueForbidden",
                "spec.limited.limitResponse.type FieldValueRequired",
            ],
        ),
        (
            json!({"type": "Odd", "exempt": {}, "limited": {"limitResponse": {"type": "Queue"}}}),
            vec![
                "spec.type FieldValueNotSupported",
                "spec.exempt FieldValueForbidden",
                "spec.limited FieldValueForbidden",
                "spec.limited.limitResponse.queuing FieldValueRequired",
            ],
        ),
        (
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "", "queuing": {}}}}),
            vec![
                "spec.limited.limitResponse.type FieldValueRequired",
                "spec.limited.limitResponse.queuing FieldValueForbidden",
            ],
        ),
        (
            queuing(json!({"queues": -1, "handSize": -1, "queueLengthLimit": -1})),
            vec![
                "spec.limited.limitResponse.queuing.queueLengthLimit FieldValueInvalid must be positive",
                "spec.limited.limitResponse.queuing.queues FieldValueInvalid must be positive",
                "spec.limited.limitResponse.queuing.handSize FieldValueInvalid must be positive",
            ],
        ),
        (
            queuing(json!({"queues": 4, "handSize": 5})),
            vec![
                "spec.limited.limitResponse.queuing.handSize FieldValueInvalid should not be greater than queues (4)",
            ],
        ),
        (
            queuing(json!({"queues": 512, "handSize": 8})),
            vec![
                "spec.limited.limitResponse.queuing.handSize FieldValueInvalid required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
            ],
        ),
        (
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1, "limitResponse": {"type": "Wait"}}}),
            vec![
                "spec.limited.nominalConcurrencyShares FieldValueInvalid must be a non-negative integer",
                "spec.limited.limitResponse.type FieldValueNotSupported",
                "spec.limited.lendablePercent FieldValueInvalid must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent FieldValueInvalid if specified, must be a non-negative",
            ],
        ),
        (
            json!({"type": "Exempt"}),
            vec!["spec.type FieldValueInvalid must be 'Exempt' if and only if `name` is 'exempt'"],
        ),
        (
            json!({"type": "Limited", "exempt": {}}),
            vec![
                "spec.exempt FieldValueForbidden",
                "spec.limited FieldValueRequired",
            ],
        ),
    ];
    for (spec, want) in table {
        assert_causes(&PriorityLevelStrategy.validate(&level("l", spec)), &want);
    }
    let row =
        PriorityLevelStrategy.row(&level("l", queuing(json!({}))), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(row[3], Cell::from(64_i32));
    let row = PriorityLevelStrategy.row(&level("l", json!({})), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(row[3], Cell::from("<none>"));
    let zeros = json!({"queues": 0, "handSize": 0, "queueLengthLimit": 0});
    assert_eq!(level("l", queuing(zeros)), level("l", queuing(json!({}))));
    let default = level("l", queuing(json!({})));
    let limited = default.spec.limited.unwrap();
    let queuing = limited.limit_response.queuing.unwrap();
    assert_eq!(limited.nominal_concurrency_shares, Some(30));
    assert_eq!(
        (
            queuing.queues,
            queuing.hand_size,
            queuing.queue_length_limit
        ),
        (Some(64), Some(8), Some(50))
    );
    let status = json!({"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "A", "status": ""}, {"type": "", "status": ""}]}});
    let bad = serde_json::from_value(status).unwrap();
    assert_causes(
        &PriorityLevelStrategy.validate_status_update(&bad, &bad),
        &[
            "status.conditions[1].type FieldValueDuplicate",
            "status.conditions[2].type FieldValueRequired",
        ],
    );
}

#[test]
fn what_a_cluster_starts_with_is_valid_and_refers_to_levels_that_are_there() {
    let mut names = Vec::new();
    for mut level in bootstrap_levels() {
        let before = level.spec.clone();
        PriorityLevelStrategy.set_defaults(&mut level);
        assert_eq!(level.spec, before);
        assert_causes(&PriorityLevelStrategy.validate(&level), &[]);
        names.push(level.metadata.name.unwrap());
    }
    assert_eq!(names.len(), 8);
    for mut schema in bootstrap_schemas() {
        FlowSchemaStrategy.set_defaults(&mut schema);
        assert_causes(&FlowSchemaStrategy.validate(&schema), &[]);
        assert!(names.contains(&schema.spec.priority_level_configuration.name));
    }
}
