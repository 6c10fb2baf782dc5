//! The guests' side: answers [`GuestNetwork`] out of the snapshot, in the guest's own process.
//!
//! What the guest sees is a Pod with an address of its own. What the host has depends on the form
//! of the network: sockets on loopback, or sockets in the namespace that all Pods of guests
//! share. Everything that crosses is translated here:
//!
//! | the guest says | virtual | namespaced |
//! |---|---|---|
//! | bind to 0.0.0.0 or its own address | loopback, a free port | its own address |
//! | bind a socket for datagrams to 0.0.0.0, any port | 0.0.0.0, a free port | its own address |
//! | bind to localhost | loopback, a free port | its own 127.x.y.z |
//! | bind to an IPv6 address of those | `::1`, a free port | the same: a Pod has no IPv6 address |
//! | bind to any other address | refused | refused |
//! | connect to localhost | its own listeners: those on localhost, then those on 0.0.0.0 | the same |
//! | connect to a Pod | the socket that the snapshot names, or refused | that Pod, truly |
//! | connect to a Service | one of its endpoints; refused where there is none, unreachable where it is to stay on the node and none is there | the same |
//! | connect to anything else | as it is | as it is, from its own address |
//!
//! A Pod that has a network namespace of its own has nothing translated but Services' addresses and
//! the node's own sockets: it binds what it says, and its containers' localhost is its guests' too.
//! A listener for IPv6 serves `::1` there, and is not reached from elsewhere.
//!
//! No guest reaches another Pod's localhost, or the host's: what it calls 127.x.y.z is always its
//! own, and a caller from somebody else's is turned away by [`GuestNetwork::peer`]. An IPv6
//! listener is found through the snapshot, or by IPv4 in the namespaced form where the agent
//! listens in its stead, and cannot tell its callers apart.
//!
//! A client of UDP binds 0.0.0.0 and any port before it sends: what is bound on loopback would
//! reach nobody outside. In the virtual form that is the machine's own 0.0.0.0, and others on the
//! node dial it by loopback like any listener. From outside it takes answers only:
//! [`GuestNetwork::peer`] denies whom the Pod has not sent to.

mod dialled;
mod names;
mod outside;
mod reader;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use coracle_runtime::{Attachment, GuestNetwork, NetworkError, Peer, Protocol};
use parking_lot::Mutex;

use crate::balance::pick;
use crate::snapshot::{Form, Snapshot, localhost_of};
use dialled::Dialled;
use names::{Found, look_up};
use outside::Outside;
use reader::Reader;

