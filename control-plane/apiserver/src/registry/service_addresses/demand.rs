//! Which addresses a Service has or needs: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use crate::registry::erased::Object;
use crate::validation::service::needs_health_check;
use crate::validation::{items, text};

/// What a Service wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Whether it has a cluster IP.
    pub needs_ip: bool,
    /// The one that it names.
    pub ip: Option<Ipv4Addr>,
    /// The node ports that it names.
    pub ports: BTreeSet<u16>,
    /// The port that it names for its balancer to ask nodes at.
    pub health_check: Option<u16>,
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
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter(|_| may_have_node_ports(spec));
    Demand {
        needs_ip,
        ip: address.filter(|_| needs_ip).and_then(|ip| ip.parse().ok()),
        ports: ports.filter_map(node_port).collect(),
        health_check: health_check(spec).and_then(|number| u16::try_from(number).ok()),
    }
}

/// Whether the type has node ports.
fn may_have_node_ports(spec: &ServiceSpec) -> bool {
    matches!(text(&spec.type_), "NodePort" | "LoadBalancer")
}

/// Whether ports that name no node port get one.
fn allocates_node_ports(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// What a Service names as the port for health checks, if it has one at all.
fn health_check(spec: &ServiceSpec) -> Option<i32> {
    let named = spec.health_check_node_port.filter(|number| *number != 0);
    named.filter(|_| needs_health_check(spec))
}

/// From where a port of a Service has its node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The Service has the one already that it names, or it gets none.
    Kept,
    /// This one is to be taken for it, which it names or another port of its number does. It may
    /// be no port.
    Taken(i32),
    /// Any that is free is to be taken for it.
    Picked,
    /// It has that of the first port of its number: those of several protocols share one.
    Shared,
}

/// From where each port has its node port, in a Service that holds those of `held`; none in one
/// that is created. Of a type without node ports it is none.
pub(super) fn sources(spec: &ServiceSpec, held: Option<&BTreeSet<u16>>) -> Vec<Source> {
    if !may_have_node_ports(spec) {
        return Vec::new();
    }
    let (ports, allocates) = (items(&spec.ports), allocates_node_ports(spec));
    match held {
        None => sources_of_new(ports, allocates),
        Some(held) => sources_of_changed(ports, allocates, held),
    }
}

/// `initNodePorts` of Kubernetes, which takes a node port that two port numbers name twice, and
/// so refuses it.
fn sources_of_new(ports: &[ServicePort], allocates: bool) -> Vec<Source> {
    let mut requested: BTreeMap<i32, i32> = BTreeMap::new();
    for port in ports {
        if let Some(number) = named(port) {
            requested.entry(port.port).or_insert(number);
        }
    }
    let mut seen: BTreeSet<i32> = BTreeSet::new();
    let source = |port: &ServicePort| {
        let own = named(port);
        if own.is_none() && !allocates {
            return Source::Kept;
        }
        let of_number = requested.get(&port.port).copied();
        if seen.insert(port.port) {
            return of_number.map_or(Source::Picked, Source::Taken);
        }
        match own {
            Some(number) if of_number != Some(number) => Source::Taken(number),
            _ => Source::Shared,
        }
    };
    ports.iter().map(source).collect()
}

/// `updateNodePorts` of Kubernetes, by which ports share what they name alike, and nothing that
/// is picked.
fn sources_of_changed(ports: &[ServicePort], allocates: bool, held: &BTreeSet<u16>) -> Vec<Source> {
    let mut own: BTreeSet<i32> = held.iter().copied().map(i32::from).collect();
    let source = |port: &ServicePort| match named(port) {
        Some(number) if own.insert(number) => Source::Taken(number),
        None if allocates => Source::Picked,
        _ => Source::Kept,
    };
    ports.iter().map(source).collect()
}

/// From where a Service that holds `held` has the port for health checks: `allocHealthCheckNodePort`
/// of Kubernetes. One that an older version has stored without a port gets it with its next change.
pub(super) fn health_check_source(spec: &ServiceSpec, held: Option<u16>) -> Source {
    match health_check(spec) {
        Some(number) if held.map(i32::from) != Some(number) => Source::Taken(number),
        None if needs_health_check(spec) => Source::Picked,
        _ => Source::Kept,
    }
}

/// What a port names as its node port.
fn named(port: &ServicePort) -> Option<i32> {
    port.node_port.filter(|number| *number != 0)
}

fn node_port(port: &ServicePort) -> Option<u16> {
    u16::try_from(named(port)?).ok()
}

