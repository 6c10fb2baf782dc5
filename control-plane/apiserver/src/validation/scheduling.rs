//! What ties Pods to nodes: selectors, affinity, taints, tolerations, spreading.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Taint,
    Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::labels::{validate_label_name, validate_label_selector};
use super::{NOT_POSITIVE, faults, items, shown, text};

/// Effects that a taint may have.
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The taints of a node.
pub(crate) fn validate_taints(taints: &[Taint], at: &Path, errors: &mut ErrorList) {
    for (i, taint) in taints.iter().enumerate() {
        let at = at.index(i);
        validate_label_name(&taint.key, &at.child("key"), errors);
        let value = text(&taint.value);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&at.child("value"), value, wrong.join(";")));
        }
        super::one_of(&taint.effect, EFFECTS, &at.child("effect"), errors);
        if taints[..i]
            .iter()
            .any(|other| other.key == taint.key && other.effect == taint.effect)
        {
            let mut error = Error::duplicate(&at, shown(taint));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
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
        _ => errors.push(Error::not_supported(
            &operator_at,
            operator,
            &["Equal", "Exists"],
        )),
    }
    if !effect.is_empty() {
        super::one_of(effect, EFFECTS, &at.child("effect"), errors);
    }
}

/// The affinity of a Pod.
pub(crate) fn validate_affinity(affinity: &Affinity, at: &Path, errors: &mut ErrorList) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = &affinity.node_affinity {
        let at = at.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            validate_node_selector(selector, &at.child(required), errors);
        }
        let at = at.child(preferred);
        for (i, term) in items(&node.preferred_during_scheduling_ignored_during_execution)
            .iter()
            .enumerate()
        {
            let at = at.index(i);
            validate_weight(term.weight, &at, errors);
            // A value that no label can have is let through here: it prefers nothing.
            validate_node_selector_term(&term.preference, false, &at.child("preference"), errors);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        let at = at.child("podAffinity");
        let terms = items(&pods.required_during_scheduling_ignored_during_execution);
        validate_pod_terms(terms, &at.child(required), errors);
        let terms = items(&pods.preferred_during_scheduling_ignored_during_execution);
        validate_weighted_terms(terms, &at.child(preferred), errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let at = at.child("podAntiAffinity");
        let terms = items(&pods.required_during_scheduling_ignored_during_execution);
        validate_pod_terms(terms, &at.child(required), errors);
        let terms = items(&pods.preferred_during_scheduling_ignored_during_execution);
        validate_weighted_terms(terms, &at.child(preferred), errors);
    }
}

/// A selector of nodes, by labels and by name.
pub(crate) fn validate_node_selector(selector: &NodeSelector, at: &Path, errors: &mut ErrorList) {
    let at = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(
            &at,
            "must have at least one node selector term",
        ));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_selector_term(term, true, &at.index(i), errors);
    }
}

fn validate_node_selector_term(
    term: &NodeSelectorTerm,
    values: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    let expressions = at.child("matchExpressions");
    for (i, requirement) in items(&term.match_expressions).iter().enumerate() {
        validate_node_expression(requirement, values, &expressions.index(i), errors);
    }
    let fields = at.child("matchFields");
    for (i, requirement) in items(&term.match_fields).iter().enumerate() {
        validate_node_field(requirement, &fields.index(i), errors);
    }
}

fn validate_node_expression(
    requirement: &NodeSelectorRequirement,
    check_values: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    let values = items(&requirement.values);
    let values_at = at.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&values_at, detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&values_at, detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(Error::required(&values_at, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            errors.push(Error::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            ));
        }
    }
    validate_label_name(&requirement.key, &at.child("key"), errors);
    if check_values {
        for (i, value) in values.iter().enumerate() {
            faults(
                value,
                names::label_value(value),
                &values_at.index(i),
                errors,
            );
        }
    }
}

fn validate_node_field(requirement: &NodeSelectorRequirement, at: &Path, errors: &mut ErrorList) {
    let values = items(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(Error::required(&at.child("values"), detail));
            }
        }
        other => {
            errors.push(Error::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            ));
        }
    }
    if requirement.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            faults(
                value,
                names::dns_subdomain(value),
                &at.child("values").index(i),
                errors,
            );
        }
    } else {
        let detail = "not a valid field selector key";
        errors.push(Error::invalid(
            &at.child("key"),
            requirement.key.as_str(),
            detail,
        ));
    }
}

fn validate_weight(weight: i32, at: &Path, errors: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(
            &at.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

fn validate_pod_terms(terms: &[PodAffinityTerm], at: &Path, errors: &mut ErrorList) {
    for (i, term) in terms.iter().enumerate() {
        validate_pod_term(term, &at.index(i), errors);
    }
}

fn validate_weighted_terms(terms: &[WeightedPodAffinityTerm], at: &Path, errors: &mut ErrorList) {
    for (i, term) in terms.iter().enumerate() {
        let at = at.index(i);
        validate_weight(term.weight, &at, errors);
        validate_pod_term(
            &term.pod_affinity_term,
            &at.child("podAffinityTerm"),
            errors,
        );
    }
}

fn validate_pod_term(term: &PodAffinityTerm, at: &Path, errors: &mut ErrorList) {
    if let Some(selector) = &term.label_selector {
        validate_label_selector(selector, &at.child("labelSelector"), errors);
    }
    if let Some(selector) = &term.namespace_selector {
        validate_label_selector(selector, &at.child("namespaceSelector"), errors);
    }
    for name in items(&term.namespaces) {
        faults(name, names::dns_label(name), &at.child("namespace"), errors);
    }
    let (matched, mismatched) = (
        items(&term.match_label_keys),
        items(&term.mismatch_label_keys),
    );
    for (field, keys) in [
        ("matchLabelKeys", matched),
        ("mismatchLabelKeys", mismatched),
    ] {
        let at = at.child(field);
        if !keys.is_empty() && term.label_selector.is_none() {
            errors.push(Error::forbidden(
                &at,
                "must not be specified when labelSelector is not set",
            ));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            validate_label_name(key, &at.index(i), errors);
        }
    }
    for (i, key) in matched.iter().enumerate() {
        if mismatched.contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.push(Error::invalid(
                &at.child("matchLabelKeys").index(i),
                key.as_str(),
                detail,
            ));
        }
    }
    let topology_at = at.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(Error::required(&topology_at, "can not be empty"));
    }
    validate_label_name(&term.topology_key, &topology_at, errors);
}

