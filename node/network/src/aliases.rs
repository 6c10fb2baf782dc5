//! Sockets of the node that Pods know under another address.
//!
//! The API server may listen on the machine's loopback alone, and is known by an address that
//! endpoints may name. The agent dials the real socket. Guests on the machine's own network do
//! too; from the Pods' namespace the machine's loopback is out of reach, so the agent listens for
//! them where the machine's end of the link is, and passes connections on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use coracle_runtime::Protocol;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::namespace::HOST_END;
use crate::relay::{self, Slots};
use crate::snapshot::Form;

/// Connections through one alias at a time.
const CONNECTIONS: usize = 4096;

/// A socket that is known under another address than the one it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Protocol.
    pub protocol: Protocol,
    /// The address under which it is known.
    pub known: SocketAddr,
    /// The one it is bound to.
    pub actual: SocketAddr,
}

/// The aliases of a node.
#[derive(Debug)]
pub(crate) struct Aliases {
    form: Form,
    real: Vec<Alias>,
    published: Vec<Alias>,
    relays: Vec<(TcpListener, SocketAddr)>,
}

impl Aliases {
    /// Of sockets that may be out of guests' reach, which are those of TCP.
    pub(crate) fn open(form: Form, given: &[Alias]) -> io::Result<Self> {
        let mut aliases = Self {
            form,
            real: Vec::new(),
            published: Vec::new(),
            relays: Vec::new(),
        };
        for alias in given {
            let mut published = *alias;
            if form == Form::Namespaced && alias.protocol == Protocol::Tcp {
                let listener = TcpListener::bind((HOST_END, 0))?;
                listener.set_nonblocking(true)?;
                published.actual = listener.local_addr()?;
                aliases.relays.push((listener, alias.actual));
            }
            aliases.real.push(*alias);
            aliases.published.push(published);
        }
        Ok(aliases)
    }

    /// An address of the machine that guests reach.
    pub(crate) fn reachable(&self) -> IpAddr {
        match self.form {
            Form::Virtual => Ipv4Addr::LOCALHOST.into(),
            Form::Namespaced => HOST_END.into(),
        }
    }

    /// Adds a socket that guests reach as it is.
    pub(crate) fn add(&mut self, alias: Alias) {
        self.real.push(alias);
        self.published.push(alias);
    }

    /// What the agent dials.
    pub(crate) fn real(&self) -> &[Alias] {
        &self.real
    }

    /// What guests dial.
    pub(crate) fn published(&self) -> &[Alias] {
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
            // Whoever is next to the machine could send to this address too, but not from it.
            if !pods.contains(&client.ip()) && client.ip() != HOST_END {
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
