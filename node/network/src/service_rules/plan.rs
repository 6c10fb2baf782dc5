//! The table of a node as data, and the steps from one to another.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use coracle_runtime::Protocol;
use ipnet::Ipv4Net;

use crate::aliases::Alias;
use crate::host_ports::Published;
use crate::namespace::{Claim, overlap};
use crate::rules::{Rules, ServicePort};

/// What does not depend on Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The table's name.
    pub(crate) table: String,
    /// The link to the namespace that guests share.
    pub(crate) link: String,
    /// The range of the node's Pods.
    pub(crate) pods: Ipv4Net,
    /// As whom the machine calls Pods.
    pub(crate) node: Ipv4Addr,
    /// The range of the cluster's Pods.
    pub(crate) cluster: Ipv4Net,
    /// Whose the node is, and the range of Services that it has.
    pub(crate) claim: Claim,
}

/// Where a Service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frontend {
    pub(super) address: Ipv4Addr,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

impl Frontend {
    /// Whether what is called there comes to this port of the machine.
    pub(super) fn covers(self, called: Self) -> bool {
        let address = self.address.is_unspecified() || self.address == called.address;
        address && (self.protocol, self.port) == (called.protocol, called.port)
    }
}

/// How an endpoint of a frontend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Choice {
    /// There is none.
    Refuse,
    /// Any of so many.
    Random(u32),
    /// Any of so many, and the same for as long after a client's last connection.
    Sticky {
        /// Of how many.
        count: u32,
        /// For how long.
        seconds: u32,
    },
}

impl Choice {
    /// The chain that does it.
    pub(super) fn chain(self) -> String {
        match self {
            Self::Refuse => "refuse".to_owned(),
            Self::Random(count) => format!("random-{count}"),
            Self::Sticky { count, seconds } => format!("sticky-{count}-{seconds}"),
        }
    }
}

/// The table of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) frame: Frame,
    /// Whether the machine itself, and whoever is elsewhere, is answered by this table.
    pub(super) answers_machine: bool,
    pub(super) frontends: BTreeMap<Frontend, Choice>,
    /// By the number that is drawn, or by the member.
    pub(super) endpoints: BTreeMap<(Frontend, u32), SocketAddrV4>,
    /// For clients that stay: the member by the number that is drawn.
    pub(super) members: BTreeMap<(Frontend, u32), u32>,
    /// Ports of the machine that lead to Pods; those of all its addresses are at `0.0.0.0`.
    pub(super) host_ports: BTreeMap<Frontend, SocketAddrV4>,
    /// Pods of the node that may reach themselves.
    pub(super) hairpins: BTreeSet<Ipv4Addr>,
}

impl Table {
    /// One without Services.
    pub(super) fn empty(frame: Frame) -> Self {
        Self {
            frame,
            answers_machine: false,
            frontends: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            members: BTreeMap::new(),
            host_ports: BTreeMap::new(),
            hairpins: BTreeSet::new(),
        }
    }

    /// The chains of the choices; that which refuses is always there.
    fn choices(&self) -> BTreeSet<Choice> {
        let all = self.frontends.values().copied();
        all.filter(|choice| *choice != Choice::Refuse).collect()
    }

    /// Where flows to a frontend may go now.
    pub(super) fn serves(&self, frontend: Frontend, endpoint: SocketAddrV4) -> bool {
        let all = self.endpoints.range((frontend, 0)..=(frontend, u32::MAX));
        all.into_iter().any(|(_, known)| *known == endpoint)
    }

    /// Where a port of the machine leads.
    pub(super) fn host_port(&self, called: Frontend) -> Option<SocketAddrV4> {
        let address = Ipv4Addr::UNSPECIFIED;
        let own = self.host_ports.get(&called);
        let all = || self.host_ports.get(&Frontend { address, ..called });
        own.or_else(all).copied()
    }

