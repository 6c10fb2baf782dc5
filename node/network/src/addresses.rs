//! Which Pod has which address.
//!
//! One small file per address, named by it, so that giving one costs the same whether there are
//! ten Pods or ten thousand, and a restarted agent finds them all. The pool owns its folder.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use coracle_runtime::PodIdentity;
use ipnet::IpNet;

/// Why there is no address.
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

/// The addresses of a node's range.
#[derive(Debug)]
pub struct AddressPool {
    range: IpNet,
    folder: PathBuf,
    given: HashMap<String, (IpAddr, PodIdentity)>,
    taken: BTreeSet<IpAddr>,
    /// Position in the range after the one given last: an address rests before it is given again,
    /// so that clients of a Pod that has gone do not meet another one.
    next: u128,
}

impl AddressPool {
    /// Opens the pool of `range` with what was given before.
    pub fn open(folder: &Path, range: IpNet) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut pool = Self {
            range,
            folder: folder.to_owned(),
            given: HashMap::new(),
            taken: BTreeSet::new(),
            next: 0,
        };
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let recorded = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<IpAddr>().ok())
                .filter(|address| range.contains(address))
                .zip(std::fs::read(&path).ok().and_then(|bytes| decode(&bytes)));
            match recorded {
                Some((address, pod)) => pool.insert(address, pod),
                // Cut off while it was written, or of another range: nobody holds it.
                None => std::fs::remove_file(&path)?,
            }
        }
        Ok(pool)
    }

    /// The address of a Pod; the same one until it is released.
    pub fn allocate(&mut self, pod: &PodIdentity) -> Result<IpAddr, AddressError> {
        if let Some((address, _)) = self.given.get(&pod.uid) {
            return Ok(*address);
        }
        let size = size(self.range);
        let free = (0..size)
            .map(|step| (self.next + step) % size)
            .find_map(|position| {
                let address = nth(self.range, position)?;
                // The network's own address, the node's end, and the broadcast address.
                let usable = position > 1 && (position < size - 1 || self.range.addr().is_ipv6());
                (usable && !self.taken.contains(&address)).then_some((position, address))
            });
        let Some((position, address)) = free else {
            return Err(AddressError::Exhausted(self.range));
        };
        std::fs::write(self.folder.join(address.to_string()), encode(pod))
            .map_err(|source| AddressError::Record { address, source })?;
        self.next = position + 1;
        self.insert(address, pod.clone());
        Ok(address)
    }

    /// Gives the address of a Pod back.
    pub fn release(&mut self, uid: &str) -> io::Result<()> {
        let Some((address, _)) = self.given.get(uid) else {
            return Ok(());
        };
        let address = *address;
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
        self.given.values().map(|(address, pod)| (*address, pod))
    }

    fn insert(&mut self, address: IpAddr, pod: PodIdentity) {
        self.taken.insert(address);
        self.given.insert(pod.uid.clone(), (address, pod));
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

fn encode(pod: &PodIdentity) -> String {
    format!("{}\n{}\n{}\n", pod.uid, pod.namespace, pod.name)
}

fn decode(bytes: &[u8]) -> Option<PodIdentity> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.strip_suffix('\n')?.split('\n').map(str::to_owned);
    Some(PodIdentity {
        uid: lines.next()?,
        namespace: lines.next()?,
        name: lines.next()?,
    })
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

    #[test]
    fn an_address_stays_with_its_pod_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let range = "10.42.0.0/24".parse().unwrap();
        let mut pool = AddressPool::open(folder.path(), range).unwrap();
        let a = pool.allocate(&pod("a")).unwrap();
        assert_eq!(a.to_string(), "10.42.0.2");
        assert_eq!(pool.allocate(&pod("a")).unwrap(), a);
        let b = pool.allocate(&pod("b")).unwrap();
        assert_ne!(a, b);
        drop(pool);
        std::fs::write(folder.path().join("10.42.0.9"), "cut").unwrap();
        let mut pool = AddressPool::open(folder.path(), range).unwrap();
        assert_eq!(pool.allocate(&pod("b")).unwrap(), b);
        assert_eq!(pool.pods().count(), 2);
        pool.release("a").unwrap();
        pool.release("a").unwrap();
        assert_eq!(pool.pods().count(), 1);
    }

    #[test]
    fn a_range_gives_all_its_addresses_once_and_then_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = AddressPool::open(folder.path(), "10.42.7.0/29".parse().unwrap()).unwrap();
        let given: BTreeSet<_> = (0..5)
            .map(|n| pool.allocate(&pod(&n.to_string())).unwrap())
            .collect();
        assert_eq!(given.len(), 5);
        assert!(matches!(
            pool.allocate(&pod("more")),
            Err(AddressError::Exhausted(_))
        ));
        pool.release("3").unwrap();
        assert!(given.contains(&pool.allocate(&pod("more")).unwrap()));
    }
}
