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
        match TcpStream::connect(actual).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            // The network may know the address, and not what listens there.
            Err(error) => refused = error,
        }
    }
    let known = node.cache.pod(uid);
    for of in &known.sandboxes {
        let Some(runtime) = node.router.by_name(of.runtime) else {
            continue;
        };
        match runtime.connect(&of.sandbox.id, port).await {
            Ok(Some(stream)) => return Ok(stream),
            Ok(None) => {}
            Err(coracle_runtime::Error::Io { source, .. }) => refused = source,
            Err(error) => refused = io::Error::other(error),
        }
    }
    Err(refused)
}
