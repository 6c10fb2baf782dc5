//! Where the node answers DNS.
//!
//! Guests are led to a socket on the machine's end of their link. Containers, which speak to the
//! cluster's address itself, find a second one there, in the namespace of Pods: see
//! [`crate::namespace`] for their way to it.
//!
//! A guest's socket stays connected to the server's port for as long as the guest likes, and so
//! the port is the same after a restart of the agent, where it is still free.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use coracle_runtime::Protocol;

use crate::aliases::{Alias, Aliases};
use crate::dns::DnsServer;
use crate::namespace::inside;

const PORT: u16 = 53;

/// A server for containers at the cluster's address, in the namespace of Pods.
pub(super) fn for_containers(namespace: &Path, address: IpAddr) -> Option<DnsServer> {
    let bound = File::open(namespace)
        .and_then(|namespace| inside(&namespace, || DnsServer::bind(known_as(address))));
    match bound {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::error!(%error, %address, "containers have no DNS until the agent is started again");
            None
        }
    }
}

/// How guests call the server.
pub(super) fn known_as(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}

/// A server where guests reach it, which they know under `address`.
pub(super) fn open(aliases: &mut Aliases, address: IpAddr, folder: &Path) -> io::Result<DnsServer> {
    let known = known_as(address);
    let record = folder.join("dns-port");
    let last = std::fs::read_to_string(&record)
        .ok()
        .and_then(|port| port.trim().parse().ok())
        .unwrap_or(0);
    let at = |port| DnsServer::bind((aliases.reachable(), port).into());
    let server = match at(last) {
        Err(error) if last != 0 => {
            tracing::warn!(%error, port = last, "DNS has another port than before: guests that keep a socket to it have to ask anew");
            at(0)?
        }
        server => server?,
    };
    let port = server.address().port();
    if port != last {
        std::fs::write(&record, format!("{port}\n"))?;
    }
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        aliases.add(Alias {
            protocol,
            known,
            actual: server.address(),
        });
    }
    Ok(server.known_as(known))
}
