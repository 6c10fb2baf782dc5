//! What this machine is: its name, its address, its size.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use coracle_apimachinery::names;

/// The node's name: the one that was given, or the host's.
pub(crate) fn node_name(given: Option<&str>) -> Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("cannot read the host's name: give --node-name")?
            .trim()
            .to_lowercase(),
    };
    let faults = names::dns_subdomain(&name);
    if !faults.is_empty() {
        bail!(
            "{name:?} cannot be a node's name ({}): give another with --node-name",
            faults.join("; ")
        );
    }
    Ok(name)
}

/// The address under which the node is known. Kubernetes allows no loopback address as an
/// endpoint, so a machine with nothing else stands under one of the documentation range
/// (RFC 5737); the Pod network leads it to the socket that is really there.
pub(crate) fn node_address(given: Option<IpAddr>) -> IpAddr {
    given
        .or_else(routed_address)
        .unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
}

/// The source address of the default route. Connecting a datagram socket sends nothing.
fn routed_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let anywhere = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 9));
    socket.connect(anywhere).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
