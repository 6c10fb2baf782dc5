//! What a guest may know of the cluster, as one file.
//!
//! The agent writes a new file and renames it over the old one; a guest process maps it
//! read-only and looks up by binary search, so that a hundred processes share one copy and none
//! decodes what it does not ask for. A reader notices a new file by its inode and change time
//! (one `stat` for each question, less than a microsecond beside a connect). While the agent is
//! down the last file serves, and what it says of Services and names until the next agent knows
//! (`kept`).
//!
//! Writing costs one pass over everything: about 60 bytes for a listener or a Service, 40 and its
//! text for a name. The agent gathers changes for a moment before it writes.
//!
//! ```text
//! magic 8 | version u32 | sections u32 | (offset u32, count u32) for each section | sections
//! ```
//! All numbers are little-endian; addresses take 16 bytes, IPv4 in its mapped form. A reader
//! checks every offset: a damaged file gives wrong answers at worst, never a fault.

mod kept;

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_runtime::Protocol;
use ipnet::IpNet;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};

pub(crate) use kept::Kept;

const MAGIC: &[u8; 8] = b"coranet\0";
/// Raised whenever a reader of the last one would misread or miss something.
const VERSION: u32 = 2;
const SECTIONS: usize = 8;

const GENERAL: usize = 0;
const LISTENERS: usize = 1;
const SERVICES: usize = 2;
const ENDPOINTS: usize = 3;
const NAMES: usize = 4;
const ADDRESSES: usize = 5;
const PODS: usize = 6;
const TEXT: usize = 7;

/// Bytes of one record in each section.
const SIZES: [usize; SECTIONS] = [1, 38, 32, 18, 20, 16, 22, 1];

/// Of a Service: clients stay with their endpoints.
const AFFINITY: u8 = 1;
/// Of a Service without endpoints: there are some on other nodes.
const ELSEWHERE: u8 = 2;

/// What a Pod's address is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// A name for sockets on the host's loopback: everybody dials through the map of listeners.
    Virtual,
    /// An address in the network namespace that all Pods of guests share, or in the Pod's own.
    Namespaced,
}

/// The localhost of a Pod: 127 and the low 24 bits of its address. In the namespaced form sockets
/// are really there; in both it is the key under which the Pod's own processes find them.
#[must_use]
pub fn localhost_of(pod: IpAddr) -> Ipv4Addr {
    let [.., a, b, c] = octets(pod);
    Ipv4Addr::new(127, a, b, c)
}

/// Who vouches for the servers of some hosts, and for no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificates, PEM.
    pub certificates: String,
    /// Names, in lower case, and addresses, as URLs have them.
    pub hosts: Vec<String>,
}

/// What is small and the same for everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct General {
    /// What Pods' addresses are here.
    pub form: Form,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Ranges in which an address that nobody serves is refused instead of dialled.
    #[serde(with = "as_text")]
    pub virtual_ranges: Vec<IpNet>,
    /// The address under which guests see callers that are no Pods.
    pub gateway: IpAddr,
    /// Where the node answers DNS, as guests know it; its sockets are among the listeners.
    #[serde(default)]
    pub dns: Option<SocketAddr>,
    /// Who vouches for the cluster's own servers.
    #[serde(default)]
    pub authority: Option<Authority>,
}

/// Ranges in their usual form.
mod as_text {
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(ranges: &[IpNet], out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(ranges.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNet>, D::Error> {
        Vec::<String>::deserialize(input)?
            .iter()
            .map(|range| range.parse().map_err(D::Error::custom))
            .collect()
    }
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// What that name stands for.
    Alias(String),
}

/// A port of a Service, as guests need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// Whether a client stays with its endpoint.
    pub affinity: bool,
    /// Sockets in the Pods.
    pub endpoints: Vec<SocketAddr>,
    /// Whether there are endpoints on other nodes, and none of them is for this one. To readers
    /// who know nothing of it there are none at all.
    pub elsewhere: bool,
}

/// The key of sockets: protocol, address and port.
pub type Socket = (IpAddr, u16, Protocol);

/// Everything, on the writer's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// General facts.
    pub general: General,
    /// Sockets of Pods, and of the node itself, and where they really are. Those on a Pod's
    /// localhost are under [`localhost_of`] it; those of Services that another proxy has are where
    /// they are called.
    pub listeners: BTreeMap<Socket, SocketAddr>,
    /// Services by their addresses.
    pub services: BTreeMap<Socket, Virtual>,
    /// Names, lower case, without the final dot.
    pub names: BTreeMap<String, Answer>,
    /// Namespaces of the node's Pods by their addresses.
    pub pods: BTreeMap<IpAddr, String>,
}

impl Contents {
    /// Nothing but general facts.
    #[must_use]
    pub fn new(general: General) -> Self {
        Self {
            general,
            listeners: BTreeMap::new(),
            services: BTreeMap::new(),
            names: BTreeMap::new(),
            pods: BTreeMap::new(),
        }
    }

