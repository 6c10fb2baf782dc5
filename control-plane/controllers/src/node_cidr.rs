//! A range of Pod addresses for every node, out of the cluster's.
//!
//! The Node object is the reservation: a range is taken as long as a Node carries it in
//! `spec.podCIDR`, and the controller keeps no other record.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, PACE, Writes};
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::informer::revision_of;
use crate::queue::{Reconcile, WorkQueue};

/// A range of IPv4 addresses, such as `10.42.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: u32,
    prefix: u8,
}

impl Cidr {
    /// Where Pods are unless somebody says otherwise: 10.42.0.0/16.
    pub const DEFAULT: Self = Self {
        first: u32::from_be_bytes([10, 42, 0, 0]),
        prefix: 16,
    };

    /// The range with this prefix length that begins at or before `first`.
    pub fn new(first: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix > 32 {
            return None;
        }
        let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
        let first = u32::from(first) & mask;
        Some(Self { first, prefix })
    }

    /// How many ranges of prefix length `mask` it has.
    fn parts(&self, mask: u8) -> u32 {
        match mask.checked_sub(self.prefix) {
            Some(bits @ 0..=31) => 1 << bits,
            _ => 0,
        }
    }

    /// The part of that number.
    fn part(&self, number: u32, mask: u8) -> Self {
        let size = 1u32.checked_shl(u32::from(32 - mask)).unwrap_or(0);
        let first = self.first.wrapping_add(number.wrapping_mul(size));
        Self {
            first,
            prefix: mask,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
        self.first & mask == other.first & mask
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, prefix)| Self::new(address.parse().ok()?, prefix.parse().ok()?));
        parsed.ok_or_else(|| format!("{text:?} is not an IPv4 range such as 10.42.0.0/16"))
    }
}

/// The cluster's range, and the prefix length of a node's part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranges {
    pub(crate) cluster: Cidr,
    pub(crate) node_mask: u8,
}

pub(crate) async fn run(context: Context, ranges: Ranges) {
    // One pass looks at all nodes, so that no two get the same range.
    let queue = WorkQueue::new(PACE);
    context.route(&context.informers.nodes, &queue, |_| vec![()]);
    let controller = Arc::new(Controller {
        events: context.events.of("cidrAllocator"),
        writes: Writes::new(),
        context: context.clone(),
        ranges,
    });
    let cancel = context.cancel.clone();
    queue.run("nodecidr", 1, cancel, controller).await;
}

struct Controller {
    context: Context,
    events: Events,
    writes: Writes<()>,
    ranges: Ranges,
}

