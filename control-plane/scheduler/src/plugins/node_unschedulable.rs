//! NodeUnschedulable: nothing new on a cordoned node, but for Pods that tolerate it.

use coracle_apimachinery::taints::{NO_SCHEDULE, UNSCHEDULABLE, any_tolerates};
use k8s_openapi::api::core::v1::Taint;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{ClusterEvent, Filter, Plugin, Verdict};

pub(crate) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::NodeAdded | ClusterEvent::NodeTaintsChanged
        )
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
        if spec.and_then(|spec| spec.unschedulable) != Some(true) {
            return Verdict::Fits;
        }
        let taint = Taint {
            key: UNSCHEDULABLE.to_owned(),
            effect: NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        let tolerations = pod
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref());
        if any_tolerates(tolerations.unwrap_or_default(), &taint) {
            return Verdict::Fits;
        }
        Verdict::Unresolvable("node(s) were unschedulable".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, node_info, pod_info};
    use serde_json::json;

    #[test]
    fn a_cordoned_node_takes_only_who_tolerates_it() {
        let cordoned = node_info(node("n", json!({"spec": {"unschedulable": true}})), &[]);
        let plain = pod_info("p", json!({}));
        let tolerant = pod_info(
            "p",
            json!({"spec": {"tolerations":
            [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}}),
        );
        let says = |pod| NodeUnschedulable.filter(pod, &cordoned);
        assert_eq!(
            says(&plain),
            Verdict::Unresolvable("node(s) were unschedulable".into())
        );
        assert_eq!(says(&tolerant), Verdict::Fits);
        let open = node_info(node("n", json!({})), &[]);
        assert_eq!(NodeUnschedulable.filter(&plain, &open), Verdict::Fits);
    }
}
