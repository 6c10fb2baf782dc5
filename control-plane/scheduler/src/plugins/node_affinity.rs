//! NodeAffinity: `nodeSelector` and the required node affinity choose nodes, the preferred one
//! ranks them.

use coracle_apimachinery::node_affinity::{Chosen, MISMATCH, affinity, chooses, fits};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{ClusterEvent, Filter, Plugin, Score, Verdict, scale};

pub(crate) struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::NodeAdded | ClusterEvent::NodeLabelsChanged
        )
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let Some(node) = &node.node else {
            return Verdict::Fits;
        };
        let spec = pod.pod.spec.as_ref();
        if spec.is_none_or(|spec| fits(spec, chosen(node))) {
            return Verdict::Fits;
        }
        Verdict::Unresolvable(MISMATCH.to_owned())
    }
}

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _nodes: &[&NodeInfo]) -> i64 {
        let affinity = pod.pod.spec.as_ref().and_then(affinity);
        let preferred = affinity.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let terms = preferred.into_iter().flatten();
        let Some(node) = &node.node else { return 0 };
        let liked = terms.filter(|term| chooses(&term.preference, chosen(node)));
        liked.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

fn chosen(node: &Node) -> Chosen<'_> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.labels();
    Chosen { name, labels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, node_info, pod_info};
    use serde_json::{Value, json};

    fn here() -> NodeInfo {
        let labels = json!({"metadata": {"labels": {"disk": "ssd", "cores": "8"}}});
        node_info(node("here", labels), &[])
    }

    fn fits(spec: Value) -> bool {
        NodeAffinity.filter(&pod_info("p", json!({"spec": spec})), &here()) == Verdict::Fits
    }

    fn requires(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn selectors() {
        assert!(fits(json!({})));
        assert!(fits(json!({"nodeSelector": {"disk": "ssd"}})));
        assert!(!fits(json!({"nodeSelector": {"disk": "ssd", "zone": "a"}})));
    }

    #[test]
    fn operators() {
        let table = [
            (
                json!({"key": "disk", "operator": "In", "values": ["ssd", "hdd"]}),
                true,
            ),
            (
                json!({"key": "disk", "operator": "In", "values": ["hdd"]}),
                false,
            ),
            (
                json!({"key": "disk", "operator": "NotIn", "values": ["hdd"]}),
                true,
            ),
            (
                json!({"key": "zone", "operator": "NotIn", "values": ["a"]}),
                true,
            ),
            (json!({"key": "zone", "operator": "Exists"}), false),
            (json!({"key": "zone", "operator": "DoesNotExist"}), true),
            (
                json!({"key": "cores", "operator": "Gt", "values": ["7"]}),
                true,
            ),
            (
                json!({"key": "cores", "operator": "Gt", "values": ["8"]}),
                false,
            ),
            (
                json!({"key": "cores", "operator": "Lt", "values": ["9"]}),
                true,
            ),
            (
                json!({"key": "disk", "operator": "Lt", "values": ["9"]}),
                false,
            ),
        ];
        for (requirement, expected) in table {
            let spec = requires(json!([{"matchExpressions": [requirement]}]));
            assert_eq!(fits(spec), expected, "{requirement}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_an_empty_one_chooses_nothing() {
        let name = |name: &str| {
            json!({"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": [name]}]})
        };
        assert!(fits(requires(json!([name("there"), name("here")]))));
        assert!(!fits(requires(json!([name("there")]))));
        assert!(!fits(requires(json!([{}]))));
    }

    #[test]
    fn preferences_add_up() {
        let prefer = |weight: i32, value: &str| {
            json!({"weight": weight, "preference":
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": [value]}]}})
        };
        let spec = json!({"affinity": {"nodeAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution":
                [prefer(10, "ssd"), prefer(5, "ssd"), prefer(70, "hdd")]}}});
        let pod = pod_info("p", json!({"spec": spec}));
        assert_eq!(NodeAffinity.score(&pod, &here(), &[]), 15);
    }
}
