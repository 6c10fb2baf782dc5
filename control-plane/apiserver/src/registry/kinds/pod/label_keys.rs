//! Merges the keys of a new Pod's own labels into the selectors that they stand beside: from then on
//! the selectors say all, also when the labels change (KEP-3633, KEP-3243).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// Merges the keys of affinity and of the spread over domains.
pub(super) fn merge(pod: &mut Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else {
        return;
    };
    if let Some(affinity) = &mut spec.affinity {
        if let Some(towards) = &mut affinity.pod_affinity {
            of_terms(
                &mut towards.required_during_scheduling_ignored_during_execution,
                &mut towards.preferred_during_scheduling_ignored_during_execution,
                &labels,
            );
        }
        if let Some(away) = &mut affinity.pod_anti_affinity {
            of_terms(
                &mut away.required_during_scheduling_ignored_during_execution,
                &mut away.preferred_during_scheduling_ignored_during_execution,
                &labels,
            );
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        if let Some(selector) = &mut constraint.label_selector {
            let keys = constraint.match_label_keys.iter().flatten();
            select(selector, keys, "In", &labels);
        }
    }
}

fn of_terms(
    required: &mut Option<Vec<PodAffinityTerm>>,
    preferred: &mut Option<Vec<WeightedPodAffinityTerm>>,
    labels: &Labels,
) {
    let required = required.iter_mut().flatten();
    let preferred = preferred.iter_mut().flatten();
    let preferred = preferred.map(|weighted| &mut weighted.pod_affinity_term);
    for term in required.chain(preferred) {
        if let Some(selector) = &mut term.label_selector {
            let matched = term.match_label_keys.iter().flatten();
            select(selector, matched, "In", labels);
            let mismatched = term.mismatch_label_keys.iter().flatten();
            select(selector, mismatched, "NotIn", labels);
        }
    }
}

/// Keys that the Pod has no label of are passed over.
fn select<'a>(
    selector: &mut LabelSelector,
    keys: impl Iterator<Item = &'a String>,
    operator: &str,
    labels: &Labels,
) {
    for (key, value) in keys.filter_map(|key| Some((key, labels.get(key)?))) {
        let expressions = selector.match_expressions.get_or_insert_default();
        expressions.push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_become_expressions() {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "web", "hash": "1", "tenant": "t"}},
            "spec": {
                "containers": [],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                    "topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}},
                    "matchLabelKeys": ["hash", "none"], "mismatchLabelKeys": ["tenant"],
                }]}},
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["hash"],
                    },
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                ],
            },
        }))
        .unwrap();
        merge(&mut pod);
        let spec = serde_json::to_value(pod.spec).unwrap();
        let hash = json!({"key": "hash", "operator": "In", "values": ["1"]});
        let tenant = json!({"key": "tenant", "operator": "NotIn", "values": ["t"]});
        let selector = |path: &str| &spec.pointer(path).unwrap()["matchExpressions"];
        assert_eq!(
            *selector(
                "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector"
            ),
            json!([hash, tenant])
        );
        assert_eq!(
            *selector("/topologySpreadConstraints/0/labelSelector"),
            json!([hash])
        );
        assert!(
            spec["topologySpreadConstraints"][1]
                .get("labelSelector")
                .is_none()
        );
    }
}
