//! The node's network behind the kubelet's seam: the two crates do not know each other.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use coracle_kubelet::PodNetwork;
use coracle_network::NodeNetwork;
use coracle_runtime::{Listener, PodIdentity, Protocol};

/// The network of this node.
pub(crate) struct ThisNode(pub(crate) Arc<NodeNetwork>);

#[async_trait::async_trait]
impl PodNetwork for ThisNode {
    async fn allocate(&self, pod: &PodIdentity) -> std::io::Result<Vec<IpAddr>> {
        let address = self.0.allocate(pod).await.map_err(std::io::Error::other)?;
        Ok(vec![address])
    }

    async fn release(&self, pod_uid: &str) -> std::io::Result<()> {
        self.0.release(pod_uid)
    }

    fn set_listeners(&self, listeners: Vec<Listener>) {
        self.0.set_listeners(listeners);
    }

    fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        self.0.dial(protocol, address)
    }

    fn snapshot_path(&self) -> PathBuf {
        self.0.snapshot_path()
    }
}
