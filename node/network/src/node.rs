//! The network of one node, in the agent.
//!
//! [`NodeNetwork`] owns three things: which Pod has which address (kept on disk), which socket
//! serves which address (told by the runtimes), and what the API says of Services and endpoints
//! (one watch of each). The node's range is given by the control plane when the node has
//! registered; until then whoever wants an address waits. A change of any of them is gathered with others for a moment, then the
//! snapshot is published and the NodePorts are brought in line.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{Listener, PodIdentity, Protocol};
use futures::{Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::addresses::{AddressError, AddressPool, gateway};
use crate::dns::DnsServer;
use crate::node_ports::NodePorts;
use crate::rules::{Rules, rules};
use crate::snapshot::{Answer, Contents, General, Socket, Virtual};
use crate::zone::{Record, Zone, zone};

/// Changes are gathered for so long before the snapshot is written: a rollout of hundreds of Pods
/// costs a few writes, and nobody waits noticeably.
const GATHER: Duration = Duration::from_millis(10);

const DNS_PORT: u16 = 53;

/// What the network of a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeNetworkConfig {
    /// Folder of the network's own.
    pub directory: PathBuf,
    /// Name of the node, whose `spec.podCIDR` is the range of its Pods.
    pub node_name: String,
    /// The range of all Pod addresses of the cluster.
    pub cluster_range: IpNet,
    /// The range of Service addresses.
    pub service_range: IpNet,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
    /// Where NodePorts are bound: `0.0.0.0`, or an address of the host.
    pub node_port_address: IpAddr,
    /// Sockets that are known under another address than the one they are bound to: the API
    /// server's, which endpoints may not name by a loopback address.
    pub aliases: Vec<Alias>,
    /// The address at which guests find DNS: that of the Service `kube-dns`. The node answers
    /// there itself.
    pub cluster_dns: Option<IpAddr>,
}

/// A socket that is known under another address than the one it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Protocol.
    pub protocol: Protocol,
    /// The address under which it is known.
    pub known: SocketAddr,
    /// The one it is bound to.
    pub actual: SocketAddr,
}

/// Why the network of a node does not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the node's network in {folder}: {source}")]
pub struct OpenError {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// The network of a node.
pub struct NodeNetwork {
    config: NodeNetworkConfig,
    pool: watch::Sender<Option<Arc<Pool>>>,
    listeners: Arc<RwLock<Listeners>>,
    changed: Notify,
    /// Until [`NodeNetwork::run`] takes it.
    dns: Mutex<Option<DnsServer>>,
}

/// The node's range, once it is known.
struct Pool {
    range: IpNet,
    addresses: Mutex<AddressPool>,
}

/// Where sockets of Pods really are.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    sockets: BTreeMap<Socket, SocketAddr>,
    ranges: Vec<IpNet>,
}

impl Listeners {
    /// Where to dial an address; none if it is a Pod's or a Service's and nobody serves it.
    pub(crate) fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        let ip = address.ip().to_canonical();
        match self.sockets.get(&(ip, address.port(), protocol)) {
            Some(actual) => Some(*actual),
            None if self.ranges.iter().any(|range| range.contains(&ip)) => None,
            None => Some(address),
        }
    }
}

impl NodeNetwork {
    /// Opens the network with the addresses that were given before, and publishes a first
    /// snapshot.
    ///
    /// # Errors
    /// The folder cannot be used, or no socket is to be had for DNS.
    pub fn open(mut config: NodeNetworkConfig) -> Result<Arc<Self>, OpenError> {
        let folder = config.directory.clone();
        let failed = |source| OpenError {
            folder: folder.clone(),
            source,
        };
        std::fs::create_dir_all(&config.directory).map_err(failed)?;
        // A node that was here before has its range at once, and takes its Pods over without
        // the control plane.
        let known = std::fs::read_to_string(range_path(&config))
            .ok()
            .and_then(|range| range.trim().parse().ok());
        let pool = match known {
            Some(range) => Some(open_pool(&config, range).map_err(failed)?),
            None => None,
        };
        let dns = match config.cluster_dns {
            Some(address) => Some(bind_dns(&mut config.aliases, address).map_err(failed)?),
            None => None,
        };
        let listeners = Listeners {
            sockets: aliases(&config),
            ranges: vec![config.cluster_range, config.service_range],
        };
        let network = Self {
            pool: watch::Sender::new(pool),
            listeners: Arc::new(RwLock::new(listeners)),
            changed: Notify::new(),
            dns: Mutex::new(dns),
            config,
        };
        network
            .contents(&Rules::default(), &Zone::unknown(&network.config.domain))
            .publish(&network.snapshot_path())
            .map_err(|source| OpenError {
                folder: network.config.directory.clone(),
                source,
            })?;
        Ok(Arc::new(network))
    }

