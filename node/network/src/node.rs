//! The network of one node, in the agent.
//!
//! [`NodeNetwork`] owns three things: which Pod has which address (kept on disk), which socket
//! serves which address (told by the runtimes), and what the API says of Services and endpoints
//! (one watch of each). A change of any of them is gathered with others for a moment, then the
//! snapshot is published, and NodePorts, health checks of Services, Pods' ports of the machine and the
//! kernel's table of Services are brought in line.
//!
//! The form is decided once, when the network opens, because guest processes are told where to
//! live before anything is known of Pods:
//!
//! ```text
//! open ──► form, namespace, first snapshot
//!   │ the control plane gives the node a range (a node that was here before knows it)
//!   ▼
//! routes of the range ──► addresses: whoever wants one has waited until now
//! ```

mod bridges;
mod config;
mod contents;
mod dns;
mod form;
mod listeners;
mod own;
mod pods;
mod services;

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{Listener, PortDispatcher, Protocol};
use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::addresses::gateway;
use crate::aliases::Aliases;
use crate::dns::DnsServer;
use crate::health_checks::{HealthChecks, checks};
use crate::namespace::PodNamespace;
use crate::node_ports::{Here, NodePorts};
use crate::rules::{Place, Rules, rules};
use crate::service_rules::ServiceRules;
use crate::snapshot::{Contents, Form, General, Kept};
use crate::zone::{Zone, zone};
use bridges::Bridges;
use form::{Ranges, choose};
use own::range_path;
use pods::Pool;

pub use config::{NodeNetworkConfig, OpenError};
pub use form::FormChoice;
pub(crate) use listeners::Listeners;
pub use pods::Attached;
pub use services::ServiceFeed;

/// Changes are gathered for so long before the snapshot is written: a rollout of hundreds of Pods
/// costs a few writes, and nobody waits noticeably.
const GATHER: Duration = Duration::from_millis(10);
/// The network of a node.
pub struct NodeNetwork {
    config: NodeNetworkConfig,
    namespace: Option<Arc<PodNamespace>>,
    fallback: Option<String>,
    aliases: Aliases,
    pool: watch::Sender<Option<Arc<Pool>>>,
    listeners: Arc<RwLock<Listeners>>,
    changed: Notify,
    /// What the last agent knew, until this one does.
    kept: Mutex<Option<Kept>>,
    /// Until [`NodeNetwork::run`] takes it.
    dns: Mutex<Option<DnsServer>>,
}

impl NodeNetwork {
    /// Opens the network with the addresses that were given before, decides its form, and
    /// publishes a first snapshot.
    ///
    /// # Errors
    /// The folder cannot be used, a namespace was asked for and there can be none, or no socket is
    /// to be had for DNS.
    pub fn open(config: NodeNetworkConfig) -> Result<Arc<Self>, OpenError> {
        let failed = |source| OpenError::Folder {
            folder: config.directory.clone(),
            source,
        };
        std::fs::create_dir_all(&config.directory).map_err(failed)?;
        // A node that was here before has its range at once, and takes its Pods over without
        // the control plane.
        let known: Option<IpNet> = std::fs::read_to_string(range_path(&config))
            .ok()
            .and_then(|range| range.trim().parse().ok());
        let ranges = Ranges {
            cluster: config.cluster_range,
            node: known,
        };
        let chosen = choose(
            config.form,
            &config.directory,
            &config.cluster,
            ranges,
            config.node_address,
        )?;
        form::record(&config.directory, chosen.form()).map_err(failed)?;
        let mut aliases = Aliases::open(chosen.form(), &config.aliases).map_err(failed)?;
        let namespace = chosen.namespace.as_ref();
        let dns = match config.cluster_dns {
            Some(address) => {
                Some(dns::open(&mut aliases, address, &config.directory).map_err(failed)?)
            }
            None => None,
        };
        let pool = match known {
            Some(range) => Some(Pool::open(&config, range, namespace).map_err(failed)?),
            None => None,
        };
        let listeners = Listeners::new(
            chosen.form(),
            config.cluster_range,
            config.service_range,
            aliases.real(),
        );
        let network = Self {
            namespace: chosen.namespace.map(Arc::new),
            fallback: chosen.fallback,
            aliases,
            pool: watch::Sender::new(pool),
            listeners: Arc::new(RwLock::new(listeners)),
            changed: Notify::new(),
            kept: Mutex::new(Kept::of(&snapshot_path(&config))),
            dns: Mutex::new(dns),
            config,
        };
        let contents = network.contents(&Rules::default(), &Zone::unknown(&network.config.domain));
        network
            .with_kept(contents)
            .publish(&network.snapshot_path())
            .map_err(|source| OpenError::Folder {
                folder: network.config.directory.clone(),
                source,
            })?;
        Ok(Arc::new(network))
    }