/// How a group of Pods spreads over domains of nodes.
pub(crate) fn validate_topology_spread(
    constraints: &[TopologySpreadConstraint],
    at: &Path,
    errors: &mut ErrorList,
) {
    for (i, constraint) in constraints.iter().enumerate() {
        let at = at.index(i);
        validate_spread_constraint(constraint, &at, errors);
        let repeated = constraints[i + 1..].iter().any(|other| {
            other.topology_key == constraint.topology_key
                && other.when_unsatisfiable == constraint.when_unsatisfiable
        });
        if repeated {
            let pair = format!(
                "{{{}, {}}}",
                constraint.topology_key, constraint.when_unsatisfiable
            );
            errors.push(Error::duplicate(
                &at.child("{topologyKey, whenUnsatisfiable}"),
                pair,
            ));
        }
    }
}

fn validate_spread_constraint(
    constraint: &TopologySpreadConstraint,
    at: &Path,
    errors: &mut ErrorList,
) {
    if constraint.max_skew <= 0 {
        errors.push(Error::invalid(
            &at.child("maxSkew"),
            constraint.max_skew,
            NOT_POSITIVE,
        ));
    }
    if constraint.topology_key.is_empty() {
        errors.push(Error::required(
            &at.child("topologyKey"),
            "can not be empty",
        ));
    }
    let action = constraint.when_unsatisfiable.as_str();
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    if !actions.contains(&action) {
        errors.push(Error::not_supported(
            &at.child("whenUnsatisfiable"),
            action,
            &actions,
        ));
    }
    if let Some(domains) = constraint.min_domains {
        let at = at.child("minDomains");
        if domains <= 0 {
            errors.push(Error::invalid(&at, domains, NOT_POSITIVE));
        }
        if action != "DoNotSchedule" {
            let detail =
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.push(Error::invalid(&at, domains, detail));
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ];
    for (field, policy) in policies {
        if let Some(policy) = policy {
            let supported = ["Honor", "Ignore"];
            if !supported.contains(&policy.as_str()) {
                errors.push(Error::not_supported(
                    &at.child(field),
                    policy.as_str(),
                    &supported,
                ));
            }
        }
    }
    let keys = items(&constraint.match_label_keys);
    validate_spread_keys(
        keys,
        constraint.label_selector.as_ref(),
        &at.child("matchLabelKeys"),
        errors,
    );
    if let Some(selector) = &constraint.label_selector {
        validate_label_selector(selector, &at.child("labelSelector"), errors);
    }
}

fn validate_spread_keys(
    keys: &[String],
    selector: Option<&LabelSelector>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if keys.is_empty() {
        return;
    }
    if selector.is_none() {
        errors.push(Error::forbidden(
            at,
            "must not be specified when labelSelector is not set",
        ));
    }
    for (i, key) in keys.iter().enumerate() {
        validate_label_name(key, &at.index(i), errors);
        let selected = selector.is_some_and(|selector| {
            selector
                .match_labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key(key))
                || items(&selector.match_expressions)
                    .iter()
                    .any(|e| e.key == *key)
        });
        if selected {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(&at.index(i), key.as_str(), detail));
        }
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

    #[test]
    fn affinity() {
        let affinity = json!({
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1", "2"]}]},
                    {"matchFields": [{"key": "metadata.uid", "operator": "In", "values": ["x"]}]},
                ]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "preference": {}}],
            },
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "matchLabelKeys": ["a"]}],
            },
        });
        let mut errors = ErrorList::default();
        validate_affinity(
            &serde_json::from_value(affinity).unwrap(),
            &Path::new("affinity"),
            &mut errors,
        );
        let node = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        assert_causes(
            &errors,
            &[
                &format!(
                    "{node}[0].matchExpressions[0].values FieldValueRequired must be specified single value"
                ),
                &format!(
                    "{node}[1].matchFields[0].key FieldValueInvalid not a valid field selector key"
                ),
                "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight FieldValueInvalid",
                "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys FieldValueForbidden",
            ],
        );
    }

    #[test]
    fn topology_spread() {
        let constraints: Vec<TopologySpreadConstraint> = serde_json::from_value(json!([
            {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1},
            {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"},
        ]))
        .unwrap();
        let mut errors = ErrorList::default();
        validate_topology_spread(&constraints, &Path::new("c"), &mut errors);
        assert_causes(
            &errors,
            &[
                "c[0].maxSkew FieldValueInvalid must be greater than zero",
                "c[0].minDomains FieldValueInvalid can only use minDomains",
                "c[0].{topologyKey, whenUnsatisfiable} FieldValueDuplicate",
            ],
        );
    }
}
