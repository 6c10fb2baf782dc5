//! Sockets of the node that Pods know under another address.
//!
//! The API server may listen on the machine's loopback alone, and is known by an address that
//! endpoints may name. The agent dials the real socket. Guests on the machine's own network do
//! too; from the Pods' namespace the machine's loopback is out of reach, so the agent listens for
//! them where the machine's end of the link is, and passes connections on.

use std::io;
use std::net::{SocketAddr, TcpListener};

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::namespace::HOST_END;
use crate::relay::{self, Slots};
use crate::snapshot::Form;

/// Connections through one alias at a time.
const CONNECTIONS: usize = 4096;

/// The aliases of a node.
#[derive(Debug)]
pub(crate) struct Aliases {
    published: Vec<(SocketAddr, SocketAddr)>,
    relays: Vec<(TcpListener, SocketAddr)>,
}

impl Aliases {
    /// For pairs of the known and the real address.
    pub(crate) fn open(form: Form, pairs: &[(SocketAddr, SocketAddr)]) -> io::Result<Self> {
        if form == Form::Virtual {
            return Ok(Self {
                published: pairs.to_vec(),
                relays: Vec::new(),
            });
        }
        let (mut published, mut relays) = (Vec::new(), Vec::new());
        for (known, real) in pairs {
            let listener = TcpListener::bind((HOST_END, 0))?;
            listener.set_nonblocking(true)?;
            published.push((*known, listener.local_addr()?));
            relays.push((listener, *real));
        }
        Ok(Self { published, relays })
    }

    /// Pairs of the known address and the one that guests dial.
    pub(crate) fn published(&self) -> &[(SocketAddr, SocketAddr)] {
        &self.published
    }

    /// Passes connections of Pods on, for as long as it is polled.
    pub(crate) async fn serve(&self, pods: IpNet) {
        let mut served = JoinSet::new();
        for (listener, real) in &self.relays {
            match listener
                .try_clone()
                .and_then(tokio::net::TcpListener::from_std)
            {
                Ok(listener) => {
                    served.spawn(relay(listener, *real, pods));
                }
                Err(error) => {
                    tracing::error!(%error, %real, "Pods do not reach a socket of the node");
                }
            }
        }
        while served.join_next().await.is_some() {}
        // Those that are none never end.
        std::future::pending().await
    }
}

async fn relay(listener: tokio::net::TcpListener, real: SocketAddr, pods: IpNet) {
    let mut connections = JoinSet::new();
    let slots = Slots::new(CONNECTIONS);
    relay::accept(
        &listener,
        &slots,
        &mut connections,
        |stream, client| async move {
            // Whoever is next to the machine could send to this address too.
            if !pods.contains(&client.ip()) {
                return;
            }
            let passed = match TcpStream::connect(real).await {
                Ok(target) => relay::join(stream, target).await,
                Err(error) => Err(error),
            };
            if let Err(error) = passed {
                tracing::debug!(%error, %real, "a connection from a Pod broke");
            }
        },
    )
    .await;
}
