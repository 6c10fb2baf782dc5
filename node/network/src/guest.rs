//! The network as one Pod's guests see it, in the unprivileged form.
//!
//! | a guest asks for | it gets |
//! |---|---|
//! | bind `0.0.0.0:p` or its Pod's address | a free port of the Pod's loopback address; published |
//! | bind `127.0.0.1:p` | a free port of the Pod's private loopback address; not published |
//! | bind anything else | `AddressNotBindable` |
//! | connect to a Pod of this node | the socket that serves it, or refused |
//! | connect to a Service | one of its endpoints, or refused; unknown ones are refused |
//! | connect to `localhost` | a listener of its own Pod, or refused: never the host's |
//! | connect to a Pod of another node | unreachable: no way leads there unprivileged |
//! | connect elsewhere | as it is |
//!
//! A guest that connects is bound to its Pod's loopback address first, by which whoever accepts
//! knows the Pod ([`SnapshotNetwork::peer`]). IPv6 sockets of guests listen on `[::1]`, and
//! are published under the Pod's IPv4 address.
//!
//! Everything that is read from the snapshot is shared by all Pods of a process.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use coracle_runtime::{GuestNetwork, NetworkError, Peer, Protocol};
use ipnet::Ipv4Net;
use parking_lot::Mutex;

use crate::balance::Balance;
use crate::loopback::{Loopback, Side};
use crate::rules::ServiceKey;
use crate::snapshot::{Environment, Listeners, Part, Reader, Services};

mod localhost;
mod names;
mod resolve;

pub(crate) use localhost::forget as forget_localhost;

/// The network of one Pod, read from the snapshot that the agent publishes.
pub struct SnapshotNetwork {
    shared: Arc<Shared>,
    ips: Vec<Ipv4Addr>,
    /// Listeners of this process, by the guest's address.
    listening: Mutex<HashMap<(Protocol, SocketAddr), SocketAddr>>,
}

/// What the Pods of a process have in common.
struct Shared {
    folder: PathBuf,
    reader: Reader,
    view: ArcSwapOption<View>,
    balance: Balance<ServiceKey>,
}

/// What is fixed for the node, as of a generation.
struct View {
    generation: u64,
    pods: Ipv4Net,
    cluster: Vec<Ipv4Net>,
    services: Vec<Ipv4Net>,
    loopback: Loopback,
    node: Option<IpAddr>,
    domain: String,
}

static SHARED: LazyLock<Mutex<HashMap<PathBuf, Weak<Shared>>>> = LazyLock::new(Mutex::default);