    /// Writes the file anew, whole or not at all. It is not synced: after a crash of the machine
    /// nobody reads it.
    pub fn publish(&self, path: &Path) -> io::Result<()> {
        let staged = path.with_extension("new");
        let mut file = File::create(&staged)?;
        file.write_all(&self.encode()?)?;
        // Guests read it, who may run as other users than the agent.
        file.set_permissions(Permissions::from_mode(0o644))?;
        drop(file);
        std::fs::rename(&staged, path)
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let mut sections: [Vec<u8>; SECTIONS] = Default::default();
        sections[GENERAL] = serde_json::to_vec(&self.general)?;
        for (socket, actual) in in_key_order(&self.listeners) {
            let out = &mut sections[LISTENERS];
            put_socket(out, *socket);
            put_address(out, actual.ip());
            out.extend(actual.port().to_le_bytes());
            out.push(0);
        }
        for (socket, service) in in_key_order(&self.services) {
            let first = sections[ENDPOINTS].len() / SIZES[ENDPOINTS];
            for endpoint in &service.endpoints {
                put_address(&mut sections[ENDPOINTS], endpoint.ip());
                sections[ENDPOINTS].extend(endpoint.port().to_le_bytes());
            }
            let out = &mut sections[SERVICES];
            put_socket(out, *socket);
            let flag = |is_set, flag| if is_set { flag } else { 0 };
            out.push(flag(service.affinity, AFFINITY) | flag(service.elsewhere, ELSEWHERE));
            put_number(out, first)?;
            put_number(out, service.endpoints.len())?;
            out.extend([0; 4]);
        }
        for (name, answer) in &self.names {
            let text = put_text(&mut sections[TEXT], name)?;
            let (kind, (first, count)) = match answer {
                Answer::Addresses(addresses) => {
                    let first = sections[ADDRESSES].len() / SIZES[ADDRESSES];
                    for address in addresses {
                        put_address(&mut sections[ADDRESSES], *address);
                    }
                    (0_u8, (first, addresses.len()))
                }
                Answer::Alias(target) => (1, put_text(&mut sections[TEXT], target)?),
            };
            let out = &mut sections[NAMES];
            put_number(out, text.0)?;
            put_number(out, text.1)?;
            put_number(out, first)?;
            put_number(out, count)?;
            out.extend([kind, 0, 0, 0]);
        }
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|(address, _)| octets(**address));
        for (address, namespace) in pods {
            let (offset, length) = put_text(&mut sections[TEXT], namespace)?;
            let out = &mut sections[PODS];
            put_address(out, *address);
            put_number(out, offset)?;
            // A namespace has at most 63 characters.
            out.extend(u16::try_from(length).unwrap_or(0).to_le_bytes());
        }
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        put_number(&mut bytes, SECTIONS)?;
        let mut offset = bytes.len() + SECTIONS * 8;
        for (section, size) in sections.iter().zip(SIZES) {
            put_number(&mut bytes, offset)?;
            put_number(&mut bytes, section.len() / size)?;
            offset += section.len();
        }
        for section in &sections {
            bytes.extend(section);
        }
        Ok(bytes)
    }
}

fn put_number(out: &mut Vec<u8>, number: usize) -> io::Result<()> {
    let number = u32::try_from(number).map_err(io::Error::other)?;
    out.extend(number.to_le_bytes());
    Ok(())
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    out.extend(octets(address));
}

fn put_socket(out: &mut Vec<u8>, (address, port, protocol): Socket) {
    out.extend(socket_key((address, port, protocol)));
}

/// Appends a text; its offset and length.
fn put_text(out: &mut Vec<u8>, text: &str) -> io::Result<(usize, usize)> {
    let offset = out.len();
    out.extend(text.as_bytes());
    Ok((offset, text.len()))
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Entries in the order of the bytes by which they are found.
fn in_key_order<T>(map: &BTreeMap<Socket, T>) -> Vec<(&Socket, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(socket, _)| socket_key(**socket));
    entries
}

/// The bytes by which sockets are sorted and found.
fn socket_key((address, port, protocol): Socket) -> [u8; 19] {
    let mut key = [0; 19];
    key[..16].copy_from_slice(&octets(address));
    key[16..18].copy_from_slice(&port.to_be_bytes());
    key[18] = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    };
    key
}

/// The file, mapped.
pub struct Snapshot {
    map: Mmap,
    sections: [(usize, usize); SECTIONS],
    general: General,
}