impl Reconcile<()> for Controller {
    async fn reconcile(&self, (): ()) -> Result<Option<Duration>, Error> {
        let nodes = &self.context.informers.nodes;
        if let Err(wait) = self.writes.shown(&(), nodes.revision()) {
            return Ok(Some(wait));
        }
        let api: Api<Node> = Api::all(self.context.client.clone());
        for (node, cidr) in plan(self.ranges, &nodes.store().state()) {
            let Some(cidr) = cidr else {
                let message = "No range of Pod addresses is left for this node";
                self.events
                    .warning(&*node, "CIDRNotAvailable", message.to_owned());
                continue;
            };
            let cidr = cidr.to_string();
            let patch = json!({"metadata": {"uid": node.uid()},
                "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
            let params = PatchParams::default();
            let patched = api
                .patch(&node.name_any(), &params, &Patch::Merge(patch))
                .await;
            let patched = ignore_not_found(patched).map_err(Error::api("give a node its range"))?;
            if let Some(node) = patched {
                self.writes.wrote(&(), revision_of(&node));
            }
        }
        Ok(None)
    }
}

/// Which node gets which range; none where none is left.
fn plan(ranges: Ranges, nodes: &[Arc<Node>]) -> Vec<(Arc<Node>, Option<Cidr>)> {
    let taken: Vec<Cidr> = nodes
        .iter()
        .filter_map(|node| range_of(node)?.parse().ok())
        .collect();
    let exact: HashSet<Cidr> = taken.iter().copied().collect();
    let odd: Vec<Cidr> = taken
        .into_iter()
        .filter(|c| c.prefix != ranges.node_mask)
        .collect();
    let parts = 0..ranges.cluster.parts(ranges.node_mask);
    let mut free = parts
        .map(|number| ranges.cluster.part(number, ranges.node_mask))
        .filter(|part| !exact.contains(part) && !odd.iter().any(|taken| taken.overlaps(part)));
    let mut without: Vec<_> = nodes
        .iter()
        .filter(|node| range_of(node).is_none())
        .collect();
    without.sort_by_key(|node| (node.metadata.creation_timestamp.clone(), node.name_any()));
    let without = without
        .into_iter()
        .filter(|node| node.metadata.deletion_timestamp.is_none());
    without.map(|node| (node.clone(), free.next())).collect()
}

fn range_of(node: &Node) -> Option<&str> {
    let cidr = node.spec.as_ref()?.pod_cidr.as_deref()?;
    (!cidr.is_empty()).then_some(cidr)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, cidr: Option<&str>) -> Arc<Node> {
        let spec = json!({"podCIDR": cidr});
        let node = json!({"metadata": {"name": name}, "spec": spec});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn planned(cluster: &str, node_mask: u8, nodes: &[Arc<Node>]) -> Vec<(String, String)> {
        let ranges = Ranges {
            cluster: cluster.parse().unwrap(),
            node_mask,
        };
        let text = |cidr: Option<Cidr>| cidr.map_or("none".to_owned(), |c| c.to_string());
        plan(ranges, nodes)
            .into_iter()
            .map(|(n, c)| (n.name_any(), text(c)))
            .collect()
    }

    #[test]
    fn the_lowest_free_range() {
        let nodes = [
            node("a", Some("10.42.0.0/24")),
            node("b", None),
            node("c", Some("10.42.2.0/24")),
            node("d", None),
        ];
        let expected = [("b", "10.42.1.0/24"), ("d", "10.42.3.0/24")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(planned("10.42.0.0/16", 24, &nodes), expected);
    }

    #[test]
    fn a_range_of_another_size_is_respected_and_an_end_is_told() {
        let nodes = [
            node("a", Some("10.42.0.0/25")),
            node("b", None),
            node("c", None),
        ];
        let expected =
            [("b", "10.42.1.0/24"), ("c", "none")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(planned("10.42.0.0/23", 24, &nodes), expected);
        assert_eq!(
            planned("10.42.0.0/16", 18, &[node("up", None)])[0].1,
            "10.42.0.0/18"
        );
        assert_eq!(planned("10.42.0.0/24", 16, &[node("x", None)])[0].1, "none");
    }

    #[test]
    fn ranges_are_read_and_written() {
        for (text, expected) in [("10.42.7.9/16", "10.42.0.0/16"), ("0.0.0.0/0", "0.0.0.0/0")] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), expected);
        }
        for text in ["10.42.0.0", "10.42.0.0/33", "x/16", "fd00::/64"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nobody_shares(taken in prop::collection::hash_set(0u8..60, 0..30), new in 0usize..20) {
            let mut nodes: Vec<_> = taken.iter()
                .map(|n| node(&format!("t{n}"), Some(&format!("10.42.{n}.0/24")))).collect();
            nodes.extend((0..new).map(|n| node(&format!("n{n}"), None)));
            let mut all: Vec<_> = planned("10.42.0.0/16", 24, &nodes).into_iter().map(|(_, c)| c).collect();
            all.extend(taken.iter().map(|n| format!("10.42.{n}.0/24")));
            let distinct: HashSet<_> = all.iter().collect();
            prop_assert_eq!(distinct.len(), all.len());
        }
    }
}
