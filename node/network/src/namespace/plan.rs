//! What the Pods of a node need on the machine, as data.
//!
//! Everything of a node carries a name made of its network's folder, so that the nodes of several
//! clusters on one machine do not meet. The link on the machine's side also carries a [`Claim`]
//! in its alias: whose cluster it is, and which range that cluster's Pods have. A route says that
//! a range is in use; the claim says so before there is a route, and tells the nodes of one
//! cluster, which share its range, from those of another.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use super::links::{Found, Link, Route, Way};

/// Where namespaces with a name are, by convention of iproute2.
pub(super) const NAMESPACES: &str = "/run/netns";
/// The link inside the namespace.
pub(super) const INSIDE: &str = "eth0";
/// The machine's end of the pair: the Pods' way out. Calico's convention; nobody routes it.
pub(super) const HOST_END: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The Pods' end. As the next hop of their whole range it is the one neighbour that the machine
/// remembers: an entry for each Pod would overflow its table at about a thousand.
pub(super) const POD_END: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// The kernel takes aliases below 256 bytes.
const ALIAS: usize = 255;
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
            folder: folder.to_owned(),
            namespace: Path::new(NAMESPACES).join(&name),
            // Names of links have at most 15 bytes.
            link: name[..15].to_owned(),
            table: name,
        }
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
            Some(folder) if short.len() + 1 + folder.len() <= ALIAS => format!("{short} {folder}"),
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
    own: &str,
    links: &[Link],
    routes: &[Found],
) -> Option<Conflict> {
    let mut others = Vec::new();
    for link in links.iter().filter(|link| link.name != own) {
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

/// The ranges that belong to no cluster with a node on this machine.
pub(super) fn unclaimed(ranges: &[Ipv4Net], links: &[Link]) -> Vec<Ipv4Net> {
    let claims: Vec<Claim> = links
        .iter()
        .filter_map(|link| Claim::decode(link.alias.as_deref()?))
        .collect();
    let claimed = |range: &Ipv4Net| claims.iter().any(|claim| claim.range == *range);
    ranges
        .iter()
        .copied()
        .filter(|range| !claimed(range))
        .collect()
}

/// What stands against the range of one node: a route to some of it by any other link.
pub(super) fn node_conflict(
    range: Ipv4Net,
    own: &str,
    links: &[Link],
    routes: &[Found],
) -> Option<Conflict> {
    let others: Vec<&Link> = links.iter().filter(|link| link.name != own).collect();
    route_conflict(range, &others, routes)
}

/// A route to some of a range by any other link than `own`.
pub(super) fn route_by(
    range: Ipv4Net,
    own: &str,
    links: &[Link],
    routes: &[Found],
) -> Option<(Ipv4Net, String)> {
    match node_conflict(range, own, links, routes)? {
        Conflict::Route { route, link, .. } => Some((route, link)),
        Conflict::Cluster { other, link, .. } => Some((other, link)),
    }
}

fn route_conflict(range: Ipv4Net, links: &[&Link], routes: &[Found]) -> Option<Conflict> {
    routes
        .iter()
        .map(|found| &found.route)
        .filter(|route| matches!(route.way, Way::Gateway { .. }))
        .filter(|route| route.destination.prefix_len() > EVERYWHERE)
        .filter(|route| overlap(route.destination, range))
        .find_map(|route| {
            let link = links.iter().find(|link| link.index == route.link)?;
            Some(Conflict::Route {
                range,
                route: route.destination,
                link: link.name.clone(),
            })
        })
}

fn overlap(one: Ipv4Net, two: Ipv4Net) -> bool {
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
}

/// A file below `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) path: String,
    pub(super) value: &'static str,
    /// A kernel without IPv6 does not have it, and does not need it.
    pub(super) optional: bool,
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
}

/// The plan for a node; `range` once it is known, `node` if it is an address of this machine.
pub(super) fn plan(names: &Names, range: Option<Ipv4Net>, node: Option<Ipv4Addr>) -> Plan {
    // Without it nothing comes from outside by this protocol; with it every new link waits a
    // second for its own address, and tells its neighbours of itself.
    let no_ipv6 = |link: &str| Setting {
        path: format!("net/ipv6/conf/{link}/disable_ipv6"),
        value: "1",
        optional: true,
    };
    let setting = |path: &str, value| Setting {
        path: path.to_owned(),
        value,
        optional: false,
    };
    let mut plan = Plan {
        host: Side {
            settings: vec![no_ipv6(&names.link), setting("net/ipv4/ip_forward", "1")],
            address: Some(HOST_END),
            routes: Vec::new(),
        },
        pods: Side {
            settings: vec![
                no_ipv6(INSIDE),
                // Guests are no root, and ports below 1024 are as good as others to a Pod.
                setting("net/ipv4/ip_unprivileged_port_start", "0"),
            ],
            address: Some(POD_END),
            routes: Vec::new(),
        },
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
    // Every address of the range is at home here without being given to a link one by one.
    plan.pods.routes.push(Wanted {
        destination: range,
        way: Way::Local,
        link: "lo".to_owned(),
    });
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
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn names() -> Names {
        Names::of(Path::new("/var/lib/coracle/agent/network"))
    }

    #[test]
    fn names_fit_and_differ_by_folder() {
        let one = names();
        assert_eq!(one, names());
        assert_eq!(one.link.len(), 15);
        assert_eq!(one.namespace, Path::new(NAMESPACES).join(&one.table));
        assert!(one.table.starts_with(&one.link));
        let other = Names::of(Path::new("/tmp/other"));
        assert_ne!(one.link, other.link);
    }

    #[test]
    fn a_claim_survives_its_alias() {
        let claim = |folder: Option<String>| Claim {
            cluster: "c1".into(),
            range: net("10.42.0.0/16"),
            folder: folder.map(PathBuf::from),
        };
        for given in [claim(None), claim(Some("/a folder/with spaces".into()))] {
            assert_eq!(Claim::decode(&given.encode()), Some(given));
        }
        let long = claim(Some(format!("/{}", "x".repeat(300)))).encode();
        assert!(long.len() <= ALIAS);
        assert_eq!(Claim::decode(&long), Some(claim(None)));
        for alias in ["", "uplink", "coracle ", "coracle c1 nonsense /x"] {
            assert_eq!(Claim::decode(alias), None, "{alias}");
        }
    }

    #[test]
    fn ranges_in_use_are_conflicts() {
        let link = |index, name: &str, alias: Option<&str>| Link {
            index,
            name: name.into(),
            alias: alias.map(str::to_owned),
        };
        let links = [
            link(1, "eth0", Some("uplink")),
            link(2, "own", Some("coracle c1 10.42.0.0/16 /a")),
            link(3, "sibling", Some("coracle c1 10.42.0.0/16 /b")),
            link(4, "stranger", Some("coracle c2 10.50.0.0/16 /c")),
        ];
        let to = |destination: &str, link| Found {
            route: Route {
                destination: net(destination),
                way: Way::Gateway {
                    gateway: None,
                    source: None,
                },
                link,
            },
            fixed: true,
        };
        let routes = [
            to("0.0.0.0/0", 1),
            to("128.0.0.0/1", 1),
            to("192.0.2.0/24", 1),
            to("10.42.0.0/24", 2),
            to("10.42.1.0/24", 3),
        ];
        let cluster = |range: &str| {
            let claim = Claim {
                cluster: "c1".into(),
                range: net(range),
                folder: None,
            };
            cluster_conflict(&claim, "own", &links, &routes).map(|conflict| conflict.to_string())
        };
        let node = |range: &str| {
            node_conflict(net(range), "own", &links, &routes).map(|conflict| conflict.to_string())
        };
        let by = |range: &str, route: &str, link: &str| {
            Some(format!(
                "the Pods' range {range} overlaps the route to {route} by {link}"
            ))
        };
        assert_eq!(cluster("10.42.0.0/16"), None);
        assert_eq!(
            cluster("192.0.0.0/16"),
            by("192.0.0.0/16", "192.0.2.0/24", "eth0")
        );
        assert_eq!(
            cluster("192.0.2.128/25"),
            by("192.0.2.128/25", "192.0.2.0/24", "eth0")
        );
        assert_eq!(
            cluster("10.50.1.0/24"),
            Some(
                "the Pods' range 10.50.1.0/24 overlaps 10.50.0.0/16, that of another cluster on \
                 this machine (link stranger, folder /c)"
                    .into()
            )
        );
        let ranges = [
            net("10.42.0.0/16"),
            net("10.50.0.0/17"),
            net("10.50.0.0/16"),
        ];
        assert_eq!(unclaimed(&ranges, &links), [net("10.50.0.0/17")]);
        assert_eq!(node("10.42.0.0/24"), None);
        assert_eq!(node("10.42.2.0/24"), None);
        assert_eq!(
            node("10.42.1.0/24"),
            by("10.42.1.0/24", "10.42.1.0/24", "sibling")
        );
    }

    #[test]
    fn a_plan_has_routes_once_the_range_is_known() {
        let names = names();
        let early = plan(&names, None, None);
        assert!(early.host.routes.is_empty() && early.pods.routes.is_empty());
        let node = Some(Ipv4Addr::new(192, 0, 2, 2));
        let late = plan(&names, Some(net("10.42.3.0/24")), node);
        assert_eq!(late.host.settings, early.host.settings);
        let text = |side: &Side| {
            side.routes
                .iter()
                .map(|route| match route.way {
                    Way::Local => format!("local {} dev {}", route.destination, route.link),
                    Way::Gateway { gateway, source } => format!(
                        "{} via {} dev {} src {}",
                        route.destination,
                        gateway.unwrap(),
                        route.link,
                        source.unwrap()
                    ),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            text(&late.host),
            [format!(
                "10.42.3.0/24 via 169.254.1.2 dev {} src 192.0.2.2",
                names.link
            )]
        );
        assert_eq!(
            text(&late.pods),
            [
                "local 10.42.3.0/24 dev lo",
                "0.0.0.0/0 via 169.254.1.1 dev eth0 src 10.42.3.1"
            ]
        );
    }
}
