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
//! container ([`log`]), what is mounted where ([`mountinfo`]), what a folder takes of the disk
//! ([`usage`]), files that a Pod's containers find in `/etc` ([`files`]), connections into a Pod's
//! network ([`dial`]), control groups ([`cgroup`]), users of a Pod's own ([`users`]), and what the
//! machine has of huge pages ([`huge_pages`]) and of AppArmor ([`apparmor`]). [`streaming`] has what
//! exec, attach and port-forward give, [`spdy`] and [`grpc`] (with [`protobuf`]) two protocols that
//! the kubelet and a runtime speak with others.
//!
//! Deliberately absent: images are pulled by the images crate and handed over by digest;
//! which runtime runs a container is the router's business in the kubelet.

mod images;
mod network;
mod resources;
mod security;
mod service;
mod types;

pub mod apparmor;
pub mod cgroup;
pub mod conformance;
pub mod connection;
pub mod dial;
pub mod disk;
pub mod fake;
pub mod files;
pub mod frames;
pub mod grpc;
pub mod harness;
pub mod huge_pages;
pub mod identity;
pub mod ledger;
pub mod log;
pub mod mountinfo;
pub mod process;
pub mod protobuf;
pub mod spdy;
pub mod streaming;
pub mod usage;
pub mod users;

pub use images::{Image, ImageSource, ImageUser, OwnImage};
pub use network::{GuestNetwork, NetworkError, Peer, PortBackends, PortDispatcher, Protocol};
pub use resources::{CPU_PERIOD, Resources, shares};
pub use security::{AppArmor, MASKED_PATHS, READ_ONLY_PATHS, Seccomp, Security};
pub use service::{Error, Result, RuntimeService, end_of_grace};
pub use types::*;
pub use users::IdRange;
