//! The server as its embedder sees it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_store::Store;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::audit::Audit;
use crate::auth::tokens::{KeyError, Reference, TokenConfig, Tokens};
use crate::bootstrap;
use crate::dial::{Dial, Direct};
use crate::discovery::Discovery;
use crate::expiry;
use crate::flow::{Counts, Flow, FlowLimits, controller};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::metrics::storage::{Counted, StorageMetrics, StorageSize};
use crate::nodes::Nodes;
use crate::openapi::OpenApi;
use crate::registry::Registry;
use crate::registry::kinds;
use crate::registry::lookup::Kinds;
use crate::registry::service_addresses::{self, Ipv4Range, ServiceAddresses};
use crate::server::{Inner, Timeouts, no_route};
use crate::serving::{ApiService, ConnectionTimes, Shutdown};

/// Sets the verbosity of the log, as a number in text; the error says why it is none.
pub type Verbosity = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What a server is made of.
pub struct Config {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The way to nodes.
    pub node_dialer: Arc<dyn Dial>,
    /// TLS to kubelets, with the server's client certificate and the CA that signs theirs.
    /// Without it, logs are refused.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// Range of cluster IPs.
    pub service_cidr: Ipv4Range,
    /// Range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// The address that the `kubernetes` Service leads to: no loopback. Without it the Service
    /// exists and leads nowhere.
    pub advertise: Option<SocketAddr>,
    /// What tokens of service accounts are made and believed by. Without it none is made, and
    /// none is believed.
    pub tokens: Option<TokenConfig>,
    /// Limits of requests in flight.
    pub flow: FlowLimits,
    /// How long a request may take that does not last, its answer included.
    pub request_timeout: Duration,
    /// A watch that does not say how long it is to last takes from this to twice this.
    pub min_request_timeout: Duration,
    /// The times of connections.
    pub connections: ConnectionTimes,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// What is audited, if anything is.
    pub audit: Option<Arc<Audit>>,
    /// Tells how many bytes the store takes on disk.
    pub storage_size: Option<StorageSize>,
    /// Changes how much is logged: what `/debug/flags/v` sets.
    pub verbosity: Option<Verbosity>,
    /// How long an Event is kept after it was last seen.
    pub event_ttl: Duration,
    /// Routes that are none of the API and authenticate their callers themselves (`/cacerts`).
    /// A caller who is known is a [`crate::UserInfo`] in the request's extensions.
    pub extra: axum::Router,
}

impl Config {
    /// A configuration with the defaults of Kubernetes over this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, service_cidr: Ipv4Range) -> Self {
        Self {
            store,
            node_dialer: Arc::new(Direct),
            kubelet_tls: None,
            service_cidr,
            node_ports: 30000..=32767,
            advertise: None,
            tokens: None,
            flow: FlowLimits::default(),
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            connections: ConnectionTimes::default(),
            shutdown: Shutdown::default(),
            audit: None,
            storage_size: None,
            verbosity: None,
            event_ttl: Duration::from_secs(3600),
            extra: axum::Router::new(),
        }
    }
}

/// The API server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
    advertise: Option<SocketAddr>,
    event_ttl: Duration,
    pub(crate) connection_times: ConnectionTimes,
    pub(crate) shutdown: Shutdown,
}

impl ApiServer {
    /// Makes a server. It answers at once; what a cluster starts with is made by
    /// [`ApiServer::run`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        let services = ServiceAddresses {
            cluster_ips: config.service_cidr,
            node_ports: config.node_ports,
        };
        let kinds = Kinds::new(kinds::all());
        let storage = StorageMetrics::new(config.storage_size);
        let store = Counted::new(config.store, &kinds, storage.clone());
        let flow = Arc::new(Flow::new(config.flow, config.request_timeout));
        let registry = Arc::new(Registry::new(
            Arc::new(store),
            kinds,
            admission::built_in(),
            services,
        ));
        let audit = config.audit.as_deref();
        let metrics = Metrics::new(flow.clone(), audit, storage, &registry.admitted);
        let inner = Inner {
            registry,
            tokens: config
                .tokens
                .map(|tokens| Tokens::new(tokens, config.advertise)),
            nodes: Nodes::new(config.node_dialer, config.kubelet_tls),
            usage: Mutex::default(),
            flow,
            counts: Counts::default(),
            audit: config.audit,
            metrics,
            health: Health::default(),
            discovery: Discovery {
                server_address: config
                    .advertise
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
            },
            openapi: OpenApi::default(),
            extra: config.extra.fallback(no_route),
            timeouts: Timeouts {
                request: config.request_timeout,
                watch: config.min_request_timeout,
            },
            verbosity: config.verbosity,
            stopping: CancellationToken::new(),
            listeners: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
            advertise: config.advertise,
            event_ttl: config.event_ttl,
            connection_times: config.connections,
            shutdown: config.shutdown,
        }
    }

    /// Makes what a cluster starts with, then does the server's own chores (Events expire,
    /// addresses of Services are checked, seats are lent, the audit log is written) until
    /// cancelled. Every server runs this. The audit log is written until the last listener has
    /// ended.
    pub async fn run(&self, cancel: CancellationToken) {
        let inner = &self.inner;
        let registry = &inner.registry;
        let mut chores = JoinSet::new();
        if let Some(audit) = inner.audit.clone() {
            let (cancel, mut listeners) = (cancel.clone(), inner.listeners.subscribe());
            let ended = CancellationToken::new();
            let end = ended.clone();
            chores.spawn(async move {
                cancel.cancelled().await;
                // The sender is as long-lived as the server.
                let _ = listeners.wait_for(|count| *count == 0).await;
                end.cancel();
            });
            chores.spawn(async move { audit.log.run(ended).await });
        }
        chores.spawn({
            let (server, cancel) = (self.inner.clone(), cancel.clone());
            async move {
                let health = server.clone();
                let read = move || health.health.configured.store(true, Ordering::Relaxed);
                let (registry, flow) = (server.registry.clone(), server.flow.clone());
                controller::run(registry, flow, read, cancel).await;
            }
        });
        let made = bootstrap::until_done(registry, self.advertise);
        if cancel.run_until_cancelled(made).await.is_some() {
            inner.health.bootstrapped.store(true, Ordering::Relaxed);
            let repair = service_addresses::run_repair(registry.clone(), cancel.clone());
            chores.spawn(repair);
            chores.spawn(expiry::run(registry.clone(), self.event_ttl, cancel));
        }
        while chores.join_next().await.is_some() {}
    }

    /// The registry, for what runs beside the server in its process and is part of it.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// Makes the token that a Secret is to hold for a service account, for the controller that
    /// fills such Secrets. It holds as long as the Secret holds it and the account of that UID is
    /// there.
    ///
    /// # Errors
    /// Where the server has no keys, or the system no randomness.
    pub fn secret_token(
        &self,
        namespace: &str,
        account: (&str, &str),
        secret: &str,
    ) -> Result<String, KeyError> {
        let tokens = self.inner.tokens.as_ref().ok_or(KeyError::None)?;
        let (name, uid) = account;
        let account = Reference {
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        tokens.issue_for_secret(namespace, account, secret)
    }

    /// The server as a tower service in this process. It knows its caller only through
    /// [`ApiService::with_identity`].
    #[must_use]
    pub fn service(&self) -> ApiService {
        ApiService::new(self.inner.clone())
    }
}
