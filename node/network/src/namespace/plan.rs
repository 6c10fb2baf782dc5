//! What the Pods of a node need on the machine, as data.
//!
//! Everything of a node carries a name made of its network's folder, so that the nodes of several
//! clusters on one machine do not meet. The link on the machine's side also carries a [`Claim`]
//! in its alias: whose cluster it is, and which range that cluster's Pods have. A route says that
//! a range is in use; the claim says so before there is a route, and tells the nodes of one
//! cluster, which share its range, from those of another.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets};
use sha2::{Digest, Sha256};

use super::links::{Found, Link, Route, Way};
use crate::addresses::namespaced_part;
use crate::nftables::COMMENT;

/// Where namespaces with a name are, by convention of iproute2.
pub(super) const NAMESPACES: &str = "/run/netns";
/// The group of the machine's links to Pods: one number for all nodes, so that a node's rules tell
/// what any node's Pods send.
pub(crate) const LINK_GROUP: u32 = 0x00c0_ac1e;
/// The link inside the namespace.
pub(super) const INSIDE: &str = "eth0";
/// The machine's end of the pair: the Pods' way out. Calico's convention; nobody routes it.
pub(super) const HOST_END: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The Pods' end. As the next hop of their whole range it is the one neighbour that the machine
/// remembers: an entry for each Pod would overflow its table at about a thousand.
pub(super) const POD_END: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// What a claim may have: it is the comment of a table too, which is the shorter one. The kernel
/// takes aliases below 256 bytes.
const CLAIM: usize = COMMENT;
/// A shorter prefix is a way to everywhere (a default route, or the halves that VPNs set).
const EVERYWHERE: u8 = 1;

/// Names of what a node has on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) folder: PathBuf,
    /// The file to which the namespace is bound.
    pub(super) namespace: PathBuf,
    /// The link on the machine's side.
    pub(super) link: String,
    /// The table of nftables.
    pub(super) table: String,
    /// How the machine's links to Pods with namespaces of their own begin.
    pub(super) pod_links: String,
}

impl Names {
    /// The names for an absolute path.
    pub(super) fn of(folder: &Path) -> Self {
        let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let hash: String = digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("coracle-{hash}");
        Self {
            // No "coracle-…" begins like this: its fourth letter is no digit.
            pod_links: format!("cor{}", &hash[..6]),
            folder: folder.to_owned(),
            namespace: Path::new(NAMESPACES).join(&name),
            // Names of links have at most 15 bytes.
            link: name[..15].to_owned(),
            table: name,
        }
    }
}

impl Names {
    /// The link of a Pod with a namespace of its own on the machine's side. The last three octets
    /// of its address tell it from all others of the node, whose range is no larger than a /8.
    pub(super) fn pod_link(&self, address: Ipv4Addr) -> String {
        let [_, a, b, c] = address.octets();
        format!("{}{a:02x}{b:02x}{c:02x}", self.pod_links)
    }

    /// The file to which the namespace of that Pod is bound.
    pub(super) fn pod_namespace(&self, address: Ipv4Addr) -> PathBuf {
        Path::new(NAMESPACES).join(format!("{}-{address}", self.table))
    }

    /// The Pod whose namespace has a file of that name.
    pub(super) fn pod_of(&self, file: &str) -> Option<Ipv4Addr> {
        file.strip_prefix(&*self.table)?
            .strip_prefix('-')?
            .parse()
            .ok()
    }

    /// Whether a link is one of the node's own.
    pub(super) fn owns(&self, link: &str) -> bool {
        let pods = link.strip_prefix(&*self.pod_links);
        let of_pod = pods.is_some_and(|rest| {
            rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        link == self.link || of_pod
    }
}

/// Who uses a range, for Pods or for Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// What tells the cluster from others.
    pub(crate) cluster: String,
    pub(crate) range: Ipv4Net,
    /// The folder of the node's network, unless its path is too long.
    pub(crate) folder: Option<PathBuf>,
}

impl Claim {
    pub(crate) fn encode(&self) -> String {
        let short = format!("coracle {} {}", self.cluster, self.range);
        match self.folder.as_deref().and_then(Path::to_str) {
            Some(folder) if short.len() + 1 + folder.len() <= CLAIM => format!("{short} {folder}"),
            _ => short,
        }
    }

