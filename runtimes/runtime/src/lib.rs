//! The interface between the kubelet and the runtimes of a node.
//!
//! [`RuntimeService`] has the verbs of the Kubernetes CRI (KEP-2040): Pod sandboxes,
//! containers, images, stats, events. The kubelet speaks nothing else, and a runtime knows no
//! Kubernetes API type: what it must know of a Pod is in [`PodSandboxConfig`] and
//! [`ContainerConfig`]. [`GuestNetwork`] is the other seam: through it a WebAssembly guest
//! meets the network.
//!
//! What runtimes share is here too: records on disk ([`ledger`], [`disk`]), the connection to
//! processes that survive the agent ([`connection`], [`frames`], [`identity`]), the log of a
//! container ([`log`]), what is mounted where ([`mountinfo`]), and what a folder takes of the disk
//! ([`usage`]). [`streaming`] has what exec,
//! attach and port-forward give.
//!
//! Deliberately absent: images are pulled by the images crate and handed over by digest;
//! which runtime runs a container is the router's business in the kubelet.

mod network;
mod service;
mod types;

pub mod conformance;
pub mod connection;
pub mod disk;
pub mod fake;
pub mod frames;
pub mod harness;
pub mod identity;
pub mod ledger;
pub mod log;
pub mod mountinfo;
pub mod process;
pub mod streaming;
pub mod usage;

pub use network::{GuestNetwork, NetworkError, Peer, PortBackends, PortDispatcher, Protocol};
pub use service::{Error, Result, RuntimeService, end_of_grace};
pub use types::*;
