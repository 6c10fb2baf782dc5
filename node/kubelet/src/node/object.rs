//! The Node object, made from what is known; pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_apimachinery::resources;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
    NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::capacity::architecture;
use crate::eviction::pressure::Conditions;
use crate::eviction::signals::Condition;
use crate::images::ListedImage;

/// Images that a node's status names at most, the largest first.
const MAX_IMAGES: usize = 50;

/// What a node is made of.
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_cidr: Option<String>,
    pub(crate) capacity: resources::ResourceList,
    pub(crate) allocatable: resources::ResourceList,
    pub(crate) info: NodeSystemInfo,
    pub(crate) port: Option<u16>,
    /// With whether they give Pods users of their own.
    pub(crate) handlers: Vec<(String, bool)>,
    pub(crate) strict_groups: bool,
}

/// Labels that every node has, and those of the configuration.
pub(crate) fn labels(facts: &NodeFacts) -> BTreeMap<String, String> {
    let mut labels = facts.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", facts.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The object with which the node registers.
pub(crate) fn node(facts: &NodeFacts, status: NodeStatus) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels(facts)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: facts.pod_cidr.clone(),
            pod_cidrs: facts.pod_cidr.clone().map(|cidr| vec![cidr]),
            provider_id: Some(format!("coracle://{}", facts.name)),
            taints: Some(facts.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status),
    }
}

/// The status of now; times of transition are kept where nothing has changed.
pub(crate) fn status(
    facts: &NodeFacts,
    images: Vec<ListedImage>,
    problem: Option<&str>,
    pressure: &Conditions,
    old: Option<&NodeStatus>,
    now: Time,
) -> NodeStatus {
    let mut addresses: Vec<NodeAddress> = facts
        .addresses
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()))
        .collect();
    addresses.push(address("Hostname", facts.name.clone()));
    let mut images: Vec<ContainerImage> = images
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.references),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    images.truncate(MAX_IMAGES);
    let handler = |(name, users): &(String, bool)| NodeRuntimeHandler {
        name: Some(name.clone()),
        // Mounts and preopened directories alike are read-only to any depth.
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(true),
            user_namespaces: Some(*users),
        }),
    };
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(resources::to_api(&facts.capacity)),
        allocatable: Some(resources::to_api(&facts.allocatable)),
        conditions: Some(conditions(problem, pressure, old, &now)),
        daemon_endpoints: facts.port.map(|port| NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(port),
            }),
        }),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(facts.strict_groups),
        }),
        node_info: Some(facts.info.clone()),
        images: Some(images),
        runtime_handlers: Some(facts.handlers.iter().map(handler).collect()),
        ..NodeStatus::default()
    }
}

fn address(type_: &str, address: String) -> NodeAddress {
    NodeAddress {
        type_: type_.to_owned(),
        address,
    }
}

fn conditions(
    problem: Option<&str>,
    pressure: &Conditions,
    old: Option<&NodeStatus>,
    now: &Time,
) -> Vec<NodeCondition> {
    let of_pressure = |condition: Condition| {
        let holds = pressure.contains(&condition);
        let (reason, message) = match (condition, holds) {
            (Condition::MemoryPressure, false) => (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            (Condition::MemoryPressure, true) => (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            (Condition::DiskPressure, false) => {
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")
            }
            (Condition::DiskPressure, true) => {
                ("KubeletHasDiskPressure", "kubelet has disk pressure")
            }
            (Condition::PidPressure, false) => (
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
            (Condition::PidPressure, true) => (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ),
        };
        let status = if holds { "True" } else { "False" };
        (condition.name(), status, reason, message)
    };
    let mut all = [
        Condition::MemoryPressure,
        Condition::DiskPressure,
        Condition::PidPressure,
    ]
    .map(of_pressure)
    .to_vec();
    all.push(match problem {
        None => (
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        ),
        Some(problem) => ("Ready", "False", "KubeletNotReady", problem),
    });
    all.into_iter()
        .map(|(type_, status, reason, message)| {
            let mut known = old
                .and_then(|old| old.conditions.as_deref())
                .unwrap_or_default()
                .iter();
            let same = known.find(|c| c.type_ == type_ && c.status == status);
            let since = same.and_then(|c| c.last_transition_time.clone());
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            }
        })
        .collect()
}

/// Whether a node says that it is ready.
pub(crate) fn is_ready(status: &NodeStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|of| of.type_ == "Ready" && of.status == "True")
}

/// Whether no Pods are to be placed on the node.
pub(crate) fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.unschedulable) == Some(true)
}

