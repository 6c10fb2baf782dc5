//! Taints of nodes, and the tolerations that Pods have for them.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::validation::labels::validate_label_name;
use crate::validation::{one_of, shown, text};

/// Effects that a taint may have.
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The taints of a node.
pub(crate) fn validate_taints(taints: &[Taint], at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = at.index(i);
        validate_label_name(&taint.key, &at.child("key"), errors);
        let value = text(&taint.value);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&at.child("value"), value, wrong.join(";")));
        }
        one_of(&taint.effect, EFFECTS, &at.child("effect"), errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            let detail = "taints must be unique by key and effect pair";
            errors.push(Error::duplicate(&at, shown(taint)).with_detail(detail));
        }
    }
}

/// The tolerations of a Pod or of a RuntimeClass.
pub(crate) fn validate_tolerations(tolerations: &[Toleration], at: &Path, errors: &mut ErrorList) {
    for (i, toleration) in tolerations.iter().enumerate() {
        validate_toleration(toleration, &at.index(i), errors);
    }
}

fn validate_toleration(toleration: &Toleration, at: &Path, errors: &mut ErrorList) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
    let operator_at = at.child("operator");
    if !key.is_empty() {
        validate_label_name(key, &at.child("key"), errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&operator_at, operator, detail));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&at.child("effect"), effect, detail));
    }
    match operator {
        "Equal" | "" => {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                errors.push(Error::invalid(&operator_at, value, wrong.join(";")));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&operator_at, value, detail));
            }
        }
        // TaintTolerationComparisonOperators is in alpha; who asks for it is told of all four.
        "Gt" | "Lt" => {
            let known = ["Equal", "Exists", "Lt", "Gt"];
            errors.push(Error::not_supported(&operator_at, operator, &known));
        }
        _ => {
            let supported = ["Equal", "Exists"];
            errors.push(Error::not_supported(&operator_at, operator, &supported));
        }
    }
    if !effect.is_empty() {
        one_of(effect, EFFECTS, &at.child("effect"), errors);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn tolerations() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"operator": "Exists"}), vec![]),
            (
                json!({"key": "a", "value": "b", "effect": "NoSchedule"}),
                vec![],
            ),
            (
                json!({}),
                vec!["t[0].operator FieldValueInvalid operator must be Exists when `key` is empty"],
            ),
            (
                json!({"key": "a", "operator": "Exists", "value": "b"}),
                vec!["t[0].operator FieldValueInvalid value must be empty"],
            ),
            (
                json!({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}),
                vec!["t[0].effect FieldValueInvalid effect must be 'NoExecute'"],
            ),
            (
                json!({"key": "a", "operator": "Gt", "value": "5"}),
                vec!["t[0].operator FieldValueNotSupported"],
            ),
            (
                json!({"key": "a", "operator": "Is", "effect": "Now"}),
                vec![
                    "t[0].operator FieldValueNotSupported supported values: \"Equal\", \"Exists\"",
                    "t[0].effect FieldValueNotSupported",
                ],
            ),
        ];
        for (value, want) in table {
            let mut errors = ErrorList::default();
            validate_tolerations(
                &[serde_json::from_value(value).unwrap()],
                &Path::new("t"),
                &mut errors,
            );
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn taints_are_unique() {
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key": "a", "effect": "NoSchedule"},
            {"key": "a", "effect": "NoExecute"},
            {"key": "a", "effect": "NoSchedule", "value": "x"},
            {"key": "b", "effect": ""},
        ]))
        .unwrap();
        let mut errors = ErrorList::default();
        validate_taints(&taints, &Path::new("t"), &mut errors);
        assert_causes(
            &errors,
            &[
                "t[2] FieldValueDuplicate taints must be unique",
                "t[3].effect FieldValueRequired",
            ],
        );
    }
}
