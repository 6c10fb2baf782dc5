//! Where the node answers DNS.
//!
//! Pods are led to a socket on the machine's end of their links: guests by the snapshot, containers
//! by the node's table of Services, in which the cluster's address for DNS is one of the `aliases`
//! ([`crate::service_rules`]). So each node's Pods find their own node's server, whatever other
//! cluster on the machine has the same address.
//!
//! A guest's socket stays connected to the server's port for as long as the guest likes, and so
//! the port is the same after a restart of the agent, where it is still free.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use coracle_runtime::Protocol;

use crate::aliases::{Alias, Aliases};
use crate::dns::DnsServer;

const PORT: u16 = 53;

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
