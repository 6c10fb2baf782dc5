//! Which addresses a Service has or needs: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::registry::erased::Object;

/// What a Service wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Whether it has a cluster IP.
    pub needs_ip: bool,
    /// The one that it names.
    pub ip: Option<Ipv4Addr>,
    /// Whether its ports have node ports.
    pub needs_ports: bool,
    /// Those that it names.
    pub ports: BTreeSet<u16>,
}

/// What a Service wants, by its type.
pub(super) fn demand(service: &Service) -> Demand {
    let Some(spec) = &service.spec else {
        return Demand::default();
    };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let address = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty())
        .or_else(|| {
            spec.cluster_ips
                .as_ref()
                .and_then(|ips| ips.first())
                .map(String::as_str)
        });
    let needs_ip = kind != "ExternalName" && address != Some("None");
    let needs_ports = kind == "NodePort"
        || (kind == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false));
    let may_have_ports = matches!(kind, "NodePort" | "LoadBalancer");
    let ports = spec.ports.iter().flatten().filter(|_| may_have_ports);
    Demand {
        needs_ip,
        ip: address.filter(|_| needs_ip).and_then(|ip| ip.parse().ok()),
        needs_ports,
        ports: ports.filter_map(node_port).collect(),
    }
}

/// The node port that a port names.
pub(super) fn node_port(port: &ServicePort) -> Option<u16> {
    let number = port.node_port.and_then(|port| u16::try_from(port).ok());
    number.filter(|number| *number > 0)
}

/// Keeps in an update the addresses that it leaves out and its type still has, and drops those
/// that were given for a type that it no longer has. Called before the update is validated, so
/// that a manifest can be applied again without naming what was allocated.
pub fn carry_over(new: &mut dyn Object, old: &dyn Object) {
    let new = new.as_any_mut().downcast_mut::<Service>();
    if let (Some(new), Some(old)) = (new, old.as_any().downcast_ref::<Service>()) {
        carry(new, old);
    }
}

fn carry(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (new.spec.as_mut(), old.spec.as_ref()) else {
        return;
    };
    let external = |kind: &Option<String>| kind.as_deref() == Some("ExternalName");
    let ported =
        |kind: &Option<String>| matches!(kind.as_deref(), Some("NodePort" | "LoadBalancer"));
    if external(&new.type_) && !external(&old.type_) {
        if new.cluster_ip == old.cluster_ip {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        new.ip_families = None;
        new.ip_family_policy = None;
    } else if !external(&new.type_) && !external(&old.type_) {
        if new.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) && new.cluster_ip == old.cluster_ip {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    let old_ports = old.ports.as_deref().unwrap_or_default();
    if ported(&new.type_) && ported(&old.type_) {
        let named = new.ports.iter().flatten();
        let named: BTreeSet<i32> = named.filter_map(|port| port.node_port).collect();
        let before = old_ports.iter().map(|port| {
            let key = (port.port, port.protocol.as_deref());
            (key, port.node_port)
        });
        let before: BTreeMap<_, _> = before.collect();
        for port in new.ports.iter_mut().flatten() {
            if port.node_port.unwrap_or(0) == 0 {
                let kept = before.get(&(port.port, port.protocol.as_deref()));
                let kept = kept.copied().flatten();
                port.node_port = kept.filter(|kept| !named.contains(kept));
            }
        }
    } else if !ported(&new.type_) && ported(&old.type_) {
        let given: BTreeSet<_> = old_ports.iter().map(|port| port.node_port).collect();
        for port in new.ports.iter_mut().flatten() {
            if given.contains(&port.node_port) {
                port.node_port = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::*;
    use crate::validation::testing::COUNT;

    /// A port by its protocol, its number and its node port, of which 0 is none.
    type Port<'a> = (&'a str, i32, i32);

    fn service(kind: &str, ports: &[Port<'_>]) -> Service {
        let ports = ports.iter().map(|(protocol, port, node_port)| ServicePort {
            protocol: Some((*protocol).to_owned()),
            port: *port,
            node_port: Some(*node_port).filter(|number| *number != 0),
            ..ServicePort::default()
        });
        Service {
            spec: Some(ServiceSpec {
                type_: Some(kind.to_owned()),
                ports: Some(ports.collect()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn node_ports(service: &Service) -> Vec<i32> {
        let ports = service.spec.iter().flat_map(|spec| &spec.ports).flatten();
        ports.map(|port| port.node_port.unwrap_or(0)).collect()
    }

    #[test]
    fn node_ports_are_carried_over() {
        let old = service("NodePort", &[("TCP", 80, 8080), ("UDP", 53, 5353)]);
        let table: [(&str, &[Port<'_>], &[i32]); 6] = [
            ("NodePort", &[("UDP", 53, 0), ("TCP", 80, 0)], &[5353, 8080]),
            ("LoadBalancer", &[("TCP", 53, 0)], &[0]),
            ("NodePort", &[("TCP", 80, 1)], &[1]),
            ("NodePort", &[("TCP", 80, 0), ("TCP", 81, 8080)], &[0, 8080]),
            ("ClusterIP", &[("TCP", 81, 8080), ("TCP", 82, 1)], &[0, 1]),
            ("ExternalName", &[("TCP", 80, 5353)], &[0]),
        ];
        for (kind, ports, want) in table {
            let mut new = service(kind, ports);
            carry(&mut new, &old);
            assert_eq!(node_ports(&new), want, "{kind} {ports:?}");
        }
    }

    /// What is looked for in a list is in a set: a loop within a loop is minutes here.
    #[test]
    fn many_ports_cost_what_they_are() {
        fn ports(node_port: impl Fn(i32) -> i32) -> Vec<Port<'static>> {
            let all = (1..).take(COUNT);
            all.map(|port| ("TCP", port, node_port(port))).collect()
        }
        let old = service("LoadBalancer", &ports(|i| i));
        assert_eq!(demand(&old).ports.len(), usize::from(u16::MAX));
        let mut new = service("LoadBalancer", &ports(|_| 0));
        carry(&mut new, &old);
        assert_eq!(node_ports(&new), node_ports(&old));
        let mut new = service("ClusterIP", &ports(|i| i));
        carry(&mut new, &old);
        assert_eq!(node_ports(&new), vec![0; COUNT]);
    }
}