    /// The address of a Pod: the same one until it is released, also after a restart.
    ///
    /// # Errors
    /// The range is exhausted, or the record could not be written.
    pub async fn allocate(&self, pod: &PodIdentity) -> Result<IpAddr, AddressError> {
        let mut known = self.pool.subscribe();
        let pool = match known.wait_for(Option::is_some).await {
            Ok(pool) => pool.clone(),
            Err(_) => None,
        };
        // The sender is `self`: it does not end while we wait.
        let pool = pool.ok_or(AddressError::NoRange)?;
        let address = pool.addresses.lock().allocate(pod)?;
        self.changed.notify_one();
        Ok(address)
    }

    /// Gives a Pod's address back. Releasing what is free is no error.
    ///
    /// # Errors
    /// The record could not be removed; the address stays taken.
    pub fn release(&self, pod_uid: &str) -> io::Result<()> {
        let pool = self.pool.borrow().clone();
        if let Some(pool) = pool {
            pool.addresses.lock().release(pod_uid)?;
        }
        self.changed.notify_one();
        Ok(())
    }

    /// All sockets on which Pods of this node listen now. Those on a Pod's localhost are not for
    /// others, and are left out.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        let mut sockets = aliases(&self.config);
        sockets.extend(
            listeners
                .into_iter()
                .filter(|listener| !listener.address.ip().is_loopback())
                .map(|listener| {
                    let address = listener.address;
                    (
                        (
                            address.ip().to_canonical(),
                            address.port(),
                            listener.protocol,
                        ),
                        listener.actual,
                    )
                }),
        );
        let mut current = self.listeners.write();
        if current.sockets != sockets {
            current.sockets = sockets;
            self.changed.notify_one();
        }
    }

    /// Where the node dials an address: for a Pod's, the socket that serves it, or none.
    #[must_use]
    pub fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        self.listeners.read().dial(protocol, address)
    }

    /// The file that guests map.
    #[must_use]
    pub fn snapshot_path(&self) -> PathBuf {
        self.config.directory.join("snapshot")
    }

    /// The folder of the network, for whoever confines guests to what they need.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.config.directory
    }

    /// Learns the node's range, follows Services and EndpointSlices, keeps snapshot and NodePorts
    /// current, and answers DNS until `cancel`.
    pub async fn run(self: Arc<Self>, client: Client, cancel: CancellationToken) {
        let (zones, served) = watch::channel(Arc::new(Zone::unknown(&self.config.domain)));
        // Names outside the cluster are answered also while the control plane is out of reach.
        // What runs here ends with this function.
        let mut dns = JoinSet::new();
        let server = self.dns.lock().take();
        if let Some(server) = server {
            dns.spawn(server.run(served, cancel.clone()));
        }
        let learned = cancel
            .run_until_cancelled(self.learn_range(client.clone()))
            .await;
        if learned.is_none() {
            return;
        }
        let (services, service_changes) = follow::<Service>(client.clone());
        let (slices, slice_changes) = follow::<EndpointSlice>(client);
        let mut changes = futures::stream::select(service_changes, slice_changes);
        // Each of these caches has this one waiter.
        let listed = {
            let (services, slices) = (services.clone(), slices.clone());
            async move { tokio::join!(services.wait_until_ready(), slices.wait_until_ready()) }
        };
        tokio::pin!(listed);
        let mut is_listed = false;
        let mut node_ports = NodePorts::new(self.config.node_port_address, self.listeners.clone());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.changed.notified() => {}
                change = changes.next() => if change.is_none() { break },
                _ = &mut listed, if !is_listed => is_listed = true,
                Some(Ok(Err(error))) = dns.join_next() => {
                    tracing::error!(%error, "guests have no DNS over the wire until the agent is started again");
                }
            }
            // More is likely to follow: take what comes in a moment too.
            let gathered = tokio::time::sleep(GATHER);
            tokio::pin!(gathered);
            loop {
                tokio::select! {
                    () = &mut gathered => break,
                    Some(()) = changes.next() => {}
                }
            }
            let (services, slices) = (services.state(), slices.state());
            let (services, slices) = (
                services
                    .iter()
                    .map(AsRef::as_ref)
                    .collect::<Vec<&Service>>(),
                slices
                    .iter()
                    .map(AsRef::as_ref)
                    .collect::<Vec<&EndpointSlice>>(),
            );
            let rules = rules(services.iter().copied(), slices.iter().copied());
            let zone = zone(
                services.iter().copied(),
                slices.iter().copied(),
                &self.config.domain,
            );
            if let Err(error) = self.contents(&rules, &zone).publish(&self.snapshot_path()) {
                tracing::error!(%error, "the network snapshot was not published; guests keep the last one");
            }
            node_ports.update(&rules);
            // A name is said not to exist only when all are known.
            if is_listed {
                zones.send_replace(Arc::new(zone));
            }
        }
        node_ports.close().await;
    }

    /// Waits for the range that the control plane gives the node.
    async fn learn_range(&self, client: Client) {
        let only =
            watcher::Config::default().fields(&format!("metadata.name={}", self.config.node_name));
        let mut nodes = watcher(Api::<Node>::all(client), only)
            .default_backoff()
            .boxed();
        while let Some(event) = nodes.next().await {
            let node = match event {
                Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => node,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "the node's range is not known yet");
                    continue;
                }
            };
            let given = node.spec.and_then(|spec| spec.pod_cidr);
            let Some(range) = given.and_then(|range| range.parse().ok()) else {
                continue;
            };
            match self.use_range(range) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(%error, %range, "the node's addresses cannot be kept")
                }
            }
        }
    }

    fn use_range(&self, range: IpNet) -> io::Result<()> {
        if self.pool.borrow().as_ref().map(|pool| pool.range) == Some(range) {
            return Ok(());
        }
        let pool = open_pool(&self.config, range)?;
        std::fs::write(range_path(&self.config), range.to_string())?;
        self.pool.send_replace(Some(pool));
        self.changed.notify_one();
        Ok(())
    }

    fn contents(&self, rules: &Rules, zone: &Zone) -> Contents {
        let config = &self.config;
        let pool = self.pool.borrow().clone();
        let range = pool
            .as_ref()
            .map_or(config.cluster_range, |pool| pool.range);
        let mut contents = Contents::new(General {
            domain: config.domain.clone(),
            virtual_ranges: vec![config.cluster_range, config.service_range],
            gateway: gateway(range),
        });
        contents.listeners = self.listeners.read().sockets.clone();
        if let Some(pool) = pool {
            contents.pods = pool
                .addresses
                .lock()
                .pods()
                .map(|(address, pod)| (address, pod.namespace.clone()))
                .collect();
        }
        contents.services = rules
            .ports
            .iter()
            .flat_map(|port| {
                port.addresses.iter().map(|address| {
                    let service = Virtual {
                        affinity: port.affinity.is_some(),
                        endpoints: port.endpoints.clone(),
                    };
                    ((*address, port.port, port.protocol), service)
                })
            })
            .collect();
        contents.names = zone
            .names
            .iter()
            .filter_map(|(name, records)| Some((name.clone(), answer(records)?)))
            .collect();
        contents
    }
}

