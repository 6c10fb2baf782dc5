//! How Pods of a group spread over zones and nodes.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::validation::labels::{validate_label_name, validate_label_selector};
use crate::validation::{NOT_POSITIVE, items};

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
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

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
