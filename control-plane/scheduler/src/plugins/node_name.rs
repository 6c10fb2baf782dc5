//! NodeName: a Pod that names its node runs there.

use kube::ResourceExt;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{ClusterEvent, Filter, Plugin, Verdict};

pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        event == ClusterEvent::NodeAdded
    }
}

impl Filter for NodeName {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let wanted = pod
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref());
        let wanted = wanted.filter(|name| !name.is_empty());
        match (wanted, &node.node) {
            (Some(wanted), Some(node)) if node.name_any() != wanted => {
                Verdict::Unresolvable("node(s) didn't match the requested node name".to_owned())
            }
            _ => Verdict::Fits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, node_info, pod_info};
    use serde_json::json;

    #[test]
    fn only_the_named_node() {
        let here = node_info(node("here", json!({})), &[]);
        let there = node_info(node("there", json!({})), &[]);
        let pod = pod_info("p", json!({"spec": {"nodeName": "here"}}));
        assert_eq!(NodeName.filter(&pod, &here), Verdict::Fits);
        assert!(matches!(
            NodeName.filter(&pod, &there),
            Verdict::Unresolvable(_)
        ));
        assert_eq!(
            NodeName.filter(&pod_info("p", json!({})), &there),
            Verdict::Fits
        );
    }
}
