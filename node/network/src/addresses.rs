//! Which Pod has which address.
//!
//! One small file per address, named by it, so that giving one costs the same whether there are
//! ten Pods or ten thousand, and a restarted agent finds them all. The pool owns its folder.
//!
//! Where Pods have network namespaces the range has two parts: the front is for Pods of guests,
//! whose namespace holds it as a whole, and the end for Pods with namespaces of their own, each of
//! which has a route. So an address tells how its Pod is attached; its record says so too.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use coracle_runtime::{Attachment, PodIdentity};
use ipnet::IpNet;

use crate::host_ports::{HostPort, Published};

/// Why a Pod is not joined to the network.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// All are given.
    #[error(
        "no addresses left in {0}: delete Pods, or give nodes larger ranges with --node-cidr-mask-size"
    )]
    Exhausted(IpNet),
    /// The control plane has not given the node a range.
    #[error("the node has no range of Pod addresses yet")]
    NoRange,
    /// The Pod's namespace could not be made.
    #[error("cannot make the network namespace of the Pod at {address}: {source}")]
    Namespace {
        /// The Pod's address, which it keeps.
        address: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The record could not be written.
    #[error("cannot record address {address}: {source}")]
    Record {
        /// The address.
        address: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Whether a node's range has a part for Pods with namespaces of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// All Pods have addresses of the same kind.
    One,
    /// The end of the range is theirs, see [`namespaced_part`].
    Two,
}

/// What a Pod has.
#[derive(Debug)]
struct Given {
    address: IpAddr,
    pod: PodIdentity,
    ports: Vec<HostPort>,
}

/// The addresses of a node's range.
#[derive(Debug)]
pub struct AddressPool {
    range: IpNet,
    /// The part for Pods with namespaces of their own.
    namespaced: Option<IpNet>,
    folder: PathBuf,
    given: HashMap<String, Given>,
    taken: BTreeSet<IpAddr>,
    /// For each part the position in the range after the one given last: an address rests before
    /// it is given again, so that clients of a Pod that has gone do not meet another one.
    next: HashMap<Attachment, u128>,
}

/// At most so many bits of address are for Pods with namespaces of their own: 256 are more than
/// twice what Kubernetes puts on a node, and 16,000 Pods of guests fit into a /18 beside them.
const NAMESPACED_BITS: u8 = 8;

/// The part of a node's range for Pods with namespaces of their own: its second half, or the last
/// 256 addresses.
pub(crate) fn namespaced_part(range: IpNet) -> IpNet {
    let most = range.max_prefix_len();
    let prefix = (range.prefix_len() + 1).max(most - NAMESPACED_BITS);
    IpNet::new(range.broadcast(), prefix.min(most))
        .unwrap_or(range)
        .trunc()
}

impl AddressPool {
    /// Opens the pool of `range` with what was given before.
    pub fn open(folder: &Path, range: IpNet, parts: Parts) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut pool = Self {
            range,
            namespaced: (parts == Parts::Two).then(|| namespaced_part(range)),
            folder: folder.to_owned(),
            given: HashMap::new(),
            taken: BTreeSet::new(),
            next: HashMap::new(),
        };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let recorded = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<IpAddr>().ok())
                .filter(|address| range.contains(address))
                .zip(std::fs::read(&path).ok().and_then(|bytes| decode(&bytes)));
            match recorded {
                Some((address, (pod, attachment, ports)))
                    if attachment.is_none_or(|of| of == pool.attachment(address)) =>
                {
                    pool.insert(address, pod, ports);
                }
                // Cut off while it was written, of another range, or of a network of another
                // form: nobody holds it.
                _ => std::fs::remove_file(&path)?,
            }
        }
        Ok(pool)
    }

    /// The address of a Pod, which has these ports of the machine; the same ones until it is
    /// released, whatever is asked for later.
    pub fn allocate(
        &mut self,
        pod: &PodIdentity,
        attachment: Attachment,
        ports: &[HostPort],
    ) -> Result<IpAddr, AddressError> {
        if let Some(address) = self.address(&pod.uid) {
            return Ok(address);
        }
        let (first, count) = self.part(attachment);
        let next = self.next.get(&attachment).copied().unwrap_or_default();
        let size = size(self.range);
        let free = (0..count)
            .map(|step| first + (next + step) % count)
            .find_map(|position| {
                let address = nth(self.range, position)?;
                // The network's own address, the node's end, and the broadcast address.
                let usable = position > 1 && (position < size - 1 || self.range.addr().is_ipv6());
                (usable && !self.taken.contains(&address)).then_some((position, address))
            });
        let Some((position, address)) = free else {
            return Err(AddressError::Exhausted(self.range));
        };
        let record = encode(pod, self.attachment(address), ports);
        std::fs::write(self.folder.join(address.to_string()), record)
            .map_err(|source| AddressError::Record { address, source })?;
        self.next.insert(attachment, position + 1 - first);
        self.insert(address, pod.clone(), ports.to_vec());
        Ok(address)
    }

    /// How the Pod of an address is attached.
    pub fn attachment(&self, address: IpAddr) -> Attachment {
        match self.namespaced {
            Some(part) if part.contains(&address) => Attachment::Netns,
            _ => Attachment::Address,
        }
    }

    /// The address of a Pod, if it has one.
    pub fn address(&self, uid: &str) -> Option<IpAddr> {
        self.given.get(uid).map(|given| given.address)
    }

    /// Whether a Pod has this address.
    pub fn is_given(&self, address: IpAddr) -> bool {
        self.taken.contains(&address)
    }

    /// The first position of a part of the range, and how many it has.
    fn part(&self, attachment: Attachment) -> (u128, u128) {
        let all = size(self.range);
        let end = self.namespaced.map_or(0, size);
        match attachment {
            Attachment::Netns if end > 0 => (all - end, end),
            _ => (0, all - end),
        }
    }

    /// Gives the address of a Pod back.
    pub fn release(&mut self, uid: &str) -> io::Result<()> {
        let Some(address) = self.address(uid) else {
            return Ok(());
        };
        match std::fs::remove_file(self.folder.join(address.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.given.remove(uid);
        self.taken.remove(&address);
        Ok(())
    }

    /// Every address with its Pod.
    pub fn pods(&self) -> impl Iterator<Item = (IpAddr, &PodIdentity)> {
        self.given.values().map(|given| (given.address, &given.pod))
    }

    /// All ports of the machine that Pods have, in order.
    pub(crate) fn host_ports(&self) -> Vec<Published> {
        let of = |given: &Given| {
            let pod = given.address;
            let ports = given.ports.clone().into_iter();
            ports.map(move |port| Published { port, pod })
        };
        let mut all: Vec<Published> = self.given.values().flat_map(of).collect();
        all.sort();
        all
    }

    fn insert(&mut self, address: IpAddr, pod: PodIdentity, ports: Vec<HostPort>) {
        self.taken.insert(address);
        let given = Given {
            address,
            pod,
            ports,
        };
        self.given.insert(given.pod.uid.clone(), given);
    }
}

/// The node's own end of a range: its first address.
pub(crate) fn gateway(range: IpNet) -> IpAddr {
    nth(range, 1).unwrap_or(range.network())
}

fn size(range: IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    // A node with more than 2^32 Pods has other worries.
    1 << bits.min(32)
}

fn nth(range: IpNet, position: u128) -> Option<IpAddr> {
    match range.network() {
        IpAddr::V4(first) => u32::try_from(position)
            .ok()
            .and_then(|position| u32::from(first).checked_add(position))
            .map(|address| IpAddr::V4(address.into())),
        IpAddr::V6(first) => u128::from(first)
            .checked_add(position)
            .map(|address| IpAddr::V6(address.into())),
    }
}

fn encode(pod: &PodIdentity, attachment: Attachment, ports: &[HostPort]) -> String {
    let attachment = match attachment {
        Attachment::Address => "address",
        Attachment::Netns => "netns",
    };
    let PodIdentity {
        uid,
        namespace,
        name,
    } = pod;
    let ports: String = ports.iter().map(|port| format!("{port}\n")).collect();
    format!("{uid}\n{namespace}\n{name}\n{attachment}\n{ports}")
}

/// Whose an address is, how it is attached if the record says so, and the Pod's ports of the machine.
fn decode(bytes: &[u8]) -> Option<(PodIdentity, Option<Attachment>, Vec<HostPort>)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let pod = PodIdentity {
        uid: lines.next()?.to_owned(),
        namespace: lines.next()?.to_owned(),
        name: lines.next()?.to_owned(),
    };
    let attachment = match lines.next() {
        None => None,
        Some("address") => Some(Attachment::Address),
        Some("netns") => Some(Attachment::Netns),
        Some(_) => return None,
    };
    let ports = lines.filter_map(|line| line.parse().ok()).collect();
    Some((pod, attachment, ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> PodIdentity {
        PodIdentity {
            namespace: "default".into(),
            name: format!("pod-{uid}"),
            uid: uid.into(),
        }
    }

    const PARTS: [Attachment; 2] = [Attachment::Address, Attachment::Netns];

    #[test]
    fn an_address_stays_with_its_pod_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let range = "10.42.0.0/24".parse().unwrap();
        let open = |parts| AddressPool::open(folder.path(), range, parts).unwrap();
        let mut pool = open(Parts::Two);
        let a = pool.allocate(&pod("a"), Attachment::Address, &[]).unwrap();
        assert_eq!(a.to_string(), "10.42.0.2");
        // It keeps what it has.
        assert_eq!(pool.allocate(&pod("a"), Attachment::Netns, &[]).unwrap(), a);
        let ports = ["TCP 0.0.0.0 8080 80", "UDP 127.0.0.1 53 53"];
        let ports = ports.map(|port| port.parse().unwrap());
        let b = pool.allocate(&pod("b"), Attachment::Netns, &ports).unwrap();
        assert_eq!(b.to_string(), "10.42.0.128");
        let record = std::fs::read_to_string(folder.path().join("10.42.0.128")).unwrap();
        assert_eq!(
            record,
            "b\ndefault\npod-b\nnetns\nTCP 0.0.0.0 8080 80\nUDP 127.0.0.1 53 53\n"
        );
        drop(pool);
        std::fs::write(folder.path().join("10.42.0.9"), "cut").unwrap();
        // Of the part that the other kind has.
        std::fs::write(folder.path().join("10.42.0.200"), "c\nd\ne\naddress\n").unwrap();
        // As nodes wrote it that had one kind.
        std::fs::write(folder.path().join("10.42.0.7"), "f\nd\ne\n").unwrap();
        let mut pool = open(Parts::Two);
        assert_eq!(
            pool.allocate(&pod("b"), Attachment::Address, &[]).unwrap(),
            b
        );
        let attached = |uid| pool.address(uid).map(|address| pool.attachment(address));
        let wanted = [
            Some(Attachment::Address),
            Some(Attachment::Netns),
            None,
            Some(Attachment::Address),
        ];
        assert_eq!(["a", "b", "c", "f"].map(attached), wanted);
        let published = ports.map(|port| Published { port, pod: b });
        assert_eq!(pool.host_ports(), published);
        pool.release("a").unwrap();
        pool.release("a").unwrap();
        assert_eq!(pool.pods().count(), 2);
        drop(pool);
        // Without namespaces no Pod has one of its own.
        let pool = open(Parts::One);
        assert_eq!((pool.address("b"), pool.pods().count()), (None, 1));
    }

    #[test]
    fn a_range_gives_all_its_addresses_once_and_then_says_so() {
        for (range, parts, counts) in [
            ("10.42.7.0/29", Parts::One, [5, 0]),
            ("10.42.7.0/29", Parts::Two, [2, 3]),
            ("10.42.8.0/24", Parts::Two, [126, 127]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let range = range.parse().unwrap();
            let mut pool = AddressPool::open(folder.path(), range, parts).unwrap();
            let mut given = BTreeSet::new();
            for (part, count) in PARTS.into_iter().zip(counts) {
                for n in 0..count {
                    let address = pool
                        .allocate(&pod(&format!("{part:?}-{n}")), part, &[])
                        .unwrap();
                    assert_eq!(pool.attachment(address), part, "{address}");
                    assert!(given.insert(address));
                }
                let more = pool.allocate(&pod("more"), part, &[]);
                assert!(matches!(more, Err(AddressError::Exhausted(_))), "{part:?}");
            }
            let freed = pool.address("Address-1").unwrap();
            pool.release("Address-1").unwrap();
            let again = pool
                .allocate(&pod("more"), Attachment::Address, &[])
                .unwrap();
            assert_eq!(again, freed);
        }
    }

    #[test]
    fn ranges_have_a_part_for_pods_with_namespaces() {
        for (range, part) in [
            ("10.42.0.0/16", "10.42.255.0/24"),
            ("10.42.64.0/18", "10.42.127.0/24"),
            ("10.42.3.0/24", "10.42.3.128/25"),
            ("10.42.3.0/29", "10.42.3.4/30"),
            ("10.42.3.8/32", "10.42.3.8/32"),
        ] {
            let part: IpNet = part.parse().unwrap();
            assert_eq!(namespaced_part(range.parse().unwrap()), part, "{range}");
        }
        // `coracle up` promises so many Pods of guests.
        let guests = size("10.42.0.0/18".parse().unwrap()) - 256 - 2;
        assert!(guests >= 16_000);
    }
}
