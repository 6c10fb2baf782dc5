//! Choosing a node for one Pod: the scheduling cycle, without I/O.

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{Framework, Verdict};

/// Fewer possible nodes than this are never enough to stop looking.
const ENOUGH_NODES: usize = 100;

/// Where the last search stopped: the next one begins there, so that all nodes get their turn,
/// in the search and among equals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rotation {
    next_node: usize,
    cycle: usize,
}

/// Why no node was possible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    /// The plugins that rejected nodes.
    pub(crate) rejected_by: Vec<&'static str>,
}

impl Diagnosis {
    fn count(&mut self, plugin: &'static str, reasons: impl IntoIterator<Item = String>) {
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
        if !self.rejected_by.contains(&plugin) {
            self.rejected_by.push(plugin);
        }
    }

    /// The words of the event and the condition.
    pub(crate) fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let reasons = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"));
        let mut reasons: Vec<_> = reasons.collect();
        reasons.sort();
        let reasons = reasons.join(", ");
        format!("0/{} nodes are available: {reasons}.", self.nodes)
    }
}

/// Chooses a node: filter, post-filter where nothing is left, score, and the best of the rest.
///
/// # Errors
/// When no node is possible.
pub(crate) fn schedule(
    framework: &Framework,
    nodes: &[&NodeInfo],
    pod: &PodInfo,
    rotation: &mut Rotation,
) -> Result<String, Diagnosis> {
    let mut diagnosis = Diagnosis {
        nodes: nodes.len(),
        ..Diagnosis::default()
    };
    let possible = filter(framework, nodes, pod, rotation, &mut diagnosis);
    if possible.is_empty() {
        let mut ways = framework.post_filters.iter();
        return ways
            .find_map(|way| way.post_filter(pod, nodes))
            .ok_or(diagnosis);
    }
    let scores = score(framework, nodes, &possible, pod);
    let best = scores.iter().max().copied().unwrap_or(0);
    let equals: Vec<_> = possible
        .iter()
        .zip(scores)
        .filter(|(_, score)| *score == best)
        .collect();
    rotation.cycle = rotation.cycle.wrapping_add(1);
    let (chosen, _) = equals[rotation.cycle % equals.len()];
    chosen
        .node
        .as_ref()
        .map(|node| node.name_any())
        .ok_or(diagnosis)
}

/// The possible nodes, as many as are enough to choose from.
fn filter<'a>(
    framework: &Framework,
    nodes: &[&'a NodeInfo],
    pod: &PodInfo,
    rotation: &mut Rotation,
    diagnosis: &mut Diagnosis,
) -> Vec<&'a NodeInfo> {
    let enough = enough(nodes.len());
    let mut possible = Vec::new();
    let mut looked_at = 0;
    let start = rotation.next_node;
    for offset in 0..nodes.len() {
        if possible.len() == enough {
            break;
        }
        looked_at += 1;
        let node = nodes[(start + offset) % nodes.len()];
        let rejection =
            framework
                .filters
                .iter()
                .find_map(|filter| match filter.filter(pod, node) {
                    Verdict::Fits => None,
                    Verdict::Unschedulable(reasons) => Some((filter.name(), reasons)),
                    Verdict::Unresolvable(reason) => Some((filter.name(), vec![reason])),
                });
        match rejection {
            None => possible.push(node),
            Some((plugin, reasons)) => diagnosis.count(plugin, reasons),
        }
    }
    if !nodes.is_empty() {
        rotation.next_node = (start + looked_at) % nodes.len();
    }
    possible
}

/// How many possible nodes are enough: all of a small cluster, a falling share of a large one
/// (the adaptive `percentageOfNodesToScore` of Kubernetes).
fn enough(nodes: usize) -> usize {
    if nodes < ENOUGH_NODES {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ENOUGH_NODES)
}

/// The weighted sum of all scores for each possible node.
fn score(
    framework: &Framework,
    nodes: &[&NodeInfo],
    possible: &[&NodeInfo],
    pod: &PodInfo,
) -> Vec<i64> {
    let mut totals = vec![0; possible.len()];
    if possible.len() == 1 {
        return totals;
    }
    for plugin in &framework.scores {
        let mut scores: Vec<_> = possible
            .iter()
            .map(|node| plugin.score(pod, node, nodes))
            .collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    totals
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plugins::default;
    use crate::plugins::testing::{asking, node, node_info, pod_info};
    use serde_json::json;

    fn choose(nodes: &[NodeInfo], pod: &PodInfo) -> Result<String, String> {
        let nodes: Vec<_> = nodes.iter().collect();
        schedule(&default(), &nodes, pod, &mut Rotation::default()).map_err(|d| d.message())
    }

    #[test]
    fn the_message_counts_reasons() {
        let tainted =
            json!({"spec": {"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}});
        let used = [pod_info("a", asking("4", "1Gi"))];
        let nodes = [
            node_info(node("n1", tainted), &[]),
            node_info(node("n2", json!({})), &used),
            node_info(node("n3", json!({})), &used),
        ];
        let message = choose(&nodes, &pod_info("p", asking("1", "1Gi"))).unwrap_err();
        let expected =
            "0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient cpu.";
        assert_eq!(message, expected);
        let none = choose(&[], &pod_info("p", json!({}))).unwrap_err();
        assert_eq!(none, "no nodes available to schedule pods");
    }

    #[test]
    fn the_emptier_node_wins() {
        let nodes = [
            node_info(
                node("full", json!({})),
                &[pod_info("a", asking("2", "4Gi"))],
            ),
            node_info(node("empty", json!({})), &[]),
        ];
        assert_eq!(
            choose(&nodes, &pod_info("p", asking("1", "1Gi"))),
            Ok("empty".into())
        );
    }

    #[test]
    fn equals_take_turns() {
        let nodes: Vec<_> = (0..4)
            .map(|n| node_info(node(&format!("n{n}"), json!({})), &[]))
            .collect();
        let nodes: Vec<_> = nodes.iter().collect();
        let mut rotation = Rotation::default();
        let pod = pod_info("p", json!({}));
        let mut chosen: Vec<_> = (0..4)
            .map(|_| schedule(&default(), &nodes, &pod, &mut rotation).unwrap())
            .collect();
        chosen.sort();
        chosen.dedup();
        assert!(chosen.len() > 1, "all Pods went to {chosen:?}");
    }

    #[test]
    fn large_clusters_are_searched_in_part() {
        assert_eq!(enough(1), 1);
        assert_eq!(enough(99), 99);
        assert_eq!(enough(150), 100);
        assert_eq!(enough(1000), 420);
        assert_eq!(enough(6000), 300);
    }

    struct MakesRoom;

    impl crate::framework::Plugin for MakesRoom {
        fn name(&self) -> &'static str {
            "MakesRoom"
        }
    }

    impl crate::framework::PostFilter for MakesRoom {
        fn post_filter(&self, _pod: &PodInfo, nodes: &[&NodeInfo]) -> Option<String> {
            nodes.first()?.node.as_ref().map(|node| node.name_any())
        }
    }

    #[test]
    fn a_post_filter_is_asked_last() {
        let mut framework = default();
        framework.post_filters.push(Box::new(MakesRoom));
        let full = node_info(node("n", json!({})), &[pod_info("a", asking("4", "1Gi"))]);
        let pod = pod_info("p", asking("1", "1Gi"));
        let chosen = schedule(&framework, &[&full], &pod, &mut Rotation::default());
        assert_eq!(chosen, Ok("n".to_owned()));
    }
}
