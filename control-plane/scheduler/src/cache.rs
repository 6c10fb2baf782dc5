//! What the scheduler knows of nodes and of the Pods on them.
//!
//! A Pod that was just given a node is *assumed*: it counts there at once, before the API server
//! and the watch say so, and until then it cannot be scheduled again. Owned by the scheduler's
//! one task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use coracle_apimachinery::host_ports::{self, HostPort};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use crate::resources::{Resources, allowed_pods};

/// A Pod, and what scheduling asks of it.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) requests: Resources,
    /// Ports that it asks of its node.
    pub(crate) host_ports: Vec<HostPort>,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let requests = Resources::requested(&pod);
        let host_ports = host_ports_of(&pod);
        Self {
            pod,
            requests,
            host_ports,
        }
    }
}

fn host_ports_of(pod: &Pod) -> Vec<HostPort> {
    pod.spec.as_ref().map(host_ports::of).unwrap_or_default()
}

/// A node with what its Pods use.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeInfo {
    /// Absent while only Pods tell of the node.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) allocatable: Resources,
    pub(crate) allowed_pods: i64,
    pub(crate) pods: i64,
    pub(crate) requested: Resources,
    /// The same with defaults for Pods that request nothing, to compare nodes by.
    pub(crate) assumed_use: Resources,
    /// Ports that its Pods hold.
    pub(crate) host_ports: Vec<HostPort>,
    /// Sizes of the images that the node has, by name.
    pub(crate) images: HashMap<String, i64>,
}

impl NodeInfo {
    fn set(&mut self, node: Arc<Node>) {
        self.allocatable = Resources::allocatable(&node);
        self.allowed_pods = allowed_pods(&node);
        let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
        self.images = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image
                    .names
                    .iter()
                    .flatten()
                    .map(move |name| (name.clone(), size))
            })
            .collect();
        self.node = Some(node);
    }

    fn count(&mut self, placed: &Placed, sign: i64) {
        self.pods += sign;
        let requests = &placed.requests;
        let default = requests.or_default();
        if sign > 0 {
            self.requested.add(requests);
            self.assumed_use.add(&default);
            self.host_ports.extend_from_slice(&placed.host_ports);
        } else {
            self.requested.sub(requests);
            self.assumed_use.sub(&default);
            for port in &placed.host_ports {
                let held = self.host_ports.iter().position(|held| held == port);
                held.map(|held| self.host_ports.swap_remove(held));
            }
        }
    }
}

#[derive(Debug)]
struct Placed {
    node: String,
    requests: Resources,
    host_ports: Vec<HostPort>,
    assumed: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    pods: HashMap<String, Placed>,
}

impl Cache {
    /// All nodes that exist, by name.
    pub(crate) fn nodes(&self) -> Vec<&NodeInfo> {
        self.nodes
            .values()
            .filter(|info| info.node.is_some())
            .collect()
    }