impl Snapshot {
    /// Maps a published file.
    ///
    /// # Errors
    /// The file is not there, or is none of ours.
    pub fn open(file: &File) -> io::Result<Self> {
        // SAFETY: the agent never writes to a published file: it renames a new one over it, so
        // what is mapped does not change, and its length does not either.
        #[expect(unsafe_code, reason = "mapping a file")]
        let map = unsafe { Mmap::map(file)? };
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let damaged = || invalid("this is no whole network snapshot".to_owned());
        if map.get(..8) != Some(MAGIC) {
            return Err(damaged());
        }
        let version = number(&map, 8).ok_or_else(damaged)?;
        if version != VERSION as usize {
            return Err(invalid(format!(
                "the network snapshot has layout {version}, this process knows {VERSION}: restart the Pod"
            )));
        }
        let mut sections = [(0, 0); SECTIONS];
        for (index, section) in sections.iter_mut().enumerate() {
            let offset = number(&map, 16 + index * 8).ok_or_else(damaged)?;
            let count = number(&map, 20 + index * 8).ok_or_else(damaged)?;
            let end = count
                .checked_mul(SIZES[index])
                .and_then(|size| size.checked_add(offset));
            if end.is_none_or(|end| end > map.len()) {
                return Err(damaged());
            }
            *section = (offset, count);
        }
        let (offset, count) = sections[GENERAL];
        let general = serde_json::from_slice(&map[offset..offset + count])?;
        Ok(Self {
            map,
            sections,
            general,
        })
    }

    /// General facts.
    #[must_use]
    pub fn general(&self) -> &General {
        &self.general
    }

    /// Where a socket of a Pod really is.
    #[must_use]
    pub fn listener(&self, socket: Socket) -> Option<SocketAddr> {
        let record = self.find(LISTENERS, &socket_key(socket))?;
        Some(SocketAddr::new(address(record, 19)?, short(record, 35)?))
    }

    /// The Service port at an address, and its endpoints.
    #[must_use]
    pub fn service(&self, socket: Socket) -> Option<Virtual> {
        let record = self.find(SERVICES, &socket_key(socket))?;
        self.virtual_of(record)
    }

    fn virtual_of(&self, record: &[u8]) -> Option<Virtual> {
        let (first, count) = (number(record, 20)?, number(record, 24)?);
        let endpoints = (first..first.saturating_add(count))
            .map_while(|index| {
                let record = self.record(ENDPOINTS, index)?;
                Some(SocketAddr::new(address(record, 0)?, short(record, 16)?))
            })
            .collect();
        let flags = record.get(19).copied().unwrap_or_default();
        Some(Virtual {
            affinity: flags & AFFINITY != 0,
            endpoints,
            elsewhere: flags & ELSEWHERE != 0,
        })
    }

    /// What a name stands for; it must be in lower case and without the final dot.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<Answer> {
        let index = self.search(NAMES, |record| {
            let text = self.text(number(record, 0)?, number(record, 4)?)?;
            Some(text.cmp(name.as_bytes()))
        })?;
        self.answer_of(self.record(NAMES, index)?)
    }

    fn answer_of(&self, record: &[u8]) -> Option<Answer> {
        let (first, count) = (number(record, 8)?, number(record, 12)?);
        if record.get(16) == Some(&1) {
            let target = std::str::from_utf8(self.text(first, count)?).ok()?;
            return Some(Answer::Alias(target.to_owned()));
        }
        let addresses = (first..first.saturating_add(count))
            .map_while(|index| address(self.record(ADDRESSES, index)?, 0))
            .collect();
        Some(Answer::Addresses(addresses))
    }

    /// Namespace of the Pod with an address.
    #[must_use]
    pub fn namespace(&self, pod: IpAddr) -> Option<&str> {
        let record = self.find(PODS, &octets(pod))?;
        let text = self.text(number(record, 16)?, usize::from(short(record, 20)?))?;
        std::str::from_utf8(text).ok()
    }

    fn record(&self, section: usize, index: usize) -> Option<&[u8]> {
        let (offset, count) = self.sections[section];
        let start = offset + index * SIZES[section];
        (index < count)
            .then(|| self.map.get(start..start + SIZES[section]))
            .flatten()
    }

    fn text(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let (start, count) = self.sections[TEXT];
        let end = offset.checked_add(length)?;
        (end <= count)
            .then(|| self.map.get(start + offset..start + end))
            .flatten()
    }

    /// The record whose first bytes are `key`.
    fn find(&self, section: usize, key: &[u8]) -> Option<&[u8]> {
        let index = self.search(section, |record| Some(record.get(..key.len())?.cmp(key)))?;
        self.record(section, index)
    }

    fn search(
        &self,
        section: usize,
        order: impl Fn(&[u8]) -> Option<std::cmp::Ordering>,
    ) -> Option<usize> {
        let (mut low, mut high) = (0, self.sections[section].1);
        while low < high {
            let middle = low + (high - low) / 2;
            match order(self.record(section, middle)?)? {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

fn number(bytes: &[u8], offset: usize) -> Option<usize> {
    let bytes = bytes.get(offset..offset + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn short(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(bytes))
}

fn address(bytes: &[u8], offset: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(offset..offset + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests;
