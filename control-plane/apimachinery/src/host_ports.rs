//! Ports of a node that Pods ask for (`ports[].hostPort`), and which of them stand against each
//! other. The scheduler goes by it, and the kubelet again.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Why a node cannot have a Pod, in the words of Kubernetes.
pub const TAKEN: &str = "node(s) didn't have free ports for the requested pod ports";

/// Every address of a node.
const ALL: &str = "0.0.0.0";

/// A port of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address of the node; `0.0.0.0` is all of them.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its number on the node.
    pub port: i32,
    /// That in the Pod.
    pub container_port: i32,
}

impl HostPort {
    /// Whether a node cannot have both.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let shared = self.address == other.address || self.address == ALL || other.address == ALL;
        shared && self.port == other.port && self.protocol == other.protocol
    }
}

/// The ports that a Pod holds while it runs: those of its containers and sidecars. On the node's own
/// network they are the containers' ports themselves, as admission has written.
#[must_use]
pub fn of(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let all = sidecars.chain(&spec.containers);
    all.flat_map(of_container).collect()
}

fn of_container(container: &Container) -> impl Iterator<Item = HostPort> {
    let ports = container.ports.iter().flatten();
    ports.filter_map(|port| {
        let address = port
            .host_ip
            .as_deref()
            .filter(|address| !address.is_empty());
        Some(HostPort {
            address: address.unwrap_or(ALL).to_owned(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: port.host_port.filter(|port| *port > 0)?,
            container_port: port.container_port,
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `ADDRESS PORT/PROTOCOL`
    fn port(text: &str) -> HostPort {
        let (address, port) = text.split_once(' ').unwrap();
        let (port, protocol) = port.split_once('/').unwrap();
        HostPort {
            address: address.to_owned(),
            protocol: protocol.to_owned(),
            port: port.parse().unwrap(),
            container_port: 80,
        }
    }

    #[test]
    fn ports_conflict_by_address_number_and_protocol() {
        for (one, other, conflict) in [
            ("0.0.0.0 80/TCP", "0.0.0.0 80/TCP", true),
            ("0.0.0.0 80/TCP", "127.0.0.1 80/TCP", true),
            ("127.0.0.1 80/TCP", "127.0.0.1 80/TCP", true),
            ("127.0.0.1 80/TCP", "192.0.2.1 80/TCP", false),
            ("0.0.0.0 80/TCP", "0.0.0.0 80/UDP", false),
            ("0.0.0.0 80/TCP", "127.0.0.1 81/TCP", false),
        ] {
            let (one, other) = (port(one), port(other));
            assert_eq!(one.conflicts(&other), conflict, "{one:?} {other:?}");
            assert_eq!(other.conflicts(&one), conflict, "{other:?} {one:?}");
        }
    }

    #[test]
    fn what_runs_beside_each_other_holds_its_ports() {
        let with = |name: &str, policy: Option<&str>, ports: serde_json::Value| json!({"name": name, "restartPolicy": policy, "ports": ports});
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                with("init", None, json!([{"containerPort": 1, "hostPort": 1}])),
                with("sidecar", Some("Always"), json!([{"containerPort": 2, "hostPort": 3, "protocol": "UDP"}])),
            ],
            "containers": [with("main", None, json!([
                {"containerPort": 80},
                {"containerPort": 80, "hostPort": 81, "hostIP": "127.0.0.1"},
            ]))],
        }))
        .unwrap();
        let found = of(&spec);
        let text = |port: &HostPort| {
            let HostPort {
                address,
                protocol,
                port,
                container_port,
            } = port;
            format!("{address} {port}/{protocol} {container_port}")
        };
        let found: Vec<_> = found.iter().map(text).collect();
        assert_eq!(found, ["0.0.0.0 3/UDP 2", "127.0.0.1 81/TCP 80"]);
    }
}