    pub(crate) fn decode(alias: &str) -> Option<Self> {
        let mut words = alias.strip_prefix("coracle ")?.splitn(3, ' ');
        Some(Self {
            cluster: words.next()?.to_owned(),
            range: words.next()?.parse().ok()?,
            folder: words.next().map(PathBuf::from),
        })
    }
}

/// Why a range cannot be the Pods'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Conflict {
    #[error("the Pods' range {range} overlaps the route to {route} by {link}")]
    Route {
        range: Ipv4Net,
        route: Ipv4Net,
        link: String,
    },
    #[error(
        "the Pods' range {range} overlaps {other}, that of another cluster on this machine (link {link}{})",
        folder.as_ref().map(|folder| format!(", folder {}", folder.display())).unwrap_or_default()
    )]
    Cluster {
        range: Ipv4Net,
        other: Ipv4Net,
        link: String,
        folder: Option<PathBuf>,
    },
}

/// What stands against the claim of a node to its cluster's range. Links of nodes of the same
/// cluster do not, nor does our own.
pub(super) fn cluster_conflict(
    claim: &Claim,
    own: &Names,
    links: &[Link],
    routes: &[Found],
) -> Option<Conflict> {
    let mut others = Vec::new();
    for link in links.iter().filter(|link| !own.owns(&link.name)) {
        match link.alias.as_deref().and_then(Claim::decode) {
            Some(other) if other.cluster == claim.cluster => {}
            Some(other) if overlap(other.range, claim.range) => {
                return Some(Conflict::Cluster {
                    range: claim.range,
                    other: other.range,
                    link: link.name.clone(),
                    folder: other.folder,
                });
            }
            Some(_) => {}
            None => others.push(link),
        }
    }
    route_conflict(claim.range, &others, routes)
}

/// The ranges that are in that of no cluster with a node on this machine.
pub(super) fn unclaimed(ranges: &[Ipv4Net], links: &[Link]) -> Vec<Ipv4Net> {
    let claims: Vec<Claim> = links
        .iter()
        .filter_map(|link| Claim::decode(link.alias.as_deref()?))
        .collect();
    let claimed = |range: &Ipv4Net| claims.iter().any(|claim| claim.range.contains(range));
    ranges
        .iter()
        .copied()
        .filter(|range| !claimed(range))
        .collect()
}

/// What stands against the range of one node: a route to some of it by any other link.
pub(super) fn node_conflict(
    range: Ipv4Net,
    own: &Names,
    links: &[Link],
    routes: &[Found],
) -> Option<Conflict> {
    let others: Vec<&Link> = links.iter().filter(|link| !own.owns(&link.name)).collect();
    route_conflict(range, &others, routes)
}

/// A route to some of a range by any other link than `own`.
pub(super) fn route_by(
    range: Ipv4Net,
    own: &str,
    links: &[Link],
    routes: &[Found],
) -> Option<(Ipv4Net, String)> {
    let others: Vec<&Link> = links.iter().filter(|link| link.name != own).collect();
    route_through(range, &others, routes)
}

fn route_conflict(range: Ipv4Net, links: &[&Link], routes: &[Found]) -> Option<Conflict> {
    let (route, link) = route_through(range, links, routes)?;
    Some(Conflict::Route { range, route, link })
}

/// A route to some of a range by one of these links.
fn route_through(range: Ipv4Net, links: &[&Link], routes: &[Found]) -> Option<(Ipv4Net, String)> {
    routes
        .iter()
        .map(|found| &found.route)
        .filter(|route| matches!(route.way, Way::Gateway { .. }))
        .filter(|route| route.destination.prefix_len() > EVERYWHERE)
        .filter(|route| overlap(route.destination, range))
        .find_map(|route| {
            let link = links.iter().find(|link| link.index == route.link)?;
            Some((route.destination, link.name.clone()))
        })
}

pub(crate) fn overlap(one: Ipv4Net, two: Ipv4Net) -> bool {
    one.contains(&two.network()) || two.contains(&one.network())
}

