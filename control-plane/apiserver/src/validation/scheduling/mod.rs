//! What ties Pods to nodes: selectors and affinity.

pub(crate) mod deprecated;
mod label_keys;
pub(crate) mod spread;
pub(crate) mod taints;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    WeightedPodAffinityTerm,
};

use self::label_keys::validate_label_keys;
use super::labels::{validate_label_name, validate_label_selector};
use super::{faults, items};

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
    validate_label_keys(
        items(&term.match_label_keys),
        items(&term.mismatch_label_keys),
        term.label_selector.as_ref(),
        at,
        errors,
    );
    let topology_at = at.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(Error::required(&topology_at, "can not be empty"));
    }
    validate_label_name(&term.topology_key, &topology_at, errors);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

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
}
