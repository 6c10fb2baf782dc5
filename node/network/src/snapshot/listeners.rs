//! The part that says where Pods listen.
//!
//! Records of 32 bytes, sorted by their first seven: address, port, protocol, family of the
//! actual address, actual port, six bytes unused, actual address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use coracle_runtime::Protocol;

use crate::rules::ServiceKey;

use super::sections::{Builder, read_port, section};

const SIZE: usize = 32;

/// Encodes the part.
pub(crate) fn encode(listeners: &BTreeMap<ServiceKey, SocketAddr>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(listeners.len() * SIZE);
    for (key, actual) in listeners {
        bytes.extend(key_bytes(key.ip, key.port, key.protocol));
        let ip = match actual.ip() {
            IpAddr::V4(ip) => {
                bytes.push(4);
                ip.to_ipv6_mapped()
            }
            IpAddr::V6(ip) => {
                bytes.push(6);
                ip
            }
        };
        bytes.extend(actual.port().to_be_bytes());
        bytes.extend([0; 6]);
        bytes.extend(ip.octets());
    }
    Builder::default().section(SIZE, bytes).build()
}

/// The key as it is sorted; equal to the order of [`ServiceKey`].
pub(super) fn key_bytes(ip: Ipv4Addr, port: u16, protocol: Protocol) -> [u8; 7] {
    let [a, b, c, d] = ip.octets();
    let [high, low] = port.to_be_bytes();
    [a, b, c, d, high, low, u8::from(protocol == Protocol::Udp)]
}

/// Reads the part.
pub(crate) struct Listeners<'a>(pub(crate) &'a [u8]);

impl Listeners<'_> {
    /// The socket that serves an address.
    pub(crate) fn actual(&self, ip: Ipv4Addr, port: u16, protocol: Protocol) -> Option<SocketAddr> {
        let key = key_bytes(ip, port, protocol);
        actual_of(section(self.0, 0)?.find(|record| record[..7].cmp(&key[..]))?)
    }

    /// The port at which others know a socket of a Pod.
    pub(crate) fn port_of(
        &self,
        ip: Ipv4Addr,
        protocol: Protocol,
        actual: SocketAddr,
    ) -> Option<u16> {
        let records = section(self.0, 0)?;
        let octets = ip.octets();
        let first = records.lower_bound(|record| record[..4].cmp(&octets[..]));
        (first..records.len())
            .map_while(|index| records.get(index))
            .take_while(|record| record[..4] == octets)
            .find(|record| {
                record[6] == u8::from(protocol == Protocol::Udp)
                    && actual_of(record) == Some(actual)
            })
            .and_then(|record| read_port(record, 4))
    }
}

fn actual_of(record: &[u8]) -> Option<SocketAddr> {
    let port = read_port(record, 8)?;
    let octets: [u8; 16] = record.get(16..32)?.try_into().ok()?;
    let ip = Ipv6Addr::from(octets);
    let ip = match record[7] {
        4 => IpAddr::V4(ip.to_ipv4_mapped()?),
        _ => IpAddr::V6(ip),
    };
    Some(SocketAddr::new(ip, port))
}