/// Keeps in an update the addresses that it leaves out and its type still has, so that a manifest
/// can be applied again without naming what was allocated: `patchAllocatedValues` of Kubernetes.
/// Called before the update is validated.
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
    let external = |spec: &ServiceSpec| text(&spec.type_) == "ExternalName";
    if !external(new) && !external(old) {
        if text(&new.cluster_ip).is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if items(&new.cluster_ips).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if allocates_node_ports(new) && allocates_node_ports(old) {
        carry_node_ports(new, old);
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && new.health_check_node_port.unwrap_or(0) == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A port is known again by its name, whatever else of it changes. A node port that both Services
/// name has its port already.
fn carry_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let given: BTreeSet<i32> = items(&new.ports).iter().filter_map(named).collect();
    let before = items(&old.ports).iter();
    let before: BTreeMap<&str, Option<i32>> =
        before.map(|port| (text(&port.name), named(port))).collect();
    for port in new.ports.iter_mut().flatten() {
        if named(port).is_none() {
            let kept = before.get(text(&port.name)).copied().flatten();
            port.node_port = kept.filter(|kept| !given.contains(kept));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source::{Kept, Picked, Shared, Taken};
    use super::*;
    use crate::validation::testing::{COUNT, many};

    /// A port by its name, its protocol, its number and its node port, of which 0 is none.
    type Port<'a> = (&'a str, &'a str, i32, i32);

    fn service(kind: &str, ports: &[Port<'_>]) -> Service {
        // A balancer that has no node ports but those that it names.
        let (kind, allocates) = match kind {
            "LoadBalancer without" => ("LoadBalancer", Some(false)),
            kind => (kind, None),
        };
        let ports = ports
            .iter()
            .map(|(name, protocol, port, node_port)| ServicePort {
                name: Some((*name).to_owned()),
                protocol: Some((*protocol).to_owned()),
                port: *port,
                node_port: Some(*node_port).filter(|number| *number != 0),
                ..ServicePort::default()
            });
        Service {
            spec: Some(ServiceSpec {
                type_: Some(kind.to_owned()),
                allocate_load_balancer_node_ports: allocates,
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
        let old = [("a", "TCP", 80, 8080), ("b", "UDP", 53, 5353)];
        let was = |kind: &str| service(kind, &old);
        let table: [(&str, &str, &[Port<'_>], &[i32]); 9] = [
            (
                "NodePort",
                "NodePort",
                &[("b", "UDP", 53, 0), ("a", "TCP", 80, 0)],
                &[5353, 8080],
            ),
            // It is the name that counts.
            ("NodePort", "NodePort", &[("b", "TCP", 54, 0)], &[5353]),
            ("NodePort", "NodePort", &[("c", "UDP", 53, 0)], &[0]),
            ("NodePort", "LoadBalancer", &[("b", "UDP", 53, 0)], &[5353]),
            ("NodePort", "NodePort", &[("a", "TCP", 80, 1)], &[1]),
            (
                "NodePort",
                "NodePort",
                &[("a", "TCP", 80, 0), ("c", "TCP", 81, 8080)],
                &[0, 8080],
            ),
            // Who allocates none keeps none, and what allocated none is not kept.
            (
                "NodePort",
                "LoadBalancer without",
                &[("a", "TCP", 80, 0)],
                &[0],
            ),
            (
                "LoadBalancer without",
                "NodePort",
                &[("a", "TCP", 80, 0)],
                &[0],
            ),
            ("NodePort", "ClusterIP", &[("a", "TCP", 80, 0)], &[0]),
        ];
        for (before, kind, ports, want) in table {
            let mut new = service(kind, ports);
            carry(&mut new, &was(before));
            assert_eq!(node_ports(&new), want, "{before} {kind} {ports:?}");
        }
    }

    #[test]
    fn other_addresses_are_carried_over() {
        let with = |kind: &str, policy: &str, ip: Option<&str>, check: Option<i32>| ServiceSpec {
            type_: Some(kind.to_owned()),
            external_traffic_policy: Some(policy.to_owned()),
            cluster_ip: ip.map(str::to_owned),
            cluster_ips: ip.map(|ip| vec![ip.to_owned()]),
            health_check_node_port: check,
            ..ServiceSpec::default()
        };
        let (ip, other) = (Some("10.43.0.9"), Some("10.43.0.8"));
        let old = with("LoadBalancer", "Local", ip, Some(30000));
        let table = [
            (with("LoadBalancer", "Local", None, None), ip, Some(30000)),
            (
                with("LoadBalancer", "Local", other, Some(1)),
                other,
                Some(1),
            ),
            (with("LoadBalancer", "Cluster", None, None), ip, None),
            (with("ExternalName", "", None, None), None, None),
        ];
        let of = |spec: ServiceSpec| Service {
            spec: Some(spec),
            ..Service::default()
        };
        for (spec, ip, check) in table {
            let mut new = of(spec);
            carry(&mut new, &of(old.clone()));
            let spec = new.spec.unwrap_or_default();
            assert_eq!(spec.cluster_ip.as_deref(), ip);
            assert_eq!(items(&spec.cluster_ips).first().map(String::as_str), ip);
            assert_eq!(spec.health_check_node_port, check);
        }
    }

    #[test]
    fn sources_of_node_ports() {
        type Held<'a> = Option<&'a [u16]>;
        let dns = [("t", "TCP", 53, 0), ("u", "UDP", 53, 0)];
        let asked = [("t", "TCP", 53, 0), ("u", "UDP", 53, 5353)];
        let three = [
            ("t", "TCP", 53, 5353),
            ("u", "UDP", 53, 5454),
            ("s", "SCTP", 53, 0),
        ];
        let one = [("a", "TCP", 80, 8080), ("b", "UDP", 81, 8080)];
        let none = [("a", "TCP", 80, -1)];
        let table: [(&str, &[Port<'_>], Held<'_>, &[Source]); 16] = [
            ("ClusterIP", &dns, None, &[]),
            ("ExternalName", &asked, None, &[]),
            ("NodePort", &dns, None, &[Picked, Shared]),
            ("LoadBalancer", &dns, None, &[Picked, Shared]),
            ("LoadBalancer without", &dns, None, &[Kept, Kept]),
            // One that is named is shared too, whichever port names it.
            ("NodePort", &asked, None, &[Taken(5353), Shared]),
            ("LoadBalancer without", &asked, None, &[Kept, Taken(5353)]),
            (
                "NodePort",
                &three,
                None,
                &[Taken(5353), Taken(5454), Shared],
            ),
            // Two numbers do not share one when they are created, and may when they are changed.
            ("NodePort", &one, None, &[Taken(8080), Taken(8080)]),
            ("NodePort", &one, Some(&[]), &[Taken(8080), Kept]),
            ("NodePort", &dns, Some(&[]), &[Picked, Picked]),
            ("NodePort", &asked, Some(&[5353]), &[Picked, Kept]),
            (
                "LoadBalancer without",
                &asked,
                Some(&[]),
                &[Kept, Taken(5353)],
            ),
            ("ClusterIP", &asked, Some(&[5353]), &[]),
            // What is no port is not replaced by one.
            ("NodePort", &none, None, &[Taken(-1)]),
            ("NodePort", &none, Some(&[]), &[Taken(-1)]),
        ];
        for (kind, ports, held, want) in table {
            let spec = service(kind, ports).spec.unwrap_or_default();
            let held: Option<BTreeSet<u16>> = held.map(|held| held.iter().copied().collect());
            let got = sources(&spec, held.as_ref());
            assert_eq!(got, want, "{kind} {ports:?} {held:?}");
        }
    }

    #[test]
    fn ports_for_health_checks() {
        let held = Some(30000);
        let table = [
            ("LoadBalancer", "Local", None, None, None, Picked),
            ("LoadBalancer", "Local", Some(0), None, None, Picked),
            (
                "LoadBalancer",
                "Local",
                Some(30000),
                None,
                held,
                Taken(30000),
            ),
            ("LoadBalancer", "Local", Some(30000), held, held, Kept),
            ("LoadBalancer", "Local", None, held, None, Picked),
            (
                "LoadBalancer",
                "Local",
                Some(30001),
                held,
                Some(30001),
                Taken(30001),
            ),
            // What is no port is not replaced by one.
            ("LoadBalancer", "Local", Some(-1), None, None, Taken(-1)),
            // Nobody asks for these, and none is held.
            ("LoadBalancer", "Cluster", None, held, None, Kept),
            ("LoadBalancer", "Cluster", Some(30000), held, None, Kept),
            ("NodePort", "Local", None, None, None, Kept),
            ("ClusterIP", "", None, held, None, Kept),
        ];
        for (kind, policy, named, held, wanted, source) in table {
            let mut service = service(kind, &[("a", "TCP", 80, 0)]);
            let spec = service.spec.get_or_insert_default();
            spec.external_traffic_policy = Some(policy.to_owned());
            spec.health_check_node_port = named;
            let row = format!("{kind} {policy} {named:?} {held:?}");
            assert_eq!(health_check_source(spec, held), source, "{row}");
            let demand = demand(&service);
            assert_eq!(demand.health_check, wanted, "{row}");
            assert!(demand.ports.is_empty(), "{row}");
        }
    }

    /// What is looked for in a list is in a set: a loop within a loop is minutes here.
    #[test]
    fn many_ports_cost_what_they_are() {
        let names = many(|name| name);
        let ports = |node_port: fn(i32) -> i32| {
            let all = (1..).zip(&names);
            let all: Vec<Port<'_>> = all
                .map(|(port, name)| (name.as_str(), "TCP", port, node_port(port)))
                .collect();
            service("LoadBalancer", &all)
        };
        // There are not as many node ports as that.
        let old = ports(|i| i % 50_000 + 1);
        let held = demand(&old).ports;
        assert_eq!(held.len(), 50_000);
        let mut new = ports(|_| 0);
        carry(&mut new, &old);
        assert_eq!(node_ports(&new), node_ports(&old));
        let spec = new.spec.unwrap_or_default();
        for (held, want) in [(None, Taken(2)), (Some(&held), Kept)] {
            let sources = sources(&spec, held);
            assert_eq!((sources.len(), sources.first()), (COUNT, Some(&want)));
        }
    }
}
