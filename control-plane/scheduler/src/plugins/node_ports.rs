//! NodePorts: a port of a node is one Pod's.

use coracle_apimachinery::host_ports::TAKEN;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{ClusterEvent, Filter, Plugin, Verdict};

pub(crate) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::PodRemoved)
    }
}

impl Filter for NodePorts {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let taken = |port| node.host_ports.iter().any(|held| held.conflicts(port));
        if pod.host_ports.iter().any(taken) {
            return Verdict::Unschedulable(vec![TAKEN.to_owned()]);
        }
        Verdict::Fits
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{node, node_info, pod_info};

    fn with(ports: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": ports}]}})
    }

    #[test]
    fn a_port_is_one_pods() {
        let port = |ip: &str, protocol: &str| json!([{"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol}]);
        let held = pod_info("held", with(port("127.0.0.1", "TCP")));
        let node = node_info(node("n", json!({})), &[held]);
        let taken = Verdict::Unschedulable(vec![TAKEN.to_owned()]);
        for (ports, verdict) in [
            (port("", "TCP"), &taken),
            (port("127.0.0.1", "TCP"), &taken),
            (port("192.0.2.1", "TCP"), &Verdict::Fits),
            (port("", "UDP"), &Verdict::Fits),
            (json!([{"containerPort": 8080}]), &Verdict::Fits),
        ] {
            let pod = pod_info("p", with(ports.clone()));
            assert_eq!(&NodePorts.filter(&pod, &node), verdict, "{ports}");
        }
    }
}