fn range_path(config: &NodeNetworkConfig) -> PathBuf {
    config.directory.join("range")
}

fn open_pool(config: &NodeNetworkConfig, range: IpNet) -> io::Result<Arc<Pool>> {
    let addresses = AddressPool::open(&config.directory.join("addresses"), range)?;
    Ok(Arc::new(Pool {
        range,
        addresses: Mutex::new(addresses),
    }))
}

fn aliases(config: &NodeNetworkConfig) -> BTreeMap<Socket, SocketAddr> {
    config
        .aliases
        .iter()
        .map(|alias| {
            let Alias {
                protocol,
                known,
                actual,
            } = *alias;
            ((known.ip(), known.port(), protocol), actual)
        })
        .collect()
}

/// A DNS server on loopback, which guests know under `address`.
fn bind_dns(aliases: &mut Vec<Alias>, address: IpAddr) -> io::Result<DnsServer> {
    let known = SocketAddr::new(address, DNS_PORT);
    let server = DnsServer::bind((Ipv4Addr::LOCALHOST, 0).into())?.known_as(known);
    aliases.extend([Protocol::Udp, Protocol::Tcp].map(|protocol| Alias {
        protocol,
        known,
        actual: server.address(),
    }));
    Ok(server)
}

/// What a guest's look-up of addresses gets; a name with nothing but ports has none.
fn answer(records: &[Record]) -> Option<Answer> {
    let addresses: Vec<IpAddr> = records
        .iter()
        .filter_map(|record| match record {
            Record::Address(address) => Some(*address),
            _ => None,
        })
        .collect();
    if !addresses.is_empty() {
        return Some(Answer::Addresses(addresses));
    }
    records.iter().find_map(|record| match record {
        Record::Alias(target) => Some(Answer::Alias(target.clone())),
        _ => None,
    })
}

