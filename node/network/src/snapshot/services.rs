//! The part that holds the rules of Services, the names of the cluster, and what is fixed for
//! the node.
//!
//! Sections: environment (JSON); Services (20 bytes: key of 7, flags, first endpoint, number of
//! endpoints, seconds of affinity); endpoints (6: address, port); names (16: offset, length,
//! kind, first, number), sorted by their text; texts; addresses (4).

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use coracle_runtime::Protocol;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::rules::Rules;
use crate::zone::{Record, Zone};

use super::listeners::key_bytes;
use super::sections::{Builder, Records, number, read_number, read_port, section};

const SERVICE: usize = 20;
const ENDPOINT: usize = 6;
const NAME: usize = 16;
const AFFINITY: u8 = 1;
const ADDRESSES: u8 = 1;
const ALIAS: u8 = 2;
const EXISTS: u8 = 3;

/// What is fixed for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// The node's range of Pod addresses.
    pub(crate) pods: String,
    /// The cluster's ranges of Pod addresses.
    pub(crate) cluster: Vec<String>,
    /// Ranges of Service addresses.
    pub(crate) services: Vec<String>,
    /// The cluster's domain.
    pub(crate) domain: String,
    /// The node's own addresses.
    pub(crate) node_ips: Vec<IpAddr>,
    /// Number of the node's block of loopback addresses.
    pub(crate) block: u32,
}

impl Environment {
    /// Ranges from their texts; those that are none are left out.
    pub(crate) fn ranges(texts: &[String]) -> Vec<Ipv4Net> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// Encodes the part. Of a zone's records those are kept that give addresses; of a name that has
/// only others, that it exists.
pub(crate) fn encode(environment: &Environment, rules: &Rules, zone: &Zone) -> Vec<u8> {
    let mut services = Vec::with_capacity(rules.services.len() * SERVICE);
    let mut endpoints = Vec::new();
    for (key, port) in &rules.services {
        services.extend(key_bytes(key.ip, key.port, key.protocol));
        services.push(port.affinity.map_or(0, |_| AFFINITY));
        services.extend(number(endpoints.len() / ENDPOINT));
        services.extend(number(port.endpoints.len()));
        let seconds = port.affinity.map_or(0, |affinity| affinity.as_secs());
        services.extend(number(usize::try_from(seconds).unwrap_or(usize::MAX)));
        for endpoint in port.endpoints.iter() {
            endpoints.extend(endpoint.ip().octets());
            endpoints.extend(endpoint.port().to_be_bytes());
        }
    }
    let mut names = Vec::with_capacity(zone.records.len() * NAME);
    let mut texts = Vec::new();
    let mut addresses: Vec<u8> = Vec::new();
    for (name, records) in &zone.records {
        let Ok(length) = u16::try_from(name.len()) else {
            continue;
        };
        names.extend(number(texts.len()));
        names.extend(length.to_be_bytes());
        texts.extend_from_slice(name.as_bytes());
        let alias = records.iter().find_map(|record| match record {
            Record::Cname(target) => Some(target),
            _ => None,
        });
        let first = addresses.len() / 4;
        for record in records {
            if let Record::A(ip) = record {
                addresses.extend(ip.octets());
            }
        }
        let count = addresses.len() / 4 - first;
        let (kind, first, count) = match alias {
            Some(target) => {
                let first = texts.len();
                texts.extend_from_slice(target.as_bytes());
                (ALIAS, first, target.len())
            }
            None if count > 0 => (ADDRESSES, first, count),
            None => (EXISTS, 0, 0),
        };
        names.extend([kind, 0]);
        names.extend(number(first));
        names.extend(number(count));
    }
    // It is made of strings and numbers: it always has a JSON form.
    let environment = serde_json::to_vec(environment).unwrap_or_default();
    Builder::default()
        .section(1, environment)
        .section(SERVICE, services)
        .section(ENDPOINT, endpoints)
        .section(NAME, names)
        .section(1, texts)
        .section(4, addresses)
        .build()
}

/// What a name leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Addresses(Vec<Ipv4Addr>),
    Alias(String),
    /// It has records, but none that give an address.
    Exists,
}

/// A Service's port.
pub(crate) struct Service {
    /// Its endpoints, sorted.
    pub(crate) endpoints: Vec<SocketAddrV4>,
    /// Session affinity, and its timeout.
    pub(crate) affinity: Option<Duration>,
}

/// Reads the part.
pub(crate) struct Services<'a>(pub(crate) &'a [u8]);

impl Services<'_> {
    pub(crate) fn environment(&self) -> Option<Environment> {
        let text = section(self.0, 0)?;
        serde_json::from_slice(text.range(0, text.len())?).ok()
    }

    /// The rule for an address, if it is a Service's.
    pub(crate) fn service(&self, ip: Ipv4Addr, port: u16, protocol: Protocol) -> Option<Service> {
        let key = key_bytes(ip, port, protocol);
        let record = section(self.0, 1)?.find(|record| record[..7].cmp(&key[..]))?;
        let (first, count) = (read_number(record, 8)?, read_number(record, 12)?);
        let endpoints = section(self.0, 2)?.range(first, count)?;
        let endpoints = endpoints.chunks_exact(ENDPOINT).filter_map(|endpoint| {
            let ip: [u8; 4] = endpoint.get(..4)?.try_into().ok()?;
            Some(SocketAddrV4::new(ip.into(), read_port(endpoint, 4)?))
        });
        let seconds = read_number(record, 16)? as u64;
        Some(Service {
            endpoints: endpoints.collect(),
            affinity: (record[7] & AFFINITY != 0).then(|| Duration::from_secs(seconds)),
        })
    }

    /// What a fully qualified name in lower case leads to, if it exists.
    pub(crate) fn name(&self, name: &str) -> Option<Named> {
        let (names, texts) = (section(self.0, 3)?, section(self.0, 4)?);
        let record = names.find(|record| {
            let text = text(record, texts).unwrap_or_default();
            text.cmp(name.as_bytes())
        })?;
        let (first, count) = (read_number(record, 8)?, read_number(record, 12)?);
        match record[6] {
            ADDRESSES => {
                let bytes = section(self.0, 5)?.range(first, count)?;
                let addresses = bytes.chunks_exact(4).filter_map(|ip| {
                    let ip: [u8; 4] = ip.try_into().ok()?;
                    Some(ip.into())
                });
                Some(Named::Addresses(addresses.collect()))
            }
            ALIAS => {
                let target = texts.range(first, count)?;
                Some(Named::Alias(String::from_utf8(target.to_vec()).ok()?))
            }
            _ => Some(Named::Exists),
        }
    }
}

fn text<'a>(record: &[u8], texts: Records<'a>) -> Option<&'a [u8]> {
    texts.range(read_number(record, 0)?, read_port(record, 4)?.into())
}
