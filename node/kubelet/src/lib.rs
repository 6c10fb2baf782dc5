//! The kubelet: runs the Pods that are bound to its node.
//!
//! The life of a Pod here: the source of Pods ([`source`]) sees it bound to the node and hands
//! it to its worker ([`worker`]); the worker compares what should run with what runs
//! ([`containers`]), makes volumes ([`volumes`]) and starts containers through a runtime that
//! the image chooses ([`router`]); events of the runtimes wake it ([`runtime_cache`]), probes
//! do too ([`probes`]); what it finds becomes a status ([`status`]) and events.
//!
//! Every decision is a pure function (`pod_actions`, `pod_status`, `transition`, `environment`,
//! `files`, `admit`); I/O sits in `worker`, `containers::start` and `stop`. The kubelet sees
//! nothing of the cluster but the Kubernetes API, and names no concrete runtime, network or
//! store: those come in through [`coracle_runtime::RuntimeService`], [`PodNetwork`] and
//! [`Images`].
//!
//! Deliberately absent: state of its own on disk, but for what a Pod was given (resources, users)
//! and what a disk holds for it, in the Pod's folder. After a restart everything else is found again
//! in the API and in the runtimes.

mod access;
mod admission;
mod config;
mod containers;
mod credentials;
mod events;
mod eviction;
mod followed;
mod images;
mod inotify;
mod kubelet;
mod listeners;
mod logs;
mod node;
mod node_context;
mod objects;
mod orphans;
mod placement;
mod pod;
mod pod_dial;
mod pod_network;
mod preemption;
mod probes;
mod puller;
mod resize_queue;
mod router;
mod runtime_cache;
mod server;
mod shutdown;
mod source;
mod static_pods;
mod status;
mod users;
mod volumes;
mod worker;

#[cfg(test)]
mod tests;

pub use config::{KUBELET_PORT, KubeletApi, KubeletConfig, NodePolicy};
pub use credentials::{CredentialPolicy, CredentialProvider};
pub use eviction::{
    Amount, EvictionPolicy, Signal, parse_amounts, parse_periods, parse_thresholds,
};
pub use images::{
    AccessPolicy, Fetched, ImageError, ImageGcPolicy, Images, Kind, ListedImage, LocalImage,
    Origin, PullProgress, Use, Verification,
};
pub use kubelet::{Kubelet, KubeletError, pod_cidr};
pub use node::allocatable::Reserved;
pub use node::capacity::Capacity;
pub use pod_network::{Attached, ClusterDns, HostPort, PodNetwork};
pub use server::tls::{TlsError, server_tls};
pub use shutdown::{LogindPlaces, ShutdownPolicy, forget_shutdown};
pub use users::UserPlaces;
pub use volumes::unmount_volumes;