impl SnapshotNetwork {
    /// Opens the snapshot for a Pod. Cheap for all Pods of a process but the first.
    pub fn open(path: &Path, pod_ips: &[IpAddr]) -> io::Result<Self> {
        let ips: Vec<Ipv4Addr> = pod_ips
            .iter()
            .filter_map(|ip| match ip.to_canonical() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        if ips.is_empty() {
            let message = format!("the Pod has no IPv4 address among {pod_ips:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self {
            shared: Shared::open(path)?,
            ips,
            listening: Mutex::default(),
        })
    }

    fn is_own(&self, ip: Ipv4Addr) -> bool {
        self.ips.contains(&ip)
    }

    /// Address and port in this process under which the guest's address is served.
    fn local(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        self.listening.lock().get(&(protocol, address)).copied()
    }

    /// The guest's port of a socket of this process.
    fn local_port(&self, protocol: Protocol, actual: SocketAddr) -> Option<u16> {
        let listening = self.listening.lock();
        let mut found = listening
            .iter()
            .filter(|((of, _), socket)| *of == protocol && **socket == actual);
        found.next().map(|((_, address), _)| address.port())
    }

    /// Where an address goes that is no Service's.
    fn direct(
        &self,
        view: &View,
        protocol: Protocol,
        remote: SocketAddrV4,
    ) -> Result<Peer, NetworkError> {
        let (ip, port) = (*remote.ip(), remote.port());
        let served = match self.is_own(ip) {
            true => self.local(protocol, remote.into()),
            false => None,
        };
        let listeners = self.shared.reader.part(Part::Listeners);
        let served = served.or_else(|| Listeners(&listeners?).actual(ip, port, protocol));
        let refused = || NetworkError::ConnectionRefused(remote.into());
        if let Some(actual) = served {
            return Ok(self.from_pod(view, actual, Side::Pod));
        }
        if view.pods.contains(&ip) {
            // A socket that was bound to port 0 keeps its port, so that answers to a datagram
            // reach it also before the agent knows of it.
            let stand_in = view.loopback.of(ip, Side::Pod).ok_or_else(refused)?;
            return match protocol {
                Protocol::Tcp => Err(refused()),
                Protocol::Udp => {
                    let actual = SocketAddr::new(stand_in.into(), port);
                    Ok(self.from_pod(view, actual, Side::Pod))
                }
            };
        }
        if contains(&view.services, ip) {
            return Err(refused());
        }
        if contains(&view.cluster, ip) {
            return Err(NetworkError::RemoteUnreachable(remote.into()));
        }
        Ok(Peer {
            actual: remote.into(),
            source: None,
        })
    }

    fn from_pod(&self, view: &View, actual: SocketAddr, side: Side) -> Peer {
        let own = self.ips.first().and_then(|ip| view.loopback.of(*ip, side));
        let source = own.filter(|_| actual.is_ipv4());
        Peer {
            actual,
            source: source.map(|ip| SocketAddr::new(ip.into(), 0)),
        }
    }

    fn connect_localhost(
        &self,
        view: &View,
        protocol: Protocol,
        remote: SocketAddr,
    ) -> Result<Peer, NetworkError> {
        let port = remote.port();
        let own = self.ips.iter().map(|ip| SocketAddr::new((*ip).into(), port));
        let localhost = SocketAddr::new(localhost_of(remote.ip()), port);
        let here = std::iter::once(localhost)
            .chain(own)
            .find_map(|address| self.local(protocol, address));
        let published = || {
            let listeners = self.shared.reader.part(Part::Listeners)?;
            let listeners = Listeners(&listeners);
            let mut ips = self.ips.iter();
            ips.find_map(|ip| listeners.actual(*ip, port, protocol))
        };
        let elsewhere = || {
            let ip = *self.ips.first()?;
            localhost::find(&self.shared.folder, ip, protocol, localhost)
        };
        let actual = here.or_else(published).or_else(elsewhere);
        match actual.filter(|actual| actual.is_ipv4() == remote.is_ipv4()) {
            Some(actual) => Ok(self.from_pod(view, actual, Side::Localhost)),
            None => Err(NetworkError::ConnectionRefused(remote)),
        }
    }

    /// The endpoints that can be reached from here, if any can; else all.
    fn reachable(view: &View, endpoints: Vec<SocketAddrV4>) -> Vec<SocketAddrV4> {
        let elsewhere = |endpoint: &SocketAddrV4| {
            contains(&view.cluster, *endpoint.ip()) && !view.pods.contains(endpoint.ip())
        };
        match endpoints.iter().any(elsewhere) && !endpoints.iter().all(elsewhere) {
            true => endpoints.into_iter().filter(|e| !elsewhere(e)).collect(),
            false => endpoints,
        }
    }
}

#[async_trait::async_trait]
impl GuestNetwork for SnapshotNetwork {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError> {
        self.look_up(name).await
    }

    fn bind(&self, _protocol: Protocol, local: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let refused = || NetworkError::AddressNotBindable(local);
        let view = self.shared.view().ok_or_else(refused)?;
        let ip = local.ip().to_canonical();
        let side = match ip {
            _ if ip.is_loopback() => Side::Localhost,
            _ if ip.is_unspecified() => Side::Pod,
            IpAddr::V4(ip) if self.is_own(ip) => Side::Pod,
            _ => return Err(refused()),
        };
        if local.is_ipv6() {
            return Ok(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0));
        }
        let own = self.ips.first().and_then(|ip| view.loopback.of(*ip, side));
        Ok(SocketAddr::new(own.ok_or_else(refused)?.into(), 0))
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
        let ip = local.ip().to_canonical();
        if ip.is_loopback() {
            return (SocketAddr::new(localhost_of(ip), port), false);
        }
        let own = self.ips.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        (SocketAddr::new(own.into(), port), true)
    }

    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Peer, NetworkError> {
        let unreachable = || NetworkError::RemoteUnreachable(remote);
        let view = self.shared.view().ok_or_else(unreachable)?;
        let ip = remote.ip().to_canonical();
        let remote = SocketAddr::new(ip, remote.port());
        let SocketAddr::V4(remote_v4) = remote else {
            if ip.is_loopback() || ip.is_unspecified() {
                return self.connect_localhost(&view, protocol, remote);
            }
            return Ok(Peer {
                actual: remote,
                source: None,
            });
        };
        if ip.is_loopback() || ip.is_unspecified() {
            return self.connect_localhost(&view, protocol, remote);
        }
        let key = ServiceKey {
            ip: *remote_v4.ip(),
            port: remote_v4.port(),
            protocol,
        };
        let part = self.shared.reader.part(Part::Services);
        let service = part.and_then(|part| Services(&part).service(key.ip, key.port, protocol));
        let Some(service) = service else {
            return self.direct(&view, protocol, remote_v4);
        };
        let endpoints = Self::reachable(&view, service.endpoints);
        let own = self.ips.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let affinity = service.affinity;
        let client = own.into();
        let balance = &self.shared.balance;
        let chosen = balance.choose(key, &endpoints, affinity, client, Instant::now());
        let chosen = chosen.ok_or(NetworkError::ConnectionRefused(remote))?;
        self.direct(&view, protocol, chosen)
    }