    fn publish(&mut self, published: &Published) {
        let (SocketAddr::V4(target), true) = (published.target(), published.is_translated()) else {
            return;
        };
        let port = published.port;
        let frontend = Frontend {
            address: port.address,
            protocol: port.protocol,
            port: port.port,
        };
        if let Entry::Vacant(free) = self.host_ports.entry(frontend) {
            free.insert(target);
            self.hairpins.insert(*target.ip());
        }
    }

    fn add(&mut self, frontend: Frontend, affinity: Option<u32>, endpoints: &[SocketAddrV4]) {
        if self.frontends.contains_key(&frontend) {
            return;
        }
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        let choice = match affinity {
            _ if count == 0 => Choice::Refuse,
            None => Choice::Random(count),
            Some(seconds) => Choice::Sticky { count, seconds },
        };
        self.frontends.insert(frontend, choice);
        for (number, endpoint) in (0..).zip(endpoints) {
            let key = match affinity {
                None => number,
                Some(_) => {
                    let member = self.member(frontend, *endpoint);
                    self.members.insert((frontend, number), member);
                    member
                }
            };
            self.endpoints.insert((frontend, key), *endpoint);
            if self.frame.pods.contains(endpoint.ip()) {
                self.hairpins.insert(*endpoint.ip());
            }
        }
    }

    /// A number for an endpoint that is free, and the same as long as no other of the Service has
    /// the same one. Those with one port differ by their addresses.
    fn member(&self, frontend: Frontend, endpoint: SocketAddrV4) -> u32 {
        let mut member = endpoint.ip().to_bits() ^ u32::from(endpoint.port());
        while self.endpoints.contains_key(&(frontend, member)) {
            member = member.wrapping_add(1);
        }
        member
    }
}

/// The table for these Services and ports of Pods of the node. Sockets of the node that Pods know under another address are
/// reached where they are (`aliases`, as Pods reach them), also where that address is a Service's.
/// Of two Services with the same address the first one has it, and of two Pods with the same port.
pub(super) fn plan(
    rules: &Rules,
    host_ports: &[Published],
    aliases: &[Alias],
    frame: &Frame,
) -> Table {
    let mut table = Table::empty(frame.clone());
    for alias in aliases {
        let (IpAddr::V4(address), SocketAddr::V4(actual)) = (alias.known.ip(), alias.actual) else {
            continue;
        };
        if frame.claim.range.contains(&address) {
            let frontend = Frontend {
                address,
                protocol: alias.protocol,
                port: alias.known.port(),
            };
            table.add(frontend, None, &[actual]);
        }
    }
    for service in &rules.ports {
        let endpoints = endpoints(service, aliases);
        for address in &service.addresses {
            let IpAddr::V4(address) = *address else {
                continue;
            };
            let frontend = Frontend {
                address,
                protocol: service.protocol,
                port: service.port,
            };
            table.add(frontend, service.affinity, &endpoints);
        }
    }
    for port in host_ports {
        table.publish(port);
    }
    table
}

fn endpoints(service: &ServicePort, aliases: &[Alias]) -> Vec<SocketAddrV4> {
    let real = |endpoint: &SocketAddr| {
        let alias = aliases
            .iter()
            .find(|alias| alias.known == *endpoint && alias.protocol == service.protocol);
        match alias.map_or(*endpoint, |alias| alias.actual) {
            SocketAddr::V4(endpoint) => Some(endpoint),
            SocketAddr::V6(_) => None,
        }
    };
    service.endpoints.iter().filter_map(real).collect()
}

/// A step from one table to another. Each is possible after the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AddChoice(Choice),
    RemoveFrontend(Frontend),
    RemoveMember(Frontend, u32),
    RemoveEndpoint(Frontend, u32),
    RemoveHostPort(Frontend),
    AddHostPort(Frontend, SocketAddrV4),
    RemoveHairpin(Ipv4Addr),
    AddHairpin(Ipv4Addr),
    AddEndpoint(Frontend, u32, SocketAddrV4),
    AddMember(Frontend, u32, u32),
    AddFrontend(Frontend, Choice),
    RemoveChoice(Choice),
}

