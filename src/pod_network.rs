//! The node's network behind the kubelet's seam: the two crates do not know each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_kubelet::{Attached, ClusterDns, HostPort, PodNetwork};
use coracle_network::NodeNetwork;
use coracle_runtime::{Attachment, IdRange, Listener, PodIdentity, Protocol};

/// The network of this node.
pub(crate) struct ThisNode(pub(crate) Arc<NodeNetwork>);

#[async_trait::async_trait]
impl PodNetwork for ThisNode {
    async fn attach(
        &self,
        pod: &PodIdentity,
        wanted: Attachment,
        ports: &[HostPort],
        users: Option<IdRange>,
    ) -> std::io::Result<Attached> {
        let port = |port: &HostPort| coracle_network::HostPort {
            address: port.address,
            protocol: port.protocol,
            port: port.port,
            pod_port: port.pod_port,
        };
        let ports: Vec<_> = ports.iter().map(port).collect();
        let attached = self.0.attach(pod, wanted, &ports, users).await;
        let attached = attached.map_err(std::io::Error::other)?;
        Ok(Attached {
            ips: vec![attached.address],
            namespace: attached.namespace,
        })
    }

    async fn release(&self, pod_uid: &str) -> std::io::Result<()> {
        self.0.release(pod_uid).await
    }

    fn set_listeners(&self, listeners: Vec<Listener>) {
        self.0.set_listeners(listeners);
    }

    fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        self.0.dial(protocol, address)
    }

    fn dns(&self) -> Option<ClusterDns> {
        Some(ClusterDns {
            server: self.0.dns()?,
            domain: self.0.domain().to_owned(),
        })
    }

    fn snapshot_path(&self) -> PathBuf {
        self.0.snapshot_path()
    }
}
