//! Which addresses a Service has or needs: pure.

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
    pub ports: Vec<u16>,
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
    let mut ports: Vec<u16> = Vec::new();
    for port in spec.ports.iter().flatten().filter(|_| may_have_ports) {
        let number = port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(0);
        if number > 0 && !ports.contains(&number) {
            ports.push(number);
        }
    }
    Demand {
        needs_ip,
        ip: address.filter(|_| needs_ip).and_then(|ip| ip.parse().ok()),
        needs_ports,
        ports,
    }
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
        let named: Vec<i32> = new
            .ports
            .iter()
            .flatten()
            .filter_map(|port| port.node_port)
            .collect();
        for port in new.ports.iter_mut().flatten() {
            if port.node_port.unwrap_or(0) == 0 {
                let same = |other: &&ServicePort| {
                    other.port == port.port && other.protocol == port.protocol
                };
                let kept = old_ports
                    .iter()
                    .find(same)
                    .and_then(|other| other.node_port);
                port.node_port = kept.filter(|kept| !named.contains(kept));
            }
        }
    } else if !ported(&new.type_) && ported(&old.type_) {
        for port in new.ports.iter_mut().flatten() {
            if old_ports
                .iter()
                .any(|other| other.node_port == port.node_port)
            {
                port.node_port = None;
            }
        }
    }
}
