//! The table of a node as data.

mod steps;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use coracle_runtime::Protocol;
use ipnet::Ipv4Net;

use crate::aliases::Alias;
use crate::host_ports::Published;
use crate::namespace::{Claim, overlap};
use crate::rules::{Lead, Rules, ServicePort};
pub(super) use steps::{Step, disturbed, disturbed_ports, steps};

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

    /// The same port, at whichever address of the machine.
    fn of_machine(self) -> Self {
        let address = Ipv4Addr::UNSPECIFIED;
        Self { address, ..self }
    }
}

/// Of whose calls it is said where they lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Calls {
    /// Those of whoever nothing else is said of.
    Any,
    /// Those from elsewhere to an address, where they do not lead where others do.
    FromElsewhere,
    /// Those from elsewhere to a port of the machine. Its frontend has the address `0.0.0.0`.
    ToMachine,
}

impl Calls {
    /// The bit that numbers of endpoints for calls from elsewhere have: their frontends have others
    /// for the calls of the node too.
    pub(super) const BIT: u32 = 1 << 31;

    /// The first number of an endpoint.
    pub(super) fn first(self) -> u32 {
        match self {
            Self::Any | Self::ToMachine => 0,
            Self::FromElsewhere => Self::BIT,
        }
    }

    /// The number for these calls of an endpoint that has this one for others.
    fn number(self, of_others: u32) -> u32 {
        (of_others & !Self::BIT) | self.first()
    }
}

/// How an endpoint of a frontend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Choice {
    /// There is none.
    Refuse,
    /// There is none that the call may go to.
    Drop,
    /// It is another proxy's.
    Leave,
    /// Any of so many.
    Random(Calls, u32),
    /// Any of so many, and the same for as long after a client's last connection.
    Sticky {
        /// Of whom.
        calls: Calls,
        /// Of how many.
        count: u32,
        /// For how long.
        seconds: u32,
    },
}

impl Choice {
    /// The chain that does it.
    pub(super) fn chain(self) -> String {
        let of = |calls: Calls| match calls {
            Calls::Any => "",
            Calls::FromElsewhere => "elsewhere-",
            Calls::ToMachine => "machine-",
        };
        match self {
            Self::Refuse => "refuse".to_owned(),
            Self::Drop => "dropped".to_owned(),
            Self::Leave => "left".to_owned(),
            Self::Random(calls, count) => format!("{}random-{count}", of(calls)),
            Self::Sticky {
                calls,
                count,
                seconds,
            } => format!("{}sticky-{count}-{seconds}", of(calls)),
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
    /// For calls from elsewhere, where they do not go by `frontends`.
    pub(super) elsewhere: BTreeMap<Frontend, Choice>,
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
            elsewhere: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            members: BTreeMap::new(),
            host_ports: BTreeMap::new(),
            hairpins: BTreeSet::new(),
        }
    }

    /// The chains of the choices; that which refuses is always there.
    fn choices(&self) -> BTreeSet<Choice> {
        let all = self.frontends.values().chain(self.elsewhere.values());
        let all = all.copied();
        all.filter(|choice| *choice != Choice::Refuse).collect()
    }

    /// Where flows to a frontend may go now.
    pub(super) fn serves(&self, frontend: Frontend, endpoint: SocketAddrV4) -> bool {
        let all = self.endpoints.range((frontend, 0)..=(frontend, u32::MAX));
        all.into_iter().any(|(_, known)| *known == endpoint)
    }

    /// Where a port of the machine leads that a Pod asked for.
    fn host_port(&self, called: Frontend) -> Option<SocketAddrV4> {
        let own = self.host_ports.get(&called);
        let all = || self.host_ports.get(&called.of_machine());
        own.or_else(all).copied()
    }

    /// Whether a port of the machine is translated.
    pub(super) fn has_port(&self, called: Frontend) -> bool {
        self.elsewhere.contains_key(&called.of_machine()) || self.host_port(called).is_some()
    }

