//! The one way from the API server to a node.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to a node.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Where on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Its address, as its status gives it.
    pub host: &'a str,
    /// Port on that address.
    pub port: u16,
}

/// Reaches nodes: directly, or through the tunnel that a node keeps open to its servers.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Opens a byte stream to a port of a node. TLS is the caller's.
    ///
    /// # Errors
    /// Those of the network.
    async fn dial(&self, endpoint: Endpoint<'_>) -> io::Result<Box<dyn Stream>>;
}

/// Dials the node's address directly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

#[async_trait]
impl Dial for Direct {
    async fn dial(&self, endpoint: Endpoint<'_>) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((endpoint.host, endpoint.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