/// A cache of one kind, and a stream that says when it has changed.
fn follow<K>(client: Client) -> (reflector::Store<K>, impl Stream<Item = ()> + Send + Unpin)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let changes = watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| async move {
            match event {
                // A page of a list is no state yet.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::warn!(%error, kind = %K::kind(&()), "the watch was interrupted");
                    None
                }
            }
        })
        .boxed();
    (store, changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_runtime::SandboxId;

    fn open(folder: &Path) -> Arc<NodeNetwork> {
        NodeNetwork::open(NodeNetworkConfig {
            directory: folder.to_owned(),
            node_name: "one".into(),
            cluster_range: "10.42.0.0/16".parse().unwrap(),
            service_range: "10.43.0.0/16".parse().unwrap(),
            domain: "cluster.local".into(),
            node_port_address: "127.0.0.1".parse().unwrap(),
            aliases: vec![Alias {
                protocol: Protocol::Tcp,
                known: "192.0.2.1:6443".parse().unwrap(),
                actual: "127.0.0.1:6443".parse().unwrap(),
            }],
            cluster_dns: Some("10.43.0.10".parse().unwrap()),
        })
        .unwrap()
    }

    #[test]
    fn the_node_dials_pods_where_they_listen() {
        let folder = tempfile::tempdir().unwrap();
        let network = open(folder.path());
        let listener = |address: &str, actual: &str| Listener {
            sandbox: SandboxId("s".into()),
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            actual: actual.parse().unwrap(),
        };
        network.set_listeners(vec![
            listener("10.42.0.2:80", "127.0.0.1:40001"),
            listener("127.0.0.1:81", "127.0.0.1:40002"),
        ]);
        for (address, expected) in [
            ("10.42.0.2:80", Some("127.0.0.1:40001")),
            ("10.42.0.2:81", None),
            ("127.0.0.1:81", Some("127.0.0.1:81")),
            ("192.0.2.1:6443", Some("127.0.0.1:6443")),
            ("10.43.0.10:54", None),
            ("198.51.100.1:443", Some("198.51.100.1:443")),
        ] {
            let found = network.dial(Protocol::Tcp, address.parse().unwrap());
            assert_eq!(found, expected.map(|e| e.parse().unwrap()), "{address}");
        }
        // DNS is found under the Service's address by both protocols.
        let known = "10.43.0.10:53".parse().unwrap();
        let [udp, tcp] = [Protocol::Udp, Protocol::Tcp].map(|p| network.dial(p, known).unwrap());
        assert!(udp == tcp && udp.ip().is_loopback() && udp.port() != 0);
    }

    #[tokio::test]
    async fn whoever_wants_an_address_waits_for_the_range() {
        let folder = tempfile::tempdir().unwrap();
        let pod = PodIdentity {
            namespace: "default".into(),
            name: "a".into(),
            uid: "a".into(),
        };
        let network = open(folder.path());
        let (address, ()) = tokio::join!(network.allocate(&pod), async {
            network.use_range("10.42.3.0/24".parse().unwrap()).unwrap();
        });
        let address = address.unwrap();
        assert_eq!(address.to_string(), "10.42.3.2");
        drop(network);
        assert_eq!(open(folder.path()).allocate(&pod).await.unwrap(), address);
    }

    #[test]
    fn a_name_with_nothing_but_ports_has_no_answer() {
        let srv = Record::Service {
            port: 1,
            target: "a".into(),
        };
        assert_eq!(answer(std::slice::from_ref(&srv)), None);
        let address = Record::Address("10.42.0.2".parse().unwrap());
        assert!(answer(&[srv, address]).is_some());
    }
}
