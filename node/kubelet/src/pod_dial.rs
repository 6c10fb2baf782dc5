//! Connections to ports of the node's own Pods.

use std::io;
use std::net::{IpAddr, SocketAddr};

use coracle_runtime::Protocol;
use coracle_runtime::streaming::PortConnection;
use tokio::net::TcpStream;

use crate::node_context::NodeContext;

/// Connects to a TCP port of a Pod: where a guest of it listens, or else as its containers would
/// from within.
pub(crate) async fn connect(
    node: &NodeContext,
    uid: &str,
    ips: &[IpAddr],
    port: u16,
) -> io::Result<PortConnection> {
    let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    for ip in ips {
        let address = SocketAddr::new(*ip, port);
        let Some(actual) = node.network.dial(Protocol::Tcp, address) else {
            continue;
        };
        match open(actual).await {
            Ok(stream) => return Ok(stream),
            // The network may know the address, and not what listens there.
            Err(error) => refused = error,
        }
    }
    within(node, uid, port).await.unwrap_or(Err(refused))
}

/// Connects to a TCP port of a Pod at its address, as others in the cluster do: what listens on the
/// Pod's localhost alone is not reached.
pub(crate) async fn at_address(
    node: &NodeContext,
    uid: &str,
    ip: IpAddr,
    port: u16,
) -> io::Result<PortConnection> {
    let address = SocketAddr::new(ip, port);
    match node.network.dial(Protocol::Tcp, address) {
        Some(actual) => open(actual).await,
        // Where addresses are virtual, containers have nothing but their loopback interface.
        None => {
            let refused = || Err(io::ErrorKind::ConnectionRefused.into());
            within(node, uid, port).await.unwrap_or_else(refused)
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<PortConnection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// The same from within the Pod; none where no runtime has a way in.
async fn within(node: &NodeContext, uid: &str, port: u16) -> Option<io::Result<PortConnection>> {
    let mut refused = None;
    let known = node.cache.pod(uid);
    for of in &known.sandboxes {
        let Some(runtime) = node.router.by_name(of.runtime) else {
            continue;
        };
        match runtime.connect(&of.sandbox.id, port).await {
            Ok(Some(stream)) => return Some(Ok(stream)),
            Ok(None) => {}
            Err(coracle_runtime::Error::Io { source, .. }) => refused = Some(source),
            Err(error) => refused = Some(io::Error::other(error)),
        }
    }
    refused.map(Err)
}