    /// What Pods' addresses are.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.namespace {
            Some(_) => Form::Namespaced,
            None => Form::Virtual,
        }
    }

    /// Why Pods have virtual addresses although a namespace would have been taken.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The network namespace that guest processes join before anything else; none in the virtual
    /// form.
    #[must_use]
    pub fn namespace(&self) -> Option<PathBuf> {
        Some(self.namespace.as_ref()?.path().to_owned())
    }

    /// Removes what the network has on the machine: namespace, link, routes and the tables of the
    /// firewall. Guests that still run are cut off.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn tear_down(&self) -> io::Result<()> {
        Self::tear_down_folder(&self.config.directory)
    }

    /// [`Self::tear_down`] for a node that does not run, by the folder of its network. The folder
    /// itself stays.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn tear_down_folder(folder: &Path) -> io::Result<()> {
        PodNamespace::tear_down(folder)
    }

    /// How the machine's links to Pods with namespaces of their own begin; none in the virtual
    /// form, where no Pod has one.
    #[must_use]
    pub fn pod_links(&self) -> Option<&str> {
        Some(self.namespace.as_ref()?.pod_links())
    }

    /// Where containers find DNS; none where they have no way to it.
    #[must_use]
    pub fn dns(&self) -> Option<IpAddr> {
        self.namespace.as_ref().and(self.config.cluster_dns)
    }

    /// The cluster's domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    /// All sockets on which Pods of this node listen now.
    pub fn set_listeners(&self, listeners: Vec<Listener>) {
        if self.listeners.write().set(listeners) {
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
        snapshot_path(&self.config)
    }

    /// The folder of the network, for whoever confines guests to what they need.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.config.directory
    }

    /// Learns the node's range, follows Services and EndpointSlices, keeps snapshot, NodePorts and
    /// health checks current, and answers DNS until `cancel`. Where somebody in the process follows
    /// Services already, a `feed` saves the watches. Ports whose endpoints a `dispatcher` can serve
    /// by itself are left to it.
    pub async fn run(
        self: Arc<Self>,
        client: Client,
        feed: Option<ServiceFeed>,
        dispatcher: Option<Arc<dyn PortDispatcher>>,
        cancel: CancellationToken,
    ) {
        let aliases = self.aliases.serve(self.config.cluster_range);
        tokio::select! {
            () = aliases => {}
            () = self.follow(client, feed, dispatcher, &cancel) => {}
        }
    }

    async fn follow(
        self: &Arc<Self>,
        client: Client,
        feed: Option<ServiceFeed>,
        dispatcher: Option<Arc<dyn PortDispatcher>>,
        cancel: &CancellationToken,
    ) {
        let (zones, served) = watch::channel(Arc::new(Zone::unknown(&self.config.domain)));
        // Names outside the cluster are answered also while the control plane is out of reach.
        // What runs here ends with this function.
        let mut dns = JoinSet::new();
        if let Some(server) = self.dns.lock().take() {
            dns.spawn(server.run(served.clone(), cancel.clone()));
        }
        let mut own_node = own::follow(client.clone(), &self.config.node_name);
        let mut place = Place {
            node: self.config.node_name.clone(),
            zone: None,
        };
        let learning = self.learn_range(&mut own_node, &mut place);
        let learned = tokio::select! {
            learned = cancel.run_until_cancelled(learning) => learned,
            () = self.publish_own() => None,
        };
        if learned.is_none() {
            return;
        }
        let bridges = self.bridges();
        let feed = feed.unwrap_or_else(|| ServiceFeed::watch(client));
        let (services, slices, mut listed) = (feed.services, feed.slices, feed.ready);
        // Who follows may stop before the node does.
        let mut changes = feed.changes.chain(futures::stream::pending());
        let mut is_listed = false;
        let address = self.config.node_port_address;
        let here = Here {
            node: self.config.node_address,
            pods: self.pool.borrow().as_ref().map(|pool| pool.range),
        };
        let mut node_ports = NodePorts::new(address, here, self.listeners.clone(), dispatcher);
        let mut health_checks = HealthChecks::new(address);
        let service_rules = self.service_rules();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.changed.notified() => {}
                _ = changes.next() => {}
                Some(event) = own_node.next() => if !own::is_moved(&mut place, &event) {
                    continue;
                },
                () = &mut listed, if !is_listed => is_listed = true,
                Some(Ok(Err(error))) = dns.join_next() => {
                    tracing::error!(%error, "Pods have no DNS over the wire until the agent is started again");
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
            let rules = rules(services.iter().copied(), slices.iter().copied(), &place);
            let zone = zone(
                services.iter().copied(),
                slices.iter().copied(),
                &self.config.domain,
            );
            if is_listed {
                *self.kept.lock() = None;
            }
            self.publish(&rules, &zone);
            let host_ports = self.host_ports();
            node_ports.update(&rules, &host_ports, self.form());
            if let Some(bridges) = &bridges {
                bridges.set(self.listeners.read().bridges());
            }
            // A name is said not to exist only when all are known, and a Service not to have
            // endpoints here; and one that the last agent's rules have is not taken from them before.
            if is_listed {
                let (services, slices) = (services.iter().copied(), slices.iter().copied());
                health_checks.update(checks(services, slices, &self.config.node_name));
                zones.send_replace(Arc::new(zone));
                if let Some(service_rules) = &service_rules {
                    service_rules.set(rules, host_ports);
                }
            }
        }
        node_ports.close().await;
        health_checks.close().await;
        if let Some(bridges) = bridges {
            bridges.close().await;
        }
        if let Some(service_rules) = service_rules {
            service_rules.close().await;
        }
    }

    /// Services for containers and the machine, where Pods have addresses that the kernel knows.
    fn service_rules(&self) -> Option<ServiceRules> {
        let namespace = self.namespace.as_ref()?;
        let pods = self.pool.borrow().as_ref().map(|pool| pool.range);
        let (Some(IpNet::V4(pods)), IpNet::V4(services)) = (pods, self.config.service_range) else {
            tracing::error!(services = %self.config.service_range, "containers and the machine do not reach Services, whose range is not IPv4: choose another with --service-cidr");
            return None;
        };
        let aliases = self.aliases.published().to_vec();
        Some(ServiceRules::start(
            namespace.services(pods, services),
            aliases,
        ))
    }

    /// A thread in the Pods' namespace, where there is one.
    fn bridges(&self) -> Option<Bridges> {
        let path = self.namespace.as_ref()?.path();
        match File::open(path) {
            Ok(namespace) => Some(Bridges::start(namespace)),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "Pods that listen by IPv6 alone are not reached from outside the node's guests");
                None
            }
        }
    }

    /// Publishes what changes on the node itself, without end: Pods that were here before, and where
    /// they listen, are told of also while the control plane is out of reach.
    async fn publish_own(&self) {
        loop {
            self.changed.notified().await;
            self.publish(&Rules::default(), &Zone::unknown(&self.config.domain));
        }
    }

    fn publish(&self, rules: &Rules, zone: &Zone) {
        let contents = self.with_kept(self.contents(rules, zone));
        if let Err(error) = contents.publish(&self.snapshot_path()) {
            tracing::error!(%error, "the network snapshot was not published; guests keep the last one");
        }
    }

    /// With what the last agent knew in the place of what this one does not know yet.
    fn with_kept(&self, contents: Contents) -> Contents {
        match self.kept.lock().clone() {
            Some(kept) => kept.put_into(contents),
            None => contents,
        }
    }

    fn contents(&self, rules: &Rules, zone: &Zone) -> Contents {
        let config = &self.config;
        let pool = self.pool.borrow().clone();
        let range = pool
            .as_ref()
            .map_or(config.cluster_range, |pool| pool.range);
        let listeners = self.listeners.read();
        let mut contents = Contents::new(General {
            form: self.form(),
            domain: config.domain.clone(),
            virtual_ranges: listeners.refused_ranges(),
            gateway: gateway(range),
            dns: config.cluster_dns.map(dns::known_as),
            authority: config.authority.clone(),
        });
        contents.listeners = listeners.published(self.aliases.published());
        drop(listeners);
        if let Some(pool) = pool {
            contents.pods = pool
                .addresses
                .lock()
                .pods()
                .map(|(address, pod)| (address, pod.namespace.clone()))
                .collect();
        }
        for (address, port, protocol) in &rules.left {
            // Guests too dial it as it is, unless the node answers there itself.
            let socket = (*address, *port, *protocol);
            let listener = contents.listeners.entry(socket);
            listener.or_insert(SocketAddr::new(*address, *port));
        }
        contents.services = contents::services(rules);
        contents.names = contents::names(zone);
        contents
    }
}

fn snapshot_path(config: &NodeNetworkConfig) -> PathBuf {
    config.directory.join("snapshot")
}

#[cfg(test)]
mod tests;
