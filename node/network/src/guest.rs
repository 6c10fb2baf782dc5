//! The guests' side: answers [`GuestNetwork`] out of the snapshot, in the guest's own process.
//!
//! What the guest sees is a Pod with an address of its own; what the host has is sockets on
//! loopback. Everything that crosses is translated here:
//!
//! | the guest says | the host does |
//! |---|---|
//! | bind to 0.0.0.0, its own address, or localhost | binds loopback on a free port |
//! | bind to any other address | refuses |
//! | connect to localhost | its own listeners: those on localhost, then those on 0.0.0.0 |
//! | connect to a Pod | the socket that the snapshot names, or refuses |
//! | connect to a Service | one of its endpoints, or refuses where there is none |
//! | connect to anything else | as it is; the host's own loopback is never reached |

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use coracle_runtime::{GuestNetwork, NetworkError, Peer, Protocol};
use parking_lot::Mutex;

use crate::balance::pick;
use crate::snapshot::{Answer, Snapshot};

/// Names with fewer dots are tried under the search path first (`ndots`, as Pods have it).
const NDOTS: usize = 5;
/// A chain of aliases longer than this is taken for a loop.
const ALIASES: usize = 8;
/// Remote addresses of datagrams that a process remembers, so that a reply from an endpoint
/// carries its Service's address. Past it, the oldest half is forgotten.
const REMEMBERED: usize = 4096;

/// The network as one Pod sees it.
pub struct SnapshotNetwork {
    reader: Arc<Reader>,
    own: Vec<IpAddr>,
    /// Listeners of this Pod in this process: by what the guest bound, where it really is.
    local: Mutex<HashMap<(Protocol, SocketAddr), SocketAddr>>,
    /// What the guest dialled, by where it really went, for replies.
    dialled: Mutex<HashMap<(Protocol, SocketAddr), SocketAddr>>,
}

/// The snapshot of a path. A process has one for all its Pods: ten thousand mappings of the same
/// file would cost more than the Pods.
struct Reader {
    path: PathBuf,
    current: Mutex<Option<Current>>,
}

/// The readers of this process.
static READERS: Mutex<Vec<Weak<Reader>>> = Mutex::new(Vec::new());

impl Reader {
    fn of(path: &Path) -> Arc<Self> {
        let mut readers = READERS.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        if let Some(reader) = readers
            .iter()
            .filter_map(Weak::upgrade)
            .find(|reader| reader.path == path)
        {
            return reader;
        }
        let reader = Arc::new(Self {
            path: path.to_owned(),
            current: Mutex::new(None),
        });
        readers.push(Arc::downgrade(&reader));
        reader
    }

    /// The newest snapshot; the last good one while there is none.
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let mut current = self.current.lock();
        let newest = std::fs::metadata(&self.path)
            .ok()
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec()));
        if let Some(identity) = newest
            && current.as_ref().map(|c| c.identity) != Some(identity)
            && let Ok(snapshot) = File::open(&self.path).and_then(|file| Snapshot::open(&file))
        {
            *current = Some(Current {
                identity,
                snapshot: Arc::new(snapshot),
            });
        }
        current.as_ref().map(|current| current.snapshot.clone())
    }
}

/// The mapped snapshot with what tells it from the next one.
struct Current {
    identity: (u64, i64, i64),
    snapshot: Arc<Snapshot>,
}

