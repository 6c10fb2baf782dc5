#![allow(clippy::unwrap_used)]

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::registry::strategy::{Cell, Strategy};
use crate::validation::testing::assert_causes;

fn object<S: Strategy>(strategy: &S, value: Value) -> S::Object
where
    S::Object: DeserializeOwned,
{
    let mut object = serde_json::from_value(value).unwrap();
    strategy.set_defaults(&mut object);
    object
}

#[test]
fn rules() {
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let paths = json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]});
    let both = json!({"nonResourceURLs": ["/healthz"], "resources": ["pods"], "verbs": ["get"]});
    let table: Vec<(Value, Vec<&str>, Vec<&str>)> = vec![
        (pods, vec![], vec![]),
        (
            json!({}),
            vec![
                "rules[0].verbs FieldValueRequired",
                "rules[0].apiGroups FieldValueRequired resource rules must supply at least one api group",
                "rules[0].resources FieldValueRequired resource rules must supply at least one resource",
            ],
            vec!["rules[0].verbs", "rules[0].apiGroups", "rules[0].resources"],
        ),
        (
            paths,
            vec![
                "rules[0].nonResourceURLs FieldValueInvalid namespaced rules cannot apply to non-resource URLs",
            ],
            vec![],
        ),
        (
            both,
            vec!["rules[0].nonResourceURLs", "rules[0].nonResourceURLs"],
            vec![
                "rules[0].nonResourceURLs FieldValueInvalid rules cannot apply to both regular resources and non-resource URLs",
            ],
        ),
    ];
    for (rule, of_role, of_cluster) in table {
        let rules = json!({"rules": [rule]});
        let role: Role = object(&RoleStrategy, rules.clone());
        assert_causes(&RoleStrategy.validate(&role), &of_role);
        let role: ClusterRole = object(&ClusterRoleStrategy, rules);
        assert_causes(&ClusterRoleStrategy.validate(&role), &of_cluster);
    }
    let aggregate = |rule: Value| object(&ClusterRoleStrategy, json!({"aggregationRule": rule}));
    assert_causes(
        &ClusterRoleStrategy.validate(&aggregate(json!({}))),
        &[
            "aggregationRule.clusterRoleSelectors FieldValueRequired at least one clusterRoleSelector",
        ],
    );
    let bad = json!({"clusterRoleSelectors": [{"matchLabels": {"a b": "c"}}]});
    assert_causes(
        &ClusterRoleStrategy.validate(&aggregate(bad)),
        &[
            "aggregationRule.clusterRoleSelectors[0].matchLabels FieldValueInvalid",
            "aggregationRule.clusterRoleSelectors[0] FieldValueInvalid invalid label selector.",
        ],
    );
}

#[test]
fn bindings() {
    let role = json!({"kind": "Role", "name": "r"});
    let bind = |subjects: Value| {
        let value = json!({"metadata": {"name": "b"}, "roleRef": role, "subjects": subjects});
        (
            object(&RoleBindingStrategy, value.clone()),
            object(&ClusterRoleBindingStrategy, value),
        )
    };
    let not_a_cluster_role =
        "roleRef.kind FieldValueNotSupported supported values: \"ClusterRole\"";
    let table: Vec<(Value, Vec<&str>, Vec<&str>)> = vec![
        (
            json!([{"kind": "User", "name": "jane"}, {"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "name": "a", "namespace": "n"}]),
            vec![],
            vec![not_a_cluster_role],
        ),
        (
            json!([{"kind": "ServiceAccount", "name": "A", "apiGroup": "x"}]),
            vec![
                "subjects[0].name FieldValueInvalid",
                "subjects[0].apiGroup FieldValueNotSupported supported values: \"\"",
            ],
            vec![
                not_a_cluster_role,
                "subjects[0].name FieldValueInvalid",
                "subjects[0].apiGroup FieldValueNotSupported",
                "subjects[0].namespace FieldValueRequired",
            ],
        ),
        (
            json!([{"kind": "User", "name": "", "apiGroup": "x"}, {"kind": "Robot", "name": "r"}]),
            vec![
                "subjects[0].name FieldValueRequired",
                "subjects[0].apiGroup FieldValueNotSupported supported values: \"rbac.authorization.k8s.io\"",
                "subjects[1].kind FieldValueNotSupported",
            ],
            vec![
                not_a_cluster_role,
                "subjects[0].name FieldValueRequired",
                "subjects[0].apiGroup FieldValueNotSupported",
                "subjects[1].kind FieldValueNotSupported",
            ],
        ),
    ];
    for (subjects, in_namespace, in_cluster) in table {
        let (binding, of_cluster): (RoleBinding, ClusterRoleBinding) = bind(subjects);
        assert_causes(&RoleBindingStrategy.validate(&binding), &in_namespace);
        assert_causes(
            &ClusterRoleBindingStrategy.validate(&of_cluster),
            &in_cluster,
        );
    }
    let (old, _) = bind(
        json!([{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "a", "namespace": "n"}]),
    );
    let mut new = old.clone();
    new.role_ref.name = "other".to_owned();
    assert_causes(
        &RoleBindingStrategy.validate_update(&new, &old),
        &["roleRef FieldValueInvalid field is immutable"],
    );
    new.role_ref.name = "a/b".to_owned();
    new.role_ref.api_group = Some("x".to_owned());
    assert_causes(
        &RoleBindingStrategy.validate(&new),
        &[
            "roleRef.apiGroup FieldValueNotSupported",
            "roleRef.name FieldValueInvalid may not contain '/'",
        ],
    );
    let row = RoleBindingStrategy.row(&old, jiff::Timestamp::UNIX_EPOCH);
    let cells: Vec<Cell> = ["b", "Role/r", "<unknown>", "jane", "", "n/a"]
        .map(Cell::from)
        .into();
    assert_eq!(row, cells);
}
