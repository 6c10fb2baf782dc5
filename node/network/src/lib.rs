//! The network of a node: addresses of Pods, Services, names, NodePorts.
//!
//! Two pure functions decide: [`rules`] says from Services and EndpointSlices where a Service's
//! address leads, [`zone`] which names exist. [`NodeNetwork`] owns the state of the node: which
//! Pod has which address, and which socket really serves it. It publishes all that guests may
//! know as one [`snapshot`] file, forwards NodePorts, and tells load balancers of which Services there are
//! endpoints (`health_checks`). [`SnapshotNetwork`] is the guests' side:
//! it answers [`coracle_runtime::GuestNetwork`] out of the snapshot, in the guest's process. Whoever
//! is no guest reaches Services by the kernel's rules (`service_rules`), where Pods' addresses are
//! the kernel's.
//!
//! Pods' addresses have one of two forms, decided once for a node ([`FormChoice`]):
//!
//! - *Namespaced*, where the agent has the rights: all Pods of guests share one network
//!   namespace, in which their part of the range is local, and each Pod with containers has one of
//!   its own. An address is an address: whoever is on the machine dials it, and an acceptor sees
//!   who calls.
//! - *Virtual*, everywhere else: guests' sockets are bound on the host's loopback on free ports,
//!   and everybody on the node dials through the map from (Pod address, port, protocol) to them.
//!
//! Rules, names and NodePorts are the same in both; what differs is in the namespace's module, in
//! the agent's `dial`, and in what guests are answered.
//!
//! [`DnsServer`] answers containers, and guests that speak DNS themselves.
//!
//! Deliberately absent: network policy, and ways to other machines. They read the same rules when
//! they come.

mod addresses;
mod aliases;
mod balance;
mod dns;
mod guest;
mod health_checks;
mod host_ports;
mod namespace;
mod nftables;
mod node;
mod node_ports;
mod relay;
mod rules;
mod service_rules;
pub mod snapshot;
mod zone;

pub use addresses::{AddressError, AddressPool, Parts};
pub use aliases::Alias;
pub use dns::DnsServer;
pub use guest::SnapshotNetwork;
pub use host_ports::HostPort;
pub use namespace::NamespaceError;
pub use node::{Attached, FormChoice, NodeNetwork, NodeNetworkConfig, OpenError, ServiceFeed};
pub use rules::{Lead, Place, Rules, ServicePort, rules};
pub use zone::{Record, Zone, zone};
