//! What the network of a node is told, and why it may not open.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::FormChoice;
use crate::aliases::Alias;
use crate::namespace::NamespaceError;
use crate::snapshot::Authority;

/// What the network of a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeNetworkConfig {
    /// Folder of the network's own.
    pub directory: PathBuf,
    /// Name of the node, whose `spec.podCIDR` is the range of its Pods.
    pub node_name: String,
    /// The node's address.
    pub node_address: IpAddr,
    /// What tells the cluster from others on the machine: one word, the same on all its nodes.
    pub cluster: String,
    /// The range of all Pod addresses of the cluster.
    pub cluster_range: IpNet,
    /// The range of Service addresses.
    pub service_range: IpNet,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Where NodePorts and ports for health checks are bound: `0.0.0.0`, or an address of the host.
    pub node_port_address: IpAddr,
    /// Sockets that are known under another address than the one they are bound to: the API
    /// server's, which endpoints may not name by a loopback address.
    pub aliases: Vec<Alias>,
    /// The address at which guests find DNS: that of the Service `kube-dns`. The node answers
    /// there itself.
    pub cluster_dns: Option<IpAddr>,
    /// Who vouches to guests for the cluster's own servers, where the machine's roots do not.
    pub authority: Option<Authority>,
    /// What Pods' addresses are to be.
    pub form: FormChoice,
}

/// Why the network of a node does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error("cannot open the node's network in {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A namespace for Pods was asked for, and there can be none.
    #[error("Pods cannot have a network namespace: {0}")]
    Namespace(#[from] NamespaceError),
}