impl SnapshotNetwork {
    /// The network of the Pod with the addresses `own`. The file need not be there yet.
    ///
    /// # Errors
    /// The Pod has no address.
    pub fn open(path: &Path, own: &[IpAddr]) -> io::Result<Self> {
        if own.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a Pod without an address has no network",
            ));
        }
        Ok(Self {
            reader: Reader::of(path),
            own: own.to_vec(),
            local: Mutex::new(HashMap::new()),
            dialled: Mutex::new(HashMap::new()),
        })
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.reader.snapshot()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address.to_canonical())
    }

    /// Whether a listener bound to `bound` takes what is sent to `remote`, both as the guest sees
    /// them.
    fn takes(bound: SocketAddr, remote: SocketAddr) -> bool {
        bound.port() == remote.port()
            && (bound.ip().is_unspecified() || canonical(bound.ip()) == canonical(remote.ip()))
    }

    /// The listener of this process for `remote`; one on that very address before a wildcard.
    fn local_listener(&self, protocol: Protocol, remote: SocketAddr) -> Option<SocketAddr> {
        let local = self.local.lock();
        local
            .iter()
            .filter(|((p, bound), _)| *p == protocol && Self::takes(*bound, remote))
            .min_by_key(|((_, bound), _)| bound.ip().is_unspecified())
            .map(|(_, actual)| *actual)
    }

    fn remember(&self, protocol: Protocol, actual: SocketAddr, apparent: SocketAddr) {
        if protocol == Protocol::Tcp || actual == apparent {
            return;
        }
        let mut dialled = self.dialled.lock();
        if dialled.len() >= REMEMBERED {
            let mut keep = false;
            dialled.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        dialled.insert((protocol, actual), apparent);
    }

    fn lead(&self, protocol: Protocol, remote: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let refused = || NetworkError::ConnectionRefused(remote);
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let snapshot = self.snapshot();
        let published = |socket: SocketAddr| {
            snapshot
                .as_ref()?
                .listener((socket.ip(), socket.port(), protocol))
        };
        if remote.ip().is_loopback() || remote.ip().is_unspecified() || self.is_own(remote.ip()) {
            return self
                .local_listener(protocol, remote)
                // Another process of this Pod.
                .or_else(|| {
                    self.own
                        .iter()
                        .find_map(|own| published(SocketAddr::new(*own, remote.port())))
                })
                .ok_or_else(refused);
        }
        if let Some(actual) = published(remote) {
            return Ok(actual);
        }
        let Some(snapshot) = &snapshot else {
            return Ok(remote);
        };
        if let Some(service) = snapshot.service((remote.ip(), remote.port(), protocol)) {
            let client = service.affinity.then(|| self.own[0]);
            let chosen = pick(service.endpoints.iter().copied(), client)
                .map(|position| service.endpoints[position])
                .ok_or_else(refused)?;
            if self.is_own(chosen.ip())
                && let Some(actual) = self.local_listener(protocol, chosen)
            {
                return Ok(actual);
            }
            return match published(chosen) {
                Some(actual) => Ok(actual),
                // Ready, but on a node to which no way leads in this form of the network.
                None if is_virtual(snapshot, chosen.ip()) => {
                    Err(NetworkError::RemoteUnreachable(chosen))
                }
                None => Ok(chosen),
            };
        }
        if is_virtual(snapshot, remote.ip()) {
            return Err(refused());
        }
        Ok(remote)
    }
}

fn is_virtual(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot
        .general()
        .virtual_ranges
        .iter()
        .any(|range| range.contains(&address))
}

/// `::1` is the same Pod's localhost as 127.0.0.1.
fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    }
}

