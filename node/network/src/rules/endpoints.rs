//! Which endpoints of a Service take its connections on a node.
//!
//! After "Virtual IPs and Service Proxies" of the Kubernetes documentation. Ready endpoints serve;
//! where none is ready, those that are terminating but still serving do, among all endpoints and
//! among those of the node alike. Hints narrow all of them down only where every ready endpoint
//! has one and some are for here: those for the node go before those for its zone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use coracle_runtime::Protocol;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};

use super::{Place, protocol};

/// The endpoints that one port of a Service has, sorted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// For calls that may go to any node.
    pub(super) anywhere: Vec<SocketAddr>,
    /// For calls that stay on this one.
    pub(super) local: Vec<SocketAddr>,
}

/// What is known of a socket that may serve.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    /// Otherwise it still serves while it terminates.
    is_ready: bool,
    is_local: bool,
    hints: Option<&'a EndpointHints>,
}

impl<'a> Candidate<'a> {
    fn nodes(self) -> Vec<&'a str> {
        let nodes = self.hints.and_then(|hints| hints.for_nodes.as_ref());
        nodes.into_iter().flatten().map(|n| &*n.name).collect()
    }

    fn zones(self) -> Vec<&'a str> {
        let zones = self.hints.and_then(|hints| hints.for_zones.as_ref());
        zones.into_iter().flatten().map(|z| &*z.name).collect()
    }
}

type Candidates<'a> = BTreeMap<SocketAddr, Candidate<'a>>;

pub(super) fn choose(
    slices: &[&EndpointSlice],
    port_name: &str,
    protocol: Protocol,
    place: &Place,
) -> Chosen {
    let all = candidates(slices, port_name, protocol, &place.node);
    let nearby = Nearby::of(&all, place);
    Chosen {
        // Hints are of those that are ready.
        anywhere: serving(&all, |candidate| {
            !candidate.is_ready || nearby.takes(candidate, place)
        }),
        local: serving(&all, |candidate| candidate.is_local),
    }
}

fn candidates<'a>(
    slices: &[&'a EndpointSlice],
    port_name: &str,
    protocol_of: Protocol,
    node: &str,
) -> Candidates<'a> {
    let mut found = Candidates::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && protocol(port.protocol.as_deref()) == Some(protocol_of)
        });
        let numbers = ports.filter_map(|port| u16::try_from(port.port?).ok());
        for number in numbers.filter(|number| *number != 0) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(is_ready) = usable(endpoint) else {
                    continue;
                };
                let candidate = Candidate {
                    is_ready,
                    is_local: !node.is_empty() && endpoint.node_name.as_deref() == Some(node),
                    hints: endpoint.hints.as_ref(),
                };
                for address in endpoint.addresses.iter().filter_map(|text| address(text)) {
                    // Two slices may name the same socket while the controller moves it between
                    // them.
                    let known = found.entry(SocketAddr::new(address, number));
                    let known = known.or_insert(candidate);
                    if candidate.is_ready && !known.is_ready {
                        *known = candidate;
                    }
                }
            }
        }
    }
    found
}

/// An endpoint's address. The API server refuses those that are somebody else on each machine; as
/// whoever listens on the node's own loopback is at stake, they are passed over here too.
fn address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    let is_special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!is_special).then_some(address)
}

/// Those that fit and are ready; if there are none, those that fit and are ending.
fn serving(all: &Candidates<'_>, fits: impl Fn(Candidate<'_>) -> bool) -> Vec<SocketAddr> {
    let of = |is_ready: bool| -> Vec<SocketAddr> {
        let some = all
            .iter()
            .filter(|(_, candidate)| candidate.is_ready == is_ready && fits(**candidate));
        some.map(|(socket, _)| *socket).collect()
    };
    let ready = of(true);
    if ready.is_empty() { of(false) } else { ready }
}

/// How near endpoints are to be.
#[derive(Clone, Copy)]
enum Nearby {
    Anywhere,
    Zone,
    Node,
}

impl Nearby {
    fn of(all: &Candidates<'_>, place: &Place) -> Self {
        let ready: Vec<Candidate<'_>> = all.values().copied().filter(|c| c.is_ready).collect();
        // Hints that some endpoints lack are from before a change, and would leave those out.
        let all_have_nodes = ready.iter().all(|c| !c.nodes().is_empty());
        if all_have_nodes && ready.iter().any(|c| c.nodes().contains(&&*place.node)) {
            return Self::Node;
        }
        let all_have_zones = ready.iter().all(|c| !c.zones().is_empty());
        if all_have_zones && ready.iter().any(|c| is_for_zone(*c, place)) {
            return Self::Zone;
        }
        Self::Anywhere
    }

    fn takes(self, candidate: Candidate<'_>, place: &Place) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Zone => is_for_zone(candidate, place),
            Self::Node => candidate.nodes().contains(&&*place.node),
        }
    }
}

fn is_for_zone(candidate: Candidate<'_>, place: &Place) -> bool {
    let zone = place.zone.as_deref();
    zone.is_some_and(|zone| candidate.zones().contains(&zone))
}

/// Whether an endpoint is ready (`true`) or at least still serves while it terminates (`false`).
fn usable(endpoint: &Endpoint) -> Option<bool> {
    let conditions = endpoint.conditions.as_ref();
    // An absent condition means ready (EndpointConditions in the API reference).
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    if ready {
        Some(true)
    } else if serving && terminating {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