/// The revision of the node's object; 0 if it does not tell.
pub(crate) fn revision(node: &Node) -> u64 {
    let version = node.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// What keeps Pods off the node.
pub(crate) fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.taints.clone())
        .unwrap_or_default()
}

/// What is to be said where the machine was booted since the node was last heard of.
pub(crate) fn rebooted(facts: &NodeFacts, old: &NodeStatus) -> Option<String> {
    let before = old.node_info.as_ref().map(|info| &*info.boot_id)?;
    let boot = &*facts.info.boot_id;
    let other = !before.is_empty() && !boot.is_empty() && before != boot;
    other.then(|| format!("Node {} has been rebooted, boot id: {boot}", facts.name))
}

/// Whether the two differ in more than heartbeats.
pub(crate) fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(a) != still(b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn facts() -> NodeFacts {
        NodeFacts {
            name: "n1".to_owned(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            taints: Vec::new(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pod_cidr: Some("10.42.0.0/24".to_owned()),
            capacity: resources::ResourceList::from([("pods".into(), "110".parse().unwrap())]),
            allocatable: resources::ResourceList::new(),
            info: super::super::capacity::system_info("wasmtime://48.0.0", "v1.37.0+coracle"),
            port: Some(10250),
            handlers: vec![("wasm".to_owned(), false)],
            strict_groups: true,
        }
    }

    #[test]
    fn another_boot_is_told_of() {
        let (mut facts, well) = (facts(), Conditions::new());
        let at = Time(Timestamp::from_second(1).unwrap());
        for (before, now, told) in [
            ("", "a", None),
            ("a", "a", None),
            ("a", "", None),
            ("a", "b", Some("Node n1 has been rebooted, boot id: b")),
        ] {
            facts.info.boot_id = before.to_owned();
            let old = status(&facts, Vec::new(), None, &well, None, at.clone());
            facts.info.boot_id = now.to_owned();
            assert_eq!(rebooted(&facts, &old).as_deref(), told, "{before} {now}");
        }
        assert_eq!(rebooted(&facts, &NodeStatus::default()), None);
    }

    #[test]
    fn heartbeats_alone_are_no_change() {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let well = Conditions::new();
        let first = status(&facts(), Vec::new(), None, &well, None, at(1));
        let second = status(&facts(), Vec::new(), None, &well, Some(&first), at(2));
        assert!(!differs(&first, &second));
        let broken = status(
            &facts(),
            Vec::new(),
            Some("runtime is down"),
            &[Condition::DiskPressure].into(),
            Some(&second),
            at(3),
        );
        assert!(differs(&second, &broken));
        let mut conditions = broken.conditions.unwrap();
        let [_, disk, pids] = &conditions[..3] else {
            panic!("{conditions:?}");
        };
        assert_eq!((&*disk.status, &*pids.status), ("True", "False"));
        assert_eq!(disk.last_transition_time, Some(at(3)));
        assert_eq!(pids.last_transition_time, Some(at(1)));
        let ready = conditions.pop().unwrap();
        assert_eq!(
            (ready.type_.as_str(), ready.status.as_str()),
            ("Ready", "False")
        );
        assert_eq!(ready.last_transition_time, Some(at(3)));
        let addresses = first.addresses.unwrap();
        assert_eq!(addresses.len(), 2);
        assert_eq!(addresses[1].address, "n1");
    }
}