/// One side of the pair of links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Settings of the kernel, in order.
    pub(super) settings: Vec<Setting>,
    /// The addresses of the side's link.
    pub(super) address: Option<Ipv4Addr>,
    /// In order: one may need the ones before it.
    pub(super) routes: Vec<Wanted>,
    /// Whether these are all: others that lead to the same links are of an earlier range.
    pub(super) complete: bool,
}

/// A file below `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) path: String,
    pub(super) value: &'static str,
    /// A kernel without IPv6 does not have it, and does not need it.
    pub(super) optional: bool,
}

impl Setting {
    fn new(path: &str, value: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            value,
            optional: false,
        }
    }

    /// No IPv6 on a link, or on those that are still to be made (`default`). Without it nothing
    /// comes from outside by this protocol; with it every new link waits a second for its own
    /// address, and tells its neighbours of itself.
    pub(super) fn no_ipv6(link: &str) -> Self {
        Self {
            optional: true,
            ..Self::new(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")
        }
    }

    /// Ports below 1024 are as good as others to a Pod: guests, and programs in containers that
    /// are no root, serve them as with other container runtimes.
    pub(super) fn low_ports() -> Self {
        Self::new("net/ipv4/ip_unprivileged_port_start", "0")
    }
}

/// A route whose link is known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) destination: Ipv4Net,
    pub(super) way: Way,
    pub(super) link: String,
}

impl Wanted {
    pub(super) fn through(&self, links: &[Link]) -> Option<Route> {
        let link = links.iter().find(|link| link.name == self.link)?;
        Some(Route {
            destination: self.destination,
            way: self.way,
            link: link.index,
        })
    }
}

/// What is wanted on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// On the machine.
    pub(super) host: Side,
    /// In the Pods' namespace.
    pub(super) pods: Side,
    /// What is refused on the machine where no Pod has it.
    pub(super) refused: Option<Ipv4Net>,
}

/// The part of a node's range for Pods with namespaces of their own.
pub(super) fn netns_part(range: Ipv4Net) -> Ipv4Net {
    match namespaced_part(range.into()) {
        IpNet::V4(part) => part,
        // It is of the range's family.
        IpNet::V6(_) => range,
    }
}

/// What is left for those that share one: a range is no prefix less another.
fn shared_part(range: Ipv4Net) -> impl Iterator<Item = Ipv4Net> {
    let end = u32::from(netns_part(range).network()).checked_sub(1);
    let end = end
        .map(Ipv4Addr::from)
        .filter(|end| *end >= range.network());
    end.into_iter()
        .flat_map(move |end| Ipv4Subnets::new(range.network(), end, 0))
}

/// The plan for a node; `range` once it is known, and the `node`'s address if it is one of this
/// machine.
pub(super) fn plan(names: &Names, range: Option<Ipv4Net>, node: Option<Ipv4Addr>) -> Plan {
    let mut plan = Plan {
        host: Side {
            settings: vec![
                Setting::no_ipv6(&names.link),
                Setting::new("net/ipv4/ip_forward", "1"),
            ],
            address: Some(HOST_END),
            routes: Vec::new(),
            complete: range.is_some(),
        },
        pods: Side {
            settings: vec![Setting::no_ipv6(INSIDE), Setting::low_ports()],
            address: Some(POD_END),
            routes: Vec::new(),
            complete: range.is_some(),
        },
        refused: range.map(netns_part),
    };
    let Some(range) = range else { return plan };
    plan.host.routes.push(Wanted {
        destination: range,
        way: Way::Gateway {
            gateway: Some(POD_END),
            // An address of scope link is called from only where that is said.
            source: Some(node.unwrap_or(HOST_END)),
        },
        link: names.link.clone(),
    });
    // Every address of the part is at home here without being given to a link one by one.
    let at_home = |destination| Wanted {
        destination,
        way: Way::Local,
        link: "lo".to_owned(),
    };
    plan.pods.routes.extend(shared_part(range).map(at_home));
    plan.pods.routes.push(Wanted {
        destination: Ipv4Net::default(),
        way: Way::Gateway {
            gateway: Some(HOST_END),
            // What a guest process asks for itself, and not as a Pod, comes from the range too:
            // its first address, which no Pod gets.
            source: range.hosts().next(),
        },
        link: INSIDE.to_owned(),
    });
    plan
}

#[cfg(test)]
mod tests;
