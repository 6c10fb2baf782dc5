//! The network of a node: addresses of Pods, Services, names, NodePorts.
//!
//! Two pure functions decide: [`rules`] says from Services and EndpointSlices where a Service's
//! address leads, [`zone`] which names exist. [`NodeNetwork`] owns the state of the node: which
//! Pod has which address, and which socket really serves it. It publishes all that guests may
//! know as one [`snapshot`] file, and forwards NodePorts. [`SnapshotNetwork`] is the guests' side:
//! it answers [`coracle_runtime::GuestNetwork`] out of the snapshot, in the guest's process.
//!
//! This is the unprivileged `Address` form: Pod addresses are virtual, guests' sockets are bound
//! on the host's loopback on free ports, and everybody on the node dials through the map from
//! (Pod address, port, protocol) to that socket. The form with a network namespace for Pods takes
//! its place beside [`NodeNetwork`]'s listeners; the rules and names stay the same.
//!
//! [`DnsServer`] answers guests that speak DNS themselves.
//!
//! Deliberately absent: policy, and ways to other machines. They read the same rules when they
//! come.

mod addresses;
mod balance;
mod dns;
mod guest;
mod node;
mod node_ports;
mod rules;
pub mod snapshot;
mod zone;

pub use addresses::{AddressError, AddressPool};
pub use dns::DnsServer;
pub use guest::SnapshotNetwork;
pub use node::{Alias, NodeNetwork, NodeNetworkConfig, OpenError};
pub use rules::{Rules, ServicePort, rules};
pub use zone::{Record, Zone, zone};
