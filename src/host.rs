//! What this machine is: its name, its address, its size.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use coracle_apimachinery::names;
use rustix::thread::CapabilitySet;

use crate::defaults;

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

/// Users for guests, which only root can give them; everybody else's guests run as the agent does.
pub(crate) fn guest_users() -> Option<Range<u32>> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    match lacks_for_users() {
        None => Some(defaults::GUEST_USERS),
        Some(lack) => {
            tracing::warn!(
                "guests run as root, without capabilities: {lack}; start the agent as root of the \
                 machine to give each namespace a user of its own"
            );
            None
        }
    }
}

/// What keeps this process from giving users to guests, though it is root.
fn lacks_for_users() -> Option<String> {
    let needed = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID;
    match rustix::thread::capabilities(None) {
        Ok(own) if own.effective.contains(needed) => {}
        Ok(own) => return Some(format!("the agent lacks {:?}", needed - own.effective)),
        Err(error) => return Some(format!("the agent's capabilities cannot be read: {error}")),
    }
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        match std::fs::read_to_string(map) {
            Ok(text) if maps(&text, &defaults::GUEST_USERS) => {}
            Ok(_) => {
                let Range { start, end } = defaults::GUEST_USERS;
                return Some(format!("{map} does not have {start} to {}", end - 1));
            }
            Err(error) => return Some(format!("{map} cannot be read: {error}")),
        }
    }
    None
}

/// Whether a user namespace has those ids; its map has lines of first, first outside, and number.
fn maps(text: &str, ids: &Range<u32>) -> bool {
    text.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        matches!(numbers[..], [first, _, count]
            if first <= u64::from(ids.start) && u64::from(ids.end) <= first + count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_has_what_its_map_says() {
        let ids = 2_000..3_000;
        for (map, expected) in [
            ("         0          0 4294967295\n", true),
            ("0 1000 1\n1 100000 65536\n", true),
            ("0 1000 1\n1 100000 2500\n", false),
            ("0 1000 1\n", false),
            ("", false),
        ] {
            assert_eq!(maps(map, &ids), expected, "{map}");
        }
    }
}