#[async_trait::async_trait]
impl GuestNetwork for SnapshotNetwork {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let asked = name.to_lowercase();
        if asked == "localhost" || asked == "localhost." {
            return Ok(vec![
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]);
        }
        let snapshot = self.snapshot();
        let mut wanted = match &snapshot {
            Some(snapshot) => match look_up(snapshot, &asked, self.own[0]) {
                Found::Addresses(addresses) => return Ok(addresses),
                Found::Outside(name) => name,
                Found::Nothing => return Err(NetworkError::NameUnresolvable(name.to_owned())),
            },
            None => asked,
        };
        // With a final dot the host's resolver does not try its own search path.
        if !wanted.ends_with('.') && wanted.contains('.') {
            wanted.push('.');
        }
        let found = tokio::net::lookup_host((wanted.as_str(), 0))
            .await
            .map_err(|error| NetworkError::TemporaryResolverFailure {
                name: name.to_owned(),
                cause: error.to_string(),
            })?;
        let mut addresses: Vec<IpAddr> = found.map(|socket| socket.ip()).collect();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(NetworkError::NameUnresolvable(name.to_owned()));
        }
        Ok(addresses)
    }

    fn bind(&self, _protocol: Protocol, local: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let address = local.ip();
        if !address.is_unspecified() && !canonical(address).is_loopback() && !self.is_own(address) {
            return Err(NetworkError::AddressNotBindable(local));
        }
        // The family is that of the guest's socket.
        let loopback = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        Ok(SocketAddr::new(loopback, 0))
    }

    fn bound(
        &self,
        _protocol: Protocol,
        local: SocketAddr,
        actual: SocketAddr,
    ) -> (SocketAddr, bool) {
        let port = match local.port() {
            0 => actual.port(),
            port => port,
        };
        let published = !canonical(local.ip()).is_loopback();
        (SocketAddr::new(local.ip(), port), published)
    }

    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Peer, NetworkError> {
        let actual = self.lead(protocol, remote)?;
        self.remember(protocol, actual, remote);
        Ok(Peer {
            actual,
            source: None,
        })
    }

    fn peer(&self, protocol: Protocol, actual: SocketAddr) -> Result<SocketAddr, NetworkError> {
        if let Some(apparent) = self.dialled.lock().get(&(protocol, actual)) {
            return Ok(*apparent);
        }
        if !actual.ip().to_canonical().is_loopback() {
            return Ok(actual);
        }
        // Somebody on this node. Which Pod it is cannot be told from its loopback socket.
        let gateway = self
            .snapshot()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |snapshot| {
                snapshot.general().gateway
            });
        let gateway = match (gateway, actual.ip()) {
            (IpAddr::V4(v4), IpAddr::V6(_)) => IpAddr::V6(v4.to_ipv6_mapped()),
            (gateway, _) => gateway,
        };
        Ok(SocketAddr::new(gateway, actual.port()))
    }

    fn listening(&self, protocol: Protocol, local: SocketAddr, actual: Option<SocketAddr>) {
        let mut listeners = self.local.lock();
        match actual {
            Some(actual) => listeners.insert((protocol, local), actual),
            None => listeners.remove(&(protocol, local)),
        };
    }
}

/// What the cluster says of a name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Addresses(Vec<IpAddr>),
    /// It is to be asked outside, under this name.
    Outside(String),
    /// It would have to be the cluster's, and is not.
    Nothing,
}

fn look_up(snapshot: &Snapshot, name: &str, own: IpAddr) -> Found {
    let domain = &snapshot.general().domain;
    let absolute = name.strip_suffix('.');
    let bare = absolute.unwrap_or(name);
    let search = [
        snapshot
            .namespace(own)
            .map(|namespace| format!("{namespace}.svc.{domain}")),
        Some(format!("svc.{domain}")),
        Some(domain.clone()),
    ];
    let searched = search
        .into_iter()
        .flatten()
        .map(|suffix| format!("{bare}.{suffix}"));
    let dots = bare.matches('.').count();
    let mut candidates = Vec::new();
    if absolute.is_none() && dots < NDOTS {
        candidates.extend(searched);
        candidates.push(bare.to_owned());
    } else {
        candidates.push(bare.to_owned());
    }
    for candidate in candidates {
        if let Some(found) = follow(snapshot, candidate) {
            return found;
        }
    }
    let inside = bare == domain || bare.ends_with(&format!(".{domain}"));
    if inside {
        Found::Nothing
    } else {
        Found::Outside(bare.to_owned())
    }
}

/// The end of a chain of aliases, if the name is one of the cluster's.
fn follow(snapshot: &Snapshot, mut name: String) -> Option<Found> {
    let mut answer = snapshot.name(&name)?;
    for _ in 0..ALIASES {
        match answer {
            Answer::Addresses(addresses) if addresses.is_empty() => return Some(Found::Nothing),
            Answer::Addresses(addresses) => return Some(Found::Addresses(addresses)),
            Answer::Alias(target) => name = target,
        }
        match snapshot.name(&name) {
            Some(next) => answer = next,
            None => return Some(Found::Outside(name)),
        }
    }
    Some(Found::Nothing)
}

#[cfg(test)]
mod tests;