/// The network as one Pod sees it.
pub struct SnapshotNetwork {
    reader: Arc<Reader>,
    own: Vec<IpAddr>,
    attachment: Attachment,
    outside: Outside,
    /// Listeners of this Pod in this process: by what the guest bound, where it really is.
    local: Mutex<HashMap<(Protocol, SocketAddr), SocketAddr>>,
    /// Whom the guest sent datagrams, so that a reply from an endpoint carries its Service's
    /// address.
    dialled: Mutex<Dialled>,
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
            attachment: Attachment::Address,
            outside: Outside::new(),
            local: Mutex::new(HashMap::new()),
            dialled: Mutex::default(),
        })
    }

    /// The same for a Pod that is so attached.
    #[must_use]
    pub fn attached(self, attachment: Attachment) -> Self {
        Self { attachment, ..self }
    }

    /// Whether the Pod has a network namespace of its own, in which an address is what it is.
    fn is_alone(&self) -> bool {
        self.attachment == Attachment::Netns
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.reader.snapshot()
    }

    /// The form of the network; the one that needs nothing of the host until it is known.
    fn form(&self) -> Form {
        if self.is_alone() {
            return Form::Namespaced;
        }
        self.snapshot()
            .map_or(Form::Virtual, |snapshot| snapshot.general().form)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address.to_canonical())
    }

    fn localhost(&self) -> IpAddr {
        IpAddr::V4(localhost_of(self.own[0]))
    }

    /// The address of this process' listener for `remote`, both as the guest sees them.
    fn local_listener(
        &self,
        protocol: Protocol,
        remote: SocketAddr,
        wildcard: bool,
    ) -> Option<SocketAddr> {
        let takes = |bound: SocketAddr| {
            bound.port() == remote.port()
                && if wildcard {
                    bound.ip().is_unspecified()
                } else {
                    !bound.ip().is_unspecified() && canonical(bound.ip()) == canonical(remote.ip())
                }
        };
        let local = self.local.lock();
        local
            .iter()
            .filter(|((p, bound), _)| *p == protocol && takes(*bound))
            // Of a pair of listeners the one whose callers can be told apart.
            .min_by_key(|((_, bound), _)| bound.is_ipv6())
            .map(|(_, actual)| *actual)
    }

    /// Where what is sent to the Pod itself goes: the listener on that very address in this
    /// process or another one of the Pod, then one on all addresses.
    fn lead_home(&self, protocol: Protocol, remote: SocketAddr) -> Option<SocketAddr> {
        let snapshot = self.snapshot();
        let published = |address: IpAddr| {
            let snapshot = snapshot.as_ref()?;
            snapshot.listener((address, remote.port(), protocol))
        };
        let home = is_home(remote.ip());
        let form = snapshot.as_ref().map(|snapshot| snapshot.general().form);
        let as_others = |actual: SocketAddr| {
            let own = SocketAddr::new(self.own[0], remote.port());
            by_address(form, remote, actual, own)
        };
        self.local_listener(protocol, remote, false)
            .or_else(|| home.then(|| published(self.localhost())).flatten())
            .or_else(|| self.local_listener(protocol, remote, true).map(as_others))
            .or_else(|| {
                let own = self.own.iter().find_map(|own| published(*own));
                own.map(as_others)
            })
            // Not published yet, or nobody: the kernel knows.
            .or_else(|| {
                let address = if home { self.localhost() } else { self.own[0] };
                (form == Some(Form::Namespaced)).then(|| SocketAddr::new(address, remote.port()))
            })
    }

    fn lead(&self, protocol: Protocol, remote: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let refused = || NetworkError::ConnectionRefused(remote);
        if self.is_alone() && (is_home(remote.ip()) || self.is_own(remote.ip())) {
            return Ok(remote);
        }
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        if is_home(remote.ip()) || self.is_own(remote.ip()) {
            return self.lead_home(protocol, remote).ok_or_else(refused);
        }
        let Some(snapshot) = self.snapshot() else {
            return Ok(remote);
        };
        let form = Some(snapshot.general().form);
        let published = |socket: SocketAddr| {
            let actual = snapshot.listener((socket.ip(), socket.port(), protocol))?;
            Some(by_address(form, remote, actual, socket))
        };
        if let Some(actual) = published(remote) {
            return Ok(actual);
        }
        if let Some(service) = snapshot.service((remote.ip(), remote.port(), protocol)) {
            if service.elsewhere && service.endpoints.is_empty() {
                // Packets would be dropped; a guest need not wait to find out.
                return Err(NetworkError::RemoteUnreachable(remote));
            }
            let client = service.affinity.then(|| self.own[0]);
            let chosen = pick(service.endpoints.iter().copied(), client)
                .map(|position| service.endpoints[position])
                .ok_or_else(refused)?;
            if self.is_alone() && self.is_own(chosen.ip()) {
                return Ok(chosen);
            }
            if self.is_own(chosen.ip())
                && let Some(actual) = self.lead_home(protocol, chosen)
            {
                return Ok(actual);
            }
            // The keys of other Pods' localhosts look like this.
            if is_home(chosen.ip()) {
                return Err(refused());
            }
            return match published(chosen) {
                Some(actual) => Ok(actual),
                // Ready, but on a node to which no way leads in this form of the network.
                None if is_virtual(&snapshot, chosen.ip()) => {
                    Err(NetworkError::RemoteUnreachable(chosen))
                }
                None => Ok(chosen),
            };
        }
        if is_virtual(&snapshot, remote.ip()) {
            return Err(refused());
        }
        Ok(remote)
    }

    /// From where a guest calls `actual`, having said `remote`.
    fn source(&self, remote: SocketAddr, actual: SocketAddr) -> Option<SocketAddr> {
        if self.is_alone() || self.form() == Form::Virtual || actual.is_ipv6() {
            return None;
        }
        let address = if is_home(remote.ip().to_canonical()) {
            self.localhost()
        } else {
            self.own.iter().copied().find(IpAddr::is_ipv4)?
        };
        Some(SocketAddr::new(address, 0))
    }
}

/// Whether an address means the guest's own localhost.
fn is_home(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// Where a guest that said `remote` dials the listener `actual` of a Pod, which the cluster knows
/// under `address`. A socket for IPv4 cannot dial one on `::1`; there is a bridge to it in a
/// namespace.
fn by_address(
    form: Option<Form>,
    remote: SocketAddr,
    actual: SocketAddr,
    address: SocketAddr,
) -> SocketAddr {
    let bridged = form == Some(Form::Namespaced) && remote.is_ipv4() && actual.is_ipv6();
    if bridged { address } else { actual }
}

fn is_virtual(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot
        .general()
        .virtual_ranges
        .iter()
        .any(|range| range.contains(&address))
}

/// Where a socket of this machine is dialled from this machine.
pub(crate) fn dialable(actual: SocketAddr) -> SocketAddr {
    let ip = match actual.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, actual.port())
}