    /// Takes note of a node, and returns what it was before.
    pub(crate) fn set_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let info = self.nodes.entry(node.name_any()).or_default();
        let old = info.node.take();
        info.set(node);
        old
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods == 0 {
                self.nodes.remove(name);
            }
        }
    }

    /// Removes nodes that are not among these names.
    pub(crate) fn retain_nodes(&mut self, names: &HashSet<String>) {
        let all: Vec<String> = self.nodes.keys().cloned().collect();
        all.iter()
            .filter(|name| !names.contains(*name))
            .for_each(|name| self.remove_node(name));
    }

    /// Counts a Pod on a node before anybody else knows.
    pub(crate) fn assume(&mut self, pod: &PodInfo, node: &str) {
        let uid = pod.pod.uid().unwrap_or_default();
        self.place(
            uid,
            Placed {
                node: node.to_owned(),
                requests: pod.requests.clone(),
                host_ports: pod.host_ports.clone(),
                assumed: true,
            },
        );
    }

    /// Counts a Pod where the API server says it is.
    pub(crate) fn confirm(&mut self, pod: &Pod, node: &str) {
        let uid = pod.uid().unwrap_or_default();
        self.place(
            uid,
            Placed {
                node: node.to_owned(),
                requests: Resources::requested(pod),
                host_ports: host_ports_of(pod),
                assumed: false,
            },
        );
    }

    /// Counts a Pod nowhere any more; whether it counted.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else {
            return false;
        };
        if let Some(info) = self.nodes.get_mut(&placed.node) {
            info.count(&placed, -1);
            if info.pods == 0 && info.node.is_none() {
                self.nodes.remove(&placed.node);
            }
        }
        true
    }

    /// Whether a Pod was given a node that is not confirmed yet.
    pub(crate) fn assumes(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// The uids of all Pods that count.
    pub(crate) fn placed(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    fn place(&mut self, uid: String, new: Placed) {
        // The ports of a Pod never change.
        if let Some(placed) = self.pods.get_mut(&uid)
            && placed.node == new.node
            && placed.requests == new.requests
        {
            placed.assumed &= new.assumed;
            return;
        }
        self.remove_pod(&uid);
        self.nodes
            .entry(new.node.clone())
            .or_default()
            .count(&new, 1);
        self.pods.insert(uid, new);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_assumed_pod_counts_once() {
        let mut cache = Cache::default();
        cache.set_node(Arc::new(node("n1", json!({}))));
        let pod = PodInfo::new(Arc::new(pod(
            "a",
            json!({"spec": {"containers":
            [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}}),
        )));
        cache.assume(&pod, "n1");
        assert!(cache.assumes("a"));
        cache.confirm(&pod.pod, "n1");
        assert!(!cache.assumes("a"));
        assert_eq!(
            (cache.nodes()[0].pods, cache.nodes()[0].requested.milli_cpu),
            (1, 500)
        );
        assert!(cache.remove_pod("a"));
        assert!(!cache.remove_pod("a"));
        assert_eq!(
            (cache.nodes()[0].pods, cache.nodes()[0].requested.milli_cpu),
            (0, 0)
        );
    }

    proptest! {
        /// After any course of events a node's sums are those of the Pods that are on it.
        #[test]
        fn sums_stay_true(steps in prop::collection::vec((0u8..3, 0usize..4, 0usize..2), 0..60)) {
            let mut cache = Cache::default();
            let mut model: HashMap<usize, usize> = HashMap::new();
            for n in 0..2 { cache.set_node(Arc::new(node(&format!("n{n}"), json!({})))); }
            for (step, p, n) in steps {
                let name = format!("p{p}");
                let cpu = format!("{}m", (p + 1) * 100);
                let ports = json!([{"containerPort": 80, "hostPort": p + 1}]);
                let info = PodInfo::new(Arc::new(pod(&name, json!({"spec": {"containers":
                    [{"name": "c", "ports": ports, "resources": {"requests": {"cpu": cpu}}}]}}))));
                match step {
                    0 => { cache.assume(&info, &format!("n{n}")); model.insert(p, n); }
                    1 => { cache.confirm(&info.pod, &format!("n{n}")); model.insert(p, n); }
                    _ => { cache.remove_pod(&name); model.remove(&p); }
                }
            }
            for (n, info) in cache.nodes().into_iter().enumerate() {
                let here = model.iter().filter(|(_, at)| **at == n);
                let cpu: usize = here.clone().map(|(p, _)| (p + 1) * 100).sum();
                let mut ports: Vec<i32> = here.clone().map(|(p, _)| *p as i32 + 1).collect();
                let mut held: Vec<i32> = info.host_ports.iter().map(|held| held.port).collect();
                ports.sort();
                held.sort();
                prop_assert_eq!(held, ports);
                prop_assert_eq!(info.requested.milli_cpu, cpu as i64);
                prop_assert_eq!(info.pods, here.count() as i64);
            }
        }
    }
}
