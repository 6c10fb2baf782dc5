//! Services in the kernel of the machine: by nftables, for whoever dials a Service's address by
//! itself. Those are the processes of containers, and of the machine. Guests are told by the
//! snapshot where a Service leads, and dial that.
//!
//! A node has one table. All Services share its maps, so that a change of one is a few elements in
//! one batch and no chain is a Service's own:
//!
//! ```text
//! from this node's Pods ── chain pods ──┐
//! from the machine ────── chain machine ┼─► chain services
//! from anywhere else ──── chain others ─┘     (address, protocol, port) in map frontends:
//!   (machine and others in one                 ├─ goto random-N     N endpoints
//!    node's table, see below)                  ├─ goto sticky-N-T   N, and clients stay for T s
//!                                              ├─ goto refuse       no endpoints
//!                                              ├─ goto dropped      none on the node, to stay there
//!                                              ├─ goto left         another proxy's
//!                                              └─ not there: refuse, if in the Services' range
//!
//! random-N   i = random below N;  to endpoints(frontend, i)
//! sticky-N-T i = random below N;  m = members(frontend, i)
//!            clients(client, frontend) = m for T s, unless it is there: then it is kept anew
//!            to endpoints(frontend, clients(client, frontend))
//!            none? It is gone: forget the client, and once more from the start
//! ```
//!
//! - `i` and `m` pass from rule to rule in `meta priority`, which routing sets anew for what it
//!   forwards, and which orders nothing before. A mark would meet rules of routing that are
//!   somebody else's. (`nft list` of 1.0.6 aborts where a random number is a part of a key.)
//! - A member is a number made of the endpoint's address. It means the same endpoint when others
//!   come and go; [`plan`] says how.
//! - Only the first packet of a connection meets these chains. TCP connections to an endpoint
//!   that goes end by themselves; a flow of UDP would go there for as long as it lasts, so the
//!   kernel is told to forget it (`flows`).
//! - Ports of the machine that lead to Pods (`hostPort`) have a map of their own, in which a port of
//!   all addresses is at `0.0.0.0`. Whoever calls an address of the machine meets it, after
//!   Services: chains `ports-called` and `ports-calling`. What is called at `127.0.0.1` the agent
//!   listens for (`host_ports`).
//! - Where who comes from elsewhere is to stay on the node (`externalTrafficPolicy: Local`), chain
//!   `others` looks into map `elsewhere` first. It has a Service's addresses for outside, and its
//!   port of the machine at `0.0.0.0`; endpoints for it have numbers, or keys, of their own. Only
//!   who is on the node reaches the agent at that port then.
//! - Sockets of the node that Pods know under a Service's address, as its DNS server, are frontends
//!   like Services (`aliases`). Before the first rules are known there are none.
//! - Source addresses stay, and who is called sees who calls. Two cases cannot be so, since the
//!   answers would not come back here: a Pod that reaches itself, or one in the namespace with it,
//!   is called by the node; and what leaves the cluster through a Service from elsewhere leaves
//!   under the machine's address.
//!
//! **Several nodes on one machine** share the range of Services or not; each has its table, and
//! its Pods' packets go by that and by no other: chain `others` passes over what came by a link of
//! the nodes' group ([`LINK_GROUP`](crate::namespace::LINK_GROUP)), also while a Pod's own node has
//! no table. The machine itself is in no cluster: its calls, and what comes from elsewhere, go by
//! the table of the node that was there first: to them the machine is that node, also where calls
//! stay on their node. The table's comment says so (a
//! [`Claim`](crate::namespace::Claim)); another node takes its place when it has gone. Where the
//! machine has a route into the range, it keeps that network, and no table answers it.
//!
//! [`plan`] is pure: the table as data, and the steps from one table to another. [`kernel`] makes
//! them so, and [`keeper`] does it whenever something has changed, again where it failed, and anew
//! where somebody flushed the table. The table stays when the agent ends, for Pods live on; the
//! next agent puts its own in its place in one batch. Tearing down the namespace removes it.
//!
//! Deliberately absent: other NodePorts, which the agent's listeners hold (`node_ports`: a port has
//! one owner, who also hands it to the host of HTTP guests); IPv6; SCTP.

mod encode;
mod flows;
mod keeper;
mod kernel;
mod plan;

pub(crate) use keeper::ServiceRules;
pub(crate) use plan::Frame;

/// The name of the table of a node whose other things have this name.
pub(crate) fn table_of(name: &str) -> String {
    format!("{name}-services")
}

#[cfg(test)]
mod tests;