/// `::1` is the same Pod's localhost as 127.0.0.1, and so is 0.0.0.0 to whoever dials it.
fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if is_home(address) => IpAddr::V4(Ipv4Addr::LOCALHOST),
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
        let wanted = match &snapshot {
            Some(snapshot) => match look_up(snapshot, &asked, self.own[0]) {
                Found::Addresses(addresses) => return Ok(addresses),
                Found::Outside(name) => name,
                Found::Nothing => return Err(NetworkError::NameUnresolvable(name.to_owned())),
            },
            None => asked,
        };
        self.outside
            .resolve(snapshot.as_deref(), name, &wanted)
            .await
    }

    fn bind(&self, protocol: Protocol, local: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let address = local.ip();
        let home = address.to_canonical().is_loopback();
        if !address.is_unspecified() && !home && !self.is_own(address) {
            return Err(NetworkError::AddressNotBindable(local));
        }
        if self.is_alone() {
            return Ok(local);
        }
        let form = self.form();
        let sends = protocol == Protocol::Udp && address.is_unspecified() && local.port() == 0;
        if sends && form == Form::Virtual {
            return Ok(local);
        }
        // The family is that of the guest's socket.
        match (address, form) {
            (IpAddr::V6(_), _) => Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)),
            (IpAddr::V4(_), Form::Virtual) => {
                Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
            }
            (IpAddr::V4(_), Form::Namespaced) if home => {
                Ok(SocketAddr::new(self.localhost(), local.port()))
            }
            (IpAddr::V4(asked), Form::Namespaced) => {
                let own = self.own.iter().copied().find(IpAddr::is_ipv4);
                let address = match own {
                    Some(own) if asked.is_unspecified() => own,
                    Some(_) => address,
                    None => return Err(NetworkError::AddressNotBindable(local)),
                };
                Ok(SocketAddr::new(address, local.port()))
            }
        }
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
        let published = !local.ip().to_canonical().is_loopback();
        (SocketAddr::new(local.ip(), port), published)
    }

    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Peer, NetworkError> {
        let actual = self.lead(protocol, remote)?;
        if protocol == Protocol::Udp {
            self.dialled.lock().remember(actual, remote);
        }
        Ok(Peer {
            actual,
            source: self.source(remote, actual),
        })
    }

    fn peer(&self, protocol: Protocol, actual: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let sent_to = match protocol {
            Protocol::Udp => self.dialled.lock().apparent(actual),
            Protocol::Tcp => None,
        };
        if let Some(apparent) = sent_to {
            return Ok(apparent);
        }
        if self.is_alone() {
            return Ok(actual);
        }
        let address = actual.ip().to_canonical();
        if !address.is_loopback() {
            // Only a socket that sends is where those outside can get at it.
            return match (protocol, self.form()) {
                (Protocol::Udp, Form::Virtual) => Err(NetworkError::AccessDenied(actual)),
                _ => Ok(actual),
            };
        }
        let snapshot = self.snapshot();
        let general = snapshot.as_ref().map(|snapshot| snapshot.general());
        if address.is_ipv4() && general.is_some_and(|general| general.form == Form::Namespaced) {
            return if address == self.localhost() {
                Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), actual.port()))
            } else {
                Err(NetworkError::AccessDenied(actual))
            };
        }
        // Somebody on this node. Which Pod it is cannot be told from its loopback socket.
        let gateway = general.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |general| general.gateway);
        let gateway = match (gateway, actual.ip()) {
            (IpAddr::V4(v4), IpAddr::V6(_)) => IpAddr::V6(v4.to_ipv6_mapped()),
            (gateway, _) => gateway,
        };
        Ok(SocketAddr::new(gateway, actual.port()))
    }

    fn authority(&self, host: &str) -> Option<String> {
        let snapshot = self.snapshot()?;
        let authority = snapshot.general().authority.as_ref()?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut hosts = authority.hosts.iter();
        hosts
            .any(|known| known.eq_ignore_ascii_case(host))
            .then(|| authority.certificates.clone())
    }

    fn listening(&self, protocol: Protocol, local: SocketAddr, actual: Option<SocketAddr>) {
        let mut listeners = self.local.lock();
        match actual {
            Some(actual) => listeners.insert((protocol, local), dialable(actual)),
            None => listeners.remove(&(protocol, local)),
        };
    }
}

#[cfg(test)]
pub(crate) mod outside_tests;
#[cfg(test)]
mod tests;
