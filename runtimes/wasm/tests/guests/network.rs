//! A network for tests: Pod addresses are virtual, and a JSON file says where they lead.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_runtime::{Attachment, GuestNetwork, NetworkError, Peer, Protocol};
use serde::{Deserialize, Serialize};

/// What the agent publishes, here: the test.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
    /// By the address that a guest dials.
    pub(crate) routes: BTreeMap<SocketAddr, SocketAddr>,
    /// The address from which guests call.
    pub(crate) source: Option<IpAddr>,
    /// Whether what has no route and is no loopback address is dialled as it is, as a node does.
    pub(crate) open: bool,
    /// Hosts that guests do not hear.
    pub(crate) denied: Vec<IpAddr>,
    /// Certificates that vouch for these hosts.
    pub(crate) authority: (String, Vec<String>),
}

/// Opens the network of a Pod; the factory of the guest processes.
pub(crate) fn open(
    snapshot: &Path,
    ips: &[IpAddr],
    _attachment: Attachment,
) -> io::Result<Arc<dyn GuestNetwork>> {
    Ok(Arc::new(Network {
        snapshot: snapshot.to_owned(),
        ips: ips.to_vec(),
    }))
}

struct Network {
    snapshot: PathBuf,
    ips: Vec<IpAddr>,
}

impl Network {
    fn read(&self) -> Snapshot {
        std::fs::read(&self.snapshot)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }
}

#[async_trait::async_trait]
impl GuestNetwork for Network {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let mut names = self.read().names;
        let found = names.remove(name);
        found.ok_or_else(|| NetworkError::NameUnresolvable(name.into()))
    }

    fn bind(&self, protocol: Protocol, local: SocketAddr) -> Result<SocketAddr, NetworkError> {
        let own = self.ips.contains(&local.ip());
        if !own && !local.ip().is_unspecified() && !local.ip().is_loopback() {
            return Err(NetworkError::AddressNotBindable(local));
        }
        let loopback = match local.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let sends = protocol == Protocol::Udp && local.port() == 0;
        let source = self
            .read()
            .source
            .filter(|source| sends && source.is_ipv4() == local.is_ipv4());
        Ok((source.unwrap_or(loopback), 0).into())
    }

    fn bound(&self, _: Protocol, mut local: SocketAddr, actual: SocketAddr) -> (SocketAddr, bool) {
        if local.port() == 0 {
            local.set_port(actual.port());
        }
        (local, !local.ip().is_loopback())
    }

    fn connect(&self, _: Protocol, remote: SocketAddr) -> Result<Peer, NetworkError> {
        let snapshot = self.read();
        let route = snapshot.routes.get(&remote).copied();
        let outside = snapshot.open && !remote.ip().is_loopback();
        let actual = route.or(outside.then_some(remote));
        let actual = actual.ok_or(NetworkError::ConnectionRefused(remote))?;
        Ok(Peer {
            actual,
            source: snapshot.source.map(|source| (source, 0).into()),
        })
    }

    fn peer(&self, _: Protocol, actual: SocketAddr) -> Result<SocketAddr, NetworkError> {
        if self.read().denied.contains(&actual.ip()) {
            return Err(NetworkError::AccessDenied(actual));
        }
        Ok(actual)
    }

    fn authority(&self, host: &str) -> Option<String> {
        let (certificates, hosts) = self.read().authority;
        hosts
            .iter()
            .any(|known| known == host)
            .then_some(certificates)
    }

    fn listening(&self, _: Protocol, _: SocketAddr, _: Option<SocketAddr>) {}
}
