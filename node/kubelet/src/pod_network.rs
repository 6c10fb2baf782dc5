//! The seam to the network of the node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use coracle_runtime::{Attachment, IdRange, Listener, PodIdentity, Protocol};

pub use crate::pod::dns::ClusterDns;

/// How a Pod is joined to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The file of its network namespace, if it has one of its own.
    pub namespace: Option<PathBuf>,
}

/// A port of the machine that leads to one of a Pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The machine's address; `0.0.0.0` is all of them.
    pub address: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
    /// Its number on the machine.
    pub port: u16,
    /// That in the Pod.
    pub pod_port: u16,
}

/// Addresses of Pods, and what listens there.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync {
    /// Joins a Pod to the network, as is wanted where the network can, with ports of the machine that
    /// lead to it. What a UID has it keeps until it is released, also after a restart of the agent;
    /// what of it is lost is made again. A network namespace of its own belongs to its users, if it has
    /// some.
    async fn attach(
        &self,
        pod: &PodIdentity,
        wanted: Attachment,
        ports: &[HostPort],
        users: Option<IdRange>,
    ) -> std::io::Result<Attached>;

    /// Parts a Pod from the network, and gives its addresses back. Releasing what is free is no
    /// error.
    async fn release(&self, pod_uid: &str) -> std::io::Result<()>;

    /// All sockets on which Pods of this node listen now.
    fn set_listeners(&self, listeners: Vec<Listener>);

    /// Where the node dials a Pod's address; none if nothing listens there.
    fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr>;

    /// Where containers find the cluster's names; none where they have no way to it.
    fn dns(&self) -> Option<ClusterDns>;

    /// Where the network publishes what guests may know of it.
    fn snapshot_path(&self) -> PathBuf;
}
