//! NodeResourcesFit: what the Pod requests must be free, and the emptier node is the better
//! (least allocated).

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{ClusterEvent, Filter, MAX_SCORE, Plugin, Score, Verdict};

pub(crate) struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeAllocatableChanged, PodRemoved};
        matches!(event, NodeAdded | NodeAllocatableChanged | PodRemoved)
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let mut lacking = Vec::new();
        if node.pods + 1 > node.allowed_pods {
            lacking.push("Too many pods".to_owned());
        }
        let short = |wanted: i64, used: i64, all: i64| wanted > 0 && wanted > all - used;
        let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
        if short(wanted.milli_cpu, used.milli_cpu, all.milli_cpu) {
            lacking.push("Insufficient cpu".to_owned());
        }
        if short(wanted.memory, used.memory, all.memory) {
            lacking.push("Insufficient memory".to_owned());
        }
        for (name, wanted) in &wanted.others {
            let of = |amounts: &std::collections::BTreeMap<String, i64>| {
                amounts.get(name).copied().unwrap_or(0)
            };
            if short(*wanted, of(&used.others), of(&all.others)) {
                lacking.push(format!("Insufficient {name}"));
            }
        }
        if lacking.is_empty() {
            return Verdict::Fits;
        }
        Verdict::Unschedulable(lacking)
    }
}

impl Score for NodeResourcesFit {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _nodes: &[&NodeInfo]) -> i64 {
        let pod = pod.requests.or_default();
        let used = &node.assumed_use;
        let all = &node.allocatable;
        let amounts = [
            (used.milli_cpu + pod.milli_cpu, all.milli_cpu),
            (used.memory + pod.memory, all.memory),
        ];
        let known = amounts.into_iter().filter(|(_, all)| *all > 0);
        let free: Vec<i64> = known
            .map(|(used, all)| (all - used).max(0) * MAX_SCORE / all)
            .collect();
        let count = i64::try_from(free.len()).unwrap_or(1).max(1);
        free.iter().sum::<i64>() / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{asking, node, node_info, pod_info};
    use serde_json::json;

    #[test]
    fn what_is_free_decides() {
        let used = [pod_info("a", asking("3", "6Gi"))];
        let node = node_info(node("n", json!({})), &used);
        let says =
            |cpu, memory| NodeResourcesFit.filter(&pod_info("p", asking(cpu, memory)), &node);
        assert_eq!(says("1", "2Gi"), Verdict::Fits);
        assert_eq!(
            says("1001m", "1Gi"),
            Verdict::Unschedulable(vec!["Insufficient cpu".into()])
        );
        let both = vec!["Insufficient cpu".into(), "Insufficient memory".into()];
        assert_eq!(says("2", "3Gi"), Verdict::Unschedulable(both));
        assert_eq!(says("0", "0"), Verdict::Fits);
    }

    #[test]
    fn huge_pages_of_each_size_are_counted() {
        let asking = json!({"spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}}}]}});
        let with = |name: &str| json!({"status": {"allocatable": {name: "6Mi"}}});
        let pod = |name: &str| pod_info(name, asking.clone());
        let says = |resource: &str, there: &[_]| {
            let node = node_info(node("n", with(resource)), there);
            NodeResourcesFit.filter(&pod("p"), &node)
        };
        let lacking = Verdict::Unschedulable(vec!["Insufficient hugepages-2Mi".into()]);
        assert_eq!(says("hugepages-2Mi", &[]), Verdict::Fits);
        assert_eq!(says("hugepages-2Mi", &[pod("other")]), lacking);
        assert_eq!(says("hugepages-1Gi", &[]), lacking);
    }

    #[test]
    fn extended_resources_and_the_number_of_pods() {
        let gpu = json!({"spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"example.com/gpu": "2"}}}]}});
        let with = |n: &str| json!({"status": {"allocatable": {"example.com/gpu": n}}});
        let pod = pod_info("p", gpu);
        let says = |change| NodeResourcesFit.filter(&pod, &node_info(node("n", change), &[]));
        assert_eq!(says(with("2")), Verdict::Fits);
        let lacking = Verdict::Unschedulable(vec!["Insufficient example.com/gpu".into()]);
        assert_eq!(says(with("1")), lacking);
        assert_eq!(says(json!({})), lacking);
        let full = json!({"status": {"allocatable": {"pods": "0", "example.com/gpu": "2"}}});
        assert_eq!(
            says(full),
            Verdict::Unschedulable(vec!["Too many pods".into()])
        );
    }

    #[test]
    fn the_emptier_the_better() {
        let pod = pod_info("p", asking("1", "2Gi"));
        let empty = node_info(node("n", json!({})), &[]);
        let half = node_info(node("n", json!({})), &[pod_info("a", asking("2", "4Gi"))]);
        assert_eq!(NodeResourcesFit.score(&pod, &empty, &[]), 75);
        assert_eq!(NodeResourcesFit.score(&pod, &half, &[]), 25);
    }
}
