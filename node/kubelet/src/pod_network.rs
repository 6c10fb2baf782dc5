//! The seam to the network of the node.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use coracle_runtime::{Listener, PodIdentity, Protocol};

/// Addresses of Pods, and what listens there.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync {
    /// The addresses of a Pod, the primary one first; the same for a UID until they are
    /// released, also after a restart of the agent.
    async fn allocate(&self, pod: &PodIdentity) -> std::io::Result<Vec<IpAddr>>;

    /// Gives the addresses of a Pod back. Releasing what is free is no error.
    async fn release(&self, pod_uid: &str) -> std::io::Result<()>;

    /// All sockets on which Pods of this node listen now.
    fn set_listeners(&self, listeners: Vec<Listener>);

    /// Where the node dials a Pod's address; none if nothing listens there.
    fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr>;

    /// Where the network publishes what guests may know of it.
    fn snapshot_path(&self) -> PathBuf;
}
