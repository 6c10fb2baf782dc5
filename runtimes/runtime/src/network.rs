//! How a guest meets the network.
//!
//! A guest process asks [`GuestNetwork`] at every point where an address crosses between what
//! the guest believes and what the host has: names, binds, connects, and the peers of what it
//! accepts and receives. The wasm runtime owns the sockets; this trait owns the addresses.
//! In the unprivileged form a Pod's address is virtual and every answer differs from the
//! question; in the namespaced form most answers are the question.
//!
//! [`PortDispatcher`] is the way back: a runtime whose process serves all the endpoints behind a
//! port of the node may take its connections without a hop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// A transport protocol, spelled as in the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

/// Why the network says no. A guest sees the matching WASI error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The name does not exist.
    #[error("name {0} does not resolve")]
    NameUnresolvable(String),
    /// The name could not be looked up now.
    #[error("look-up of {name} failed: {cause}")]
    TemporaryResolverFailure {
        /// The name.
        name: String,
        /// What went wrong.
        cause: String,
    },
    /// The address is not one of the Pod's.
    #[error("address {0} does not belong to this Pod")]
    AddressNotBindable(SocketAddr),
    /// Nothing serves that address: a Service without endpoints, a Pod that does not listen.
    #[error("connection to {0} refused")]
    ConnectionRefused(SocketAddr),
    /// Policy denies it.
    #[error("access to {0} denied")]
    AccessDenied(SocketAddr),
    /// No way leads there.
    #[error("{0} is unreachable")]
    RemoteUnreachable(SocketAddr),
}

/// Where a guest's packet really goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address to dial on the host.
    pub actual: SocketAddr,
    /// The address from which to dial, where it matters who is seen to call.
    pub source: Option<SocketAddr>,
}

/// Names and addresses as one Pod sees them. Implementations are cheap to call: they read a
/// snapshot that the agent publishes, and never wait for the agent.
#[async_trait::async_trait]
pub trait GuestNetwork: Send + Sync {
    /// Addresses of a name, in the order to be tried. An IP literal resolves to itself.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError>;

    /// The host address to bind for a guest that asks for `local`; port 0 in the answer means
    /// that the host picks one.
    fn bind(&self, protocol: Protocol, local: SocketAddr) -> Result<SocketAddr, NetworkError>;

    /// The guest's view of its own bound socket, and whether others may dial it: a listener on
    /// `localhost` is never published.
    fn bound(
        &self,
        protocol: Protocol,
        local: SocketAddr,
        actual: SocketAddr,
    ) -> (SocketAddr, bool);

    /// Where a connect, or a datagram, to `remote` goes. Chooses the endpoint of a Service.
    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Peer, NetworkError>;

    /// The address that the guest sees for a host peer from which it accepted or received.
    fn peer(&self, protocol: Protocol, actual: SocketAddr) -> Result<SocketAddr, NetworkError>;

    /// Certificates (PEM) by which the `https` server of a host proves itself that is the
    /// cluster's own, and which the machine's roots need not know; none for all others.
    fn authority(&self, _host: &str) -> Option<String> {
        None
    }

    /// Listeners of this Pod that live in the same process, by the guest's address; tells the
    /// network of them, so that `localhost` reaches them before the agent has published them.
    fn listening(&self, protocol: Protocol, local: SocketAddr, actual: Option<SocketAddr>);
}

/// Where the connections to a port of the node go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBackends {
    /// The port of the node, which names the dispatch.
    pub port: u16,
    /// Addresses of Pods, as the cluster knows them; none is empty.
    pub endpoints: Vec<SocketAddr>,
    /// Whether a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity: bool,
}

/// A runtime that can serve a port of the node inside the process that serves its endpoints.
#[async_trait::async_trait]
pub trait PortDispatcher: Send + Sync {
    /// Accepts from `socket`, which others may hold too and then leave alone, and hands every
    /// connection to one of the endpoints. A port that is dispatched already gets the new
    /// endpoints. The future in the answer ends when the port is no longer served: it was
    /// withdrawn, or the process ended. `None`: the endpoints are not all in one process of this
    /// runtime; whatever it served of this port before is withdrawn.
    ///
    /// # Errors
    /// The process could not be told; the port is not served.
    async fn dispatch(
        &self,
        socket: &OwnedFd,
        backends: PortBackends,
    ) -> io::Result<Option<BoxFuture<'static, ()>>>;

    /// Stops accepting on a port. Connections that were accepted go on.
    async fn withdraw(&self, port: u16);
}
