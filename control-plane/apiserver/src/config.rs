//! The server as its embedder sees it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::auth::tokens::{KeyError, Reference, TokenConfig, Tokens};
use crate::bootstrap;
use crate::dial::{Dial, Direct};
use crate::discovery::Discovery;
use crate::expiry;
use crate::flow::{Flow, FlowLimits};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::openapi::OpenApi;
use crate::registry::Registry;
use crate::registry::kinds;
use crate::registry::lookup::Kinds;
use crate::registry::service_addresses::{self, Ipv4Range, ServiceAddresses};
use crate::server::{Inner, no_route};
use crate::serving::ApiService;

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
        let registry = Arc::new(Registry::new(
            config.store,
            kinds,
            admission::built_in(),
            services,
        ));
        let inner = Inner {
            registry,
            tokens: config
                .tokens
                .map(|tokens| Tokens::new(tokens, config.advertise)),
            nodes: Nodes::new(config.node_dialer, config.kubelet_tls),
            flow: Flow::new(config.flow),
            metrics: Metrics::new(),
            health: Health::default(),
            discovery: Discovery {
                server_address: config
                    .advertise
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
            },
            openapi: OpenApi::default(),
            extra: config.extra.fallback(no_route),
            stopping: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
            advertise: config.advertise,
            event_ttl: config.event_ttl,
        }
    }

    /// Makes what a cluster starts with, then does the server's own chores (Events expire,
    /// addresses of Services are checked) until cancelled. Every server runs this.
    pub async fn run(&self, cancel: CancellationToken) {
        let registry = &self.inner.registry;
        let made = bootstrap::until_done(registry, self.advertise);
        if cancel.run_until_cancelled(made).await.is_none() {
            return;
        }
        self.inner
            .health
            .bootstrapped
            .store(true, Ordering::Relaxed);
        let mut chores = JoinSet::new();
        chores.spawn(service_addresses::run_repair(
            registry.clone(),
            cancel.clone(),
        ));
        chores.spawn(expiry::run(registry.clone(), self.event_ttl, cancel));
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
