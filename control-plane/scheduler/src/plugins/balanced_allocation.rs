//! BalancedAllocation: rather a node whose CPU and memory are used in equal shares.

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{MAX_SCORE, Plugin, Score};

pub(crate) struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

impl Score for BalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _nodes: &[&NodeInfo]) -> i64 {
        let share = |used: i64, wanted: i64, all: i64| {
            (all > 0).then(|| ((used + wanted) as f64 / all as f64).min(1.0))
        };
        let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
        let cpu = share(used.milli_cpu, wanted.milli_cpu, all.milli_cpu);
        let memory = share(used.memory, wanted.memory, all.memory);
        match (cpu, memory) {
            // The standard deviation of two figures is half their distance.
            (Some(cpu), Some(memory)) => {
                ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
            }
            _ => MAX_SCORE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{asking, node, node_info, pod_info};
    use serde_json::json;

    #[test]
    fn equal_shares_are_best() {
        let node = node_info(node("n", json!({})), &[]);
        let says =
            |cpu, memory| BalancedAllocation.score(&pod_info("p", asking(cpu, memory)), &node, &[]);
        assert_eq!(says("2", "4Gi"), 100);
        assert_eq!(says("4", "0"), 50);
        assert_eq!(says("0", "4Gi"), 75);
    }
}
