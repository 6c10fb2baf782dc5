//! How Pods of a group spread over zones and nodes.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::label_keys::validate_label_keys;
use crate::validation::labels::validate_label_selector;
use crate::validation::{NOT_POSITIVE, items};

/// How a group of Pods spreads over domains of nodes.
pub(crate) fn validate_topology_spread<'a>(
    constraints: &'a [TopologySpreadConstraint],
    at: &Path,
    errors: &mut ErrorList,
) {
    let pair = |constraint: &'a TopologySpreadConstraint| {
        let (key, action) = (&constraint.topology_key, &constraint.when_unsatisfiable);
        (key.as_str(), action.as_str())
    };
    let each = constraints.iter().enumerate();
    let last: BTreeMap<(&str, &str), usize> = each.map(|(i, each)| (pair(each), i)).collect();
    for (i, constraint) in constraints.iter().enumerate() {
        let at = at.index(i);
        validate_spread_constraint(constraint, &at, errors);
        if last.get(&pair(constraint)) != Some(&i) {
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
    validate_label_keys(
        items(&constraint.match_label_keys),
        &[],
        constraint.label_selector.as_ref(),
        at,
        errors,
    );
    if let Some(selector) = &constraint.label_selector {
        validate_label_selector(selector, &at.child("labelSelector"), errors);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn topology_spread() {
        let constraints: Vec<TopologySpreadConstraint> = serde_json::from_value(json!([
            {"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1},
            {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"},
            {
                "maxSkew": 1, "topologyKey": "y", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a", "b"],
                "labelSelector": {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]},
            },
            {"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]},
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
                "c[2][0] FieldValueInvalid exists in both matchLabelKeys and labelSelector",
                "c[3].matchLabelKeys FieldValueForbidden must not be specified when labelSelector",
            ],
        );
    }
}