    fn peer(&self, protocol: Protocol, actual: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let Some(view) = self.shared.view() else {
            return Ok(actual);
        };
        let actual = SocketAddr::new(actual.ip().to_canonical(), actual.port());
        let known = || self.local_port(protocol, actual);
        match view.loopback.pod(actual.ip()) {
            Some((pod, Side::Localhost)) if self.is_own(pod) => {
                let port = known().unwrap_or(actual.port());
                Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
            }
            Some((_, Side::Localhost)) => Err(NetworkError::AccessDenied(actual)),
            Some((pod, Side::Pod)) => {
                let published = || {
                    let listeners = self.shared.reader.part(Part::Listeners)?;
                    Listeners(&listeners).port_of(pod, protocol, actual)
                };
                let port = known().or_else(published).unwrap_or(actual.port());
                Ok(SocketAddr::new(pod.into(), port))
            }
            None if actual.ip().is_loopback() && actual.is_ipv4() => {
                let node = view.node.unwrap_or(actual.ip());
                Ok(SocketAddr::new(node, actual.port()))
            }
            None => Ok(actual),
        }
    }

    fn listening(&self, protocol: Protocol, local: SocketAddr, actual: Option<SocketAddr>) {
        let mut listening = self.listening.lock();
        let last = match actual {
            Some(actual) => listening.insert((protocol, local), actual),
            None => listening.remove(&(protocol, local)),
        };
        drop(listening);
        if local.ip().is_loopback()
            && last != actual
            && let Some(ip) = self.ips.first()
        {
            let told = localhost::tell(&self.shared.folder, *ip, protocol, local, last, actual);
            if let Err(error) = told {
                tracing::warn!(%error, %local, "other processes of the Pod will not find it");
            }
        }
    }
}

impl Shared {
    fn open(path: &Path) -> io::Result<Arc<Self>> {
        let mut all = SHARED.lock();
        if let Some(shared) = all.get(path).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        let shared = Arc::new(Self {
            folder: path.parent().unwrap_or(Path::new(".")).to_owned(),
            reader: Reader::open(path)?,
            view: ArcSwapOption::empty(),
            balance: Balance::default(),
        });
        if shared.view().is_none() {
            let message = format!("{}: the agent has published nothing yet", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        all.retain(|_, other| other.strong_count() > 0);
        all.insert(path.to_owned(), Arc::downgrade(&shared));
        Ok(shared)
    }

    /// What is fixed for the node.
    fn view(&self) -> Option<Arc<View>> {
        let known = self.view.load_full();
        let generation = self.reader.generation(Part::Services);
        if let Some(view) = known.as_ref().filter(|view| view.generation == generation) {
            return Some(Arc::clone(view));
        }
        let part = self.reader.part(Part::Services);
        let made = part
            .and_then(|part| Services(&part).environment())
            .and_then(|environment| View::new(environment, generation));
        let Some(view) = made.map(Arc::new) else {
            return known;
        };
        self.view.store(Some(Arc::clone(&view)));
        Some(view)
    }
}

impl View {
    fn new(environment: Environment, generation: u64) -> Option<Self> {
        let pods: Ipv4Net = environment.pods.parse().ok()?;
        Some(Self {
            generation,
            pods,
            cluster: Environment::ranges(&environment.cluster),
            services: Environment::ranges(&environment.services),
            loopback: Loopback::new(pods, environment.block)?,
            node: environment.node_ips.iter().find(|ip| ip.is_ipv4()).copied(),
            domain: environment.domain,
        })
    }
}

fn contains(ranges: &[Ipv4Net], ip: Ipv4Addr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

fn localhost_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests;