    /// Whether a port of the machine may lead there.
    pub(super) fn port_leads(&self, called: Frontend, to: SocketAddrV4) -> bool {
        self.host_port(called) == Some(to) || self.serves(called.of_machine(), to)
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

    fn add(&mut self, calls: Calls, frontend: Frontend, affinity: Option<u32>, to: &To) {
        let frontends = match calls {
            Calls::Any => &mut self.frontends,
            Calls::FromElsewhere | Calls::ToMachine => &mut self.elsewhere,
        };
        let Entry::Vacant(free) = frontends.entry(frontend) else {
            return;
        };
        let (none, endpoints) = match to {
            To::Endpoints(endpoints) => (Choice::Refuse, endpoints.as_slice()),
            To::Dropped => (Choice::Drop, &[][..]),
            To::Left => (Choice::Leave, &[][..]),
        };
        let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        free.insert(match affinity {
            _ if count == 0 => none,
            None => Choice::Random(calls, count),
            Some(seconds) => Choice::Sticky {
                calls,
                count,
                seconds,
            },
        });
        for (number, endpoint) in (calls.first()..).zip(endpoints) {
            let key = match affinity {
                None => number,
                Some(_) => {
                    let member = self.member(calls, frontend, *endpoint);
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
    /// the same one. Those with one port differ by their addresses. But for the bit it is the same
    /// for all calls, so that a client who is known from other calls keeps its endpoint where that is
    /// one for these too, and where not is seen to have none.
    fn member(&self, calls: Calls, frontend: Frontend, endpoint: SocketAddrV4) -> u32 {
        let own = endpoint.ip().to_bits() ^ u32::from(endpoint.port());
        let mut member = calls.number(own);
        while self.endpoints.contains_key(&(frontend, member)) {
            member = calls.number(member.wrapping_add(1));
        }
        member
    }
}

/// The table for these Services and ports of Pods of the node.
///
/// Sockets of the node that Pods know under another address are reached where they are (`aliases`,
/// as Pods reach them), also where that address is a Service's. Of two Services with the same
/// address the first one has it, and of two Pods with the same port. What a Service only claims to
/// have outside it has after all that are the cluster's: nobody takes another's calls by naming its
/// address.
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
            table.add(Calls::Any, frontend, None, &To::Endpoints(vec![actual]));
        }
    }
    for service in &rules.ports {
        let internal = To::of(service.internal(), service.protocol, aliases);
        for frontend in frontends(service, &service.addresses) {
            table.add(Calls::Any, frontend, service.affinity, &internal);
        }
    }
    for (address, port, protocol) in &rules.left {
        if let IpAddr::V4(address) = *address {
            let frontend = Frontend {
                address,
                protocol: *protocol,
                port: *port,
            };
            table.add(Calls::Any, frontend, None, &To::Left);
        }
    }
    for service in &rules.ports {
        table.add_external(service, aliases);
    }
    for port in host_ports {
        table.publish(port);
    }
    table
}

impl Table {
    /// A Service's addresses for outside, and its port on the machine as far as that is not the
    /// agent's.
    fn add_external(&mut self, service: &ServicePort, aliases: &[Alias]) {
        if service.external_addresses.is_empty() && !service.external_is_local {
            return;
        }
        let from_here = To::of(service.external_from_here(), service.protocol, aliases);
        let external = To::of(service.external(), service.protocol, aliases);
        let differs = service.external_is_local && service.external() != Lead::Refused;
        for frontend in frontends(service, &service.external_addresses) {
            // An address that is the cluster's, or another Service's, stays what it is.
            if self.frontends.contains_key(&frontend) {
                continue;
            }
            let affinity = service.affinity;
            self.add(Calls::Any, frontend, affinity, &from_here);
            if differs {
                self.add(Calls::FromElsewhere, frontend, affinity, &external);
            }
        }
        if let Some(port) = service.node_port.filter(|_| differs) {
            let frontend = Frontend {
                address: Ipv4Addr::UNSPECIFIED,
                protocol: service.protocol,
                port,
            };
            self.add(Calls::ToMachine, frontend, service.affinity, &external);
        }
    }
}

fn frontends(service: &ServicePort, addresses: &[IpAddr]) -> impl Iterator<Item = Frontend> {
    let frontend = move |address: &IpAddr| match *address {
        IpAddr::V4(address) => Some(Frontend {
            address,
            protocol: service.protocol,
            port: service.port,
        }),
        IpAddr::V6(_) => None,
    };
    addresses.iter().filter_map(frontend)
}

/// Where a frontend leads.
enum To {
    /// To one of these; to nobody, if there is none.
    Endpoints(Vec<SocketAddrV4>),
    Dropped,
    /// To another proxy.
    Left,
}

impl To {
    /// As far as the kernel's table can lead there.
    fn of(lead: Lead<'_>, protocol: Protocol, aliases: &[Alias]) -> Self {
        let endpoints = match lead {
            Lead::To(endpoints) => endpoints,
            Lead::Refused => &[],
            Lead::Dropped => return Self::Dropped,
        };
        let real = |endpoint: &SocketAddr| {
            let alias = aliases
                .iter()
                .find(|alias| alias.known == *endpoint && alias.protocol == protocol);
            match alias.map_or(*endpoint, |alias| alias.actual) {
                SocketAddr::V4(endpoint) => Some(endpoint),
                SocketAddr::V6(_) => None,
            }
        };
        Self::Endpoints(endpoints.iter().filter_map(real).collect())
    }
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
