//! The network of one node, in the agent.
//!
//! [`NodeNetwork`] owns three things: which Pod has which address (kept on disk), which socket
//! serves which address (told by the runtimes), and what the API says of Services and endpoints
//! (one watch of each). A change of any of them is gathered with others for a moment, then the
//! snapshot is published and the NodePorts are brought in line.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{Listener, PodIdentity, Protocol};
use futures::{Stream, StreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::addresses::{AddressError, AddressPool, gateway};
use crate::node_ports::NodePorts;
use crate::rules::{Rules, rules};
use crate::snapshot::{Answer, Contents, General, Socket, Virtual};
use crate::zone::{Record, Zone, zone};

/// Changes are gathered for so long before the snapshot is written: a rollout of hundreds of Pods
/// costs a few writes, and nobody waits noticeably.
const GATHER: Duration = Duration::from_millis(10);

/// What the network of a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeNetworkConfig {
    /// Folder of the network's own.
    pub directory: PathBuf,
    /// The node's range of Pod addresses.
    pub pod_range: IpNet,
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
    pub aliases: Vec<(SocketAddr, SocketAddr)>,
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
    pool: Mutex<AddressPool>,
    listeners: Arc<RwLock<Listeners>>,
    changed: Notify,
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
    /// The folder cannot be used.
    pub fn open(config: NodeNetworkConfig) -> Result<Arc<Self>, OpenError> {
        let failed = |source| OpenError {
            folder: config.directory.clone(),
            source,
        };
        let pool = AddressPool::open(&config.directory.join("addresses"), config.pod_range)
            .map_err(failed)?;
        let listeners = Listeners {
            sockets: aliases(&config),
            ranges: vec![config.cluster_range, config.service_range],
        };
        let network = Self {
            pool: Mutex::new(pool),
            listeners: Arc::new(RwLock::new(listeners)),
            changed: Notify::new(),
            config,
        };
        network
            .contents(&Rules::default(), &Zone::new())
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
    pub fn allocate(&self, pod: &PodIdentity) -> Result<IpAddr, AddressError> {
        let address = self.pool.lock().allocate(pod)?;
        self.changed.notify_one();
        Ok(address)
    }

    /// Gives a Pod's address back. Releasing what is free is no error.
    ///
    /// # Errors
    /// The record could not be removed; the address stays taken.
    pub fn release(&self, pod_uid: &str) -> io::Result<()> {
        self.pool.lock().release(pod_uid)?;
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

    /// Follows Services and EndpointSlices and keeps snapshot and NodePorts current until
    /// `cancel`.
    pub async fn run(self: Arc<Self>, client: Client, cancel: CancellationToken) {
        let (services, service_changes) = follow::<Service>(client.clone());
        let (slices, slice_changes) = follow::<EndpointSlice>(client);
        let mut changes = futures::stream::select(service_changes, slice_changes);
        let mut node_ports = NodePorts::new(self.config.node_port_address, self.listeners.clone());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.changed.notified() => {}
                change = changes.next() => if change.is_none() { break },
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
        }
        node_ports.close().await;
    }

    fn contents(&self, rules: &Rules, zone: &Zone) -> Contents {
        let config = &self.config;
        let mut contents = Contents::new(General {
            domain: config.domain.clone(),
            virtual_ranges: vec![config.cluster_range, config.service_range],
            gateway: gateway(config.pod_range),
        });
        contents.listeners = self.listeners.read().sockets.clone();
        contents.pods = self
            .pool
            .lock()
            .pods()
            .map(|(address, pod)| (address, pod.namespace.clone()))
            .collect();
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
            .iter()
            .filter_map(|(name, records)| Some((name.clone(), answer(records)?)))
            .collect();
        contents
    }
}

fn aliases(config: &NodeNetworkConfig) -> BTreeMap<Socket, SocketAddr> {
    config
        .aliases
        .iter()
        .map(|(known, actual)| ((known.ip(), known.port(), Protocol::Tcp), *actual))
        .collect()
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
            pod_range: "10.42.0.0/24".parse().unwrap(),
            cluster_range: "10.42.0.0/16".parse().unwrap(),
            service_range: "10.43.0.0/16".parse().unwrap(),
            domain: "cluster.local".into(),
            node_port_address: "127.0.0.1".parse().unwrap(),
            aliases: vec![(
                "192.0.2.1:6443".parse().unwrap(),
                "127.0.0.1:6443".parse().unwrap(),
            )],
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
            ("198.51.100.1:443", Some("198.51.100.1:443")),
        ] {
            let found = network.dial(Protocol::Tcp, address.parse().unwrap());
            assert_eq!(found, expected.map(|e| e.parse().unwrap()), "{address}");
        }
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