/// The steps from a table to another of the same frame.
pub(super) fn steps(from: &Table, to: &Table) -> Vec<Step> {
    let (old, new) = (from.choices(), to.choices());
    let mut steps = Vec::new();
    steps.extend(new.difference(&old).map(|choice| Step::AddChoice(*choice)));
    // What is there with another value goes first.
    steps.extend(lost(&from.frontends, &to.frontends).map(|key| Step::RemoveFrontend(*key)));
    steps.extend(lost(&from.members, &to.members).map(|(f, n)| Step::RemoveMember(*f, *n)));
    steps.extend(lost(&from.endpoints, &to.endpoints).map(|(f, n)| Step::RemoveEndpoint(*f, *n)));
    steps.extend(lost(&from.host_ports, &to.host_ports).map(|key| Step::RemoveHostPort(*key)));
    let won = |(key, value): (&Frontend, &SocketAddrV4)| Step::AddHostPort(*key, *value);
    steps.extend(gained(&from.host_ports, &to.host_ports).map(won));
    let hairpins = from.hairpins.difference(&to.hairpins);
    steps.extend(hairpins.map(|pod| Step::RemoveHairpin(*pod)));
    let hairpins = to.hairpins.difference(&from.hairpins);
    steps.extend(hairpins.map(|pod| Step::AddHairpin(*pod)));
    let won =
        |(key, value): (&(Frontend, u32), &SocketAddrV4)| Step::AddEndpoint(key.0, key.1, *value);
    steps.extend(gained(&from.endpoints, &to.endpoints).map(won));
    let won = |(key, value): (&(Frontend, u32), &u32)| Step::AddMember(key.0, key.1, *value);
    steps.extend(gained(&from.members, &to.members).map(won));
    let won = |(key, value): (&Frontend, &Choice)| Step::AddFrontend(*key, *value);
    steps.extend(gained(&from.frontends, &to.frontends).map(won));
    steps.extend(
        old.difference(&new)
            .map(|choice| Step::RemoveChoice(*choice)),
    );
    steps
}

fn lost<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let kept = |(key, value): &(&K, &V)| to.get(key) == Some(*value);
    from.iter()
        .filter(move |entry| !kept(entry))
        .map(|(key, _)| key)
}

fn gained<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let had = |(key, value): &(&K, &V)| from.get(key) == Some(*value);
    to.iter().filter(move |entry| !had(entry))
}

/// Frontends of UDP whose flows may go where none should any more: those that lost an endpoint,
/// and new ones, to which somebody may have sent before.
pub(super) fn disturbed(steps: &[Step]) -> BTreeSet<Frontend> {
    let of = |step: &Step| match *step {
        Step::AddFrontend(frontend, _)
        | Step::RemoveFrontend(frontend)
        | Step::RemoveEndpoint(frontend, _) => Some(frontend),
        _ => None,
    };
    let udp = |frontend: &Frontend| frontend.protocol == Protocol::Udp;
    steps.iter().filter_map(of).filter(udp).collect()
}

/// Ports of UDP of the machine that have come, have gone, or lead elsewhere.
pub(super) fn disturbed_ports(steps: &[Step]) -> BTreeSet<Frontend> {
    let of = |step: &Step| match *step {
        Step::AddHostPort(port, _) | Step::RemoveHostPort(port) => Some(port),
        _ => None,
    };
    let udp = |port: &Frontend| port.protocol == Protocol::Udp;
    steps.iter().filter_map(of).filter(udp).collect()
}

/// The node whose table answers the machine already, if that stands against a claim. `tables` are
/// all of the machine, with their comments.
pub(super) fn holder(
    own: &str,
    claim: &Claim,
    tables: &[(String, Option<String>)],
) -> Option<Claim> {
    tables
        .iter()
        .filter(|(name, _)| name != own)
        .filter_map(|(_, comment)| Claim::decode(comment.as_deref()?))
        .find(|other| overlap(other.range, claim.range))
}

#[cfg(test)]
pub(super) mod tests;
