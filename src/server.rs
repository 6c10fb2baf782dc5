//! A control-plane member: the store, the API server over it, controllers, scheduler, and the
//! embedded registry, started in the order in which they need each other and stopped in the
//! reverse one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use coracle_apiserver::auth::{MASTERS, NODES};
use coracle_apiserver::serving::server_config;
use coracle_apiserver::{ApiServer, Config, Ipv4Range, UserInfo, Verbosity};
use coracle_controllers::informer::Informers;
use coracle_controllers::{ControllersConfig, TokenOwner};
use coracle_images::registry::{Access, RegistryConfig};
use coracle_network::ServiceFeed;
use coracle_scheduler::{Feed, SchedulerConfig};
use coracle_store::{RaftConfig, RaftStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api_server::ApiOptions;
use crate::cli::ServiceAccountOptions;
use crate::cluster_network::ClusterNetwork;
use crate::identity::authority::{Authority, KeyedCertificate, Purpose};
use crate::identity::join::{self, NodeIdentity};
use crate::identity::kubeconfig;
use crate::identity::registry::{Grant, RegistryCredentials};
use crate::identity::service_accounts;
use crate::paths::{DataDir, write_private};
use crate::{registry_tls, service_feed};

/// As whom controllers ask the API.
const CONTROLLERS: &str = "system:kube-controller-manager";

/// What a server needs to know.
pub(crate) struct ServerConfig {
    pub(crate) data: DataDir,
    pub(crate) listen: SocketAddr,
    pub(crate) registry_listen: SocketAddr,
    /// The limits of the API server, and what it audits.
    pub(crate) api: ApiOptions,
    /// Changes how much is logged.
    pub(crate) verbosity: Verbosity,
    /// The address of this machine that is no loopback.
    pub(crate) advertise: IpAddr,
    /// More names and addresses for the serving certificate.
    pub(crate) names: Vec<String>,
    pub(crate) service_accounts: ServiceAccountOptions,
    /// The ranges of Pods and Services.
    pub(crate) network: ClusterNetwork,
    /// Bits of a node's range of Pod addresses.
    pub(crate) node_mask: u8,
}

/// What others in the process may ask of a running server.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) api_address: SocketAddr,
    pub(crate) registry_address: SocketAddr,
    /// Where the `kubernetes` Service leads.
    pub(crate) advertised: SocketAddr,
    authority: Arc<Authority>,
    registry: RegistryCredentials,
    api: ApiServer,
    informers: Informers,
}

/// A running server.
pub(crate) struct Server {
    handle: Handle,
    store: Arc<RaftStore>,
    /// Ends controllers and scheduler, before what they use.
    deciding: CancellationToken,
    serving: CancellationToken,
    deciders: JoinSet<Result<()>>,
    servers: JoinSet<Result<()>>,
}

impl Server {
    /// Starts everything. When it returns the API answers.
    pub(crate) async fn start(config: ServerConfig) -> Result<Self> {
        let audit = config.api.audit()?;
        config.data.create_for_server()?;
        // Ports first: one that is taken should be the only thing that is said.
        let listener = bind(config.listen, "the API", "--listen").await?;
        let registry_listener =
            bind(config.registry_listen, "the registry", "--registry-listen").await?;
        let store = RaftStore::open(RaftConfig::single(config.data.store(), 1)).await?;
        let api_address = listener.local_addr()?;
        let registry_address = registry_listener.local_addr()?;
        let advertised = SocketAddr::new(config.advertise, api_address.port());

        let authority = Arc::new(Authority::load_or_create(&config.data.pki())?);
        let serving_certificate =
            serving_certificate(&authority, &config, &[api_address, registry_address])?;
        let registry = RegistryCredentials::load_or_create(
            &config.data.registry_credentials(),
            &config.data.pki().join("registry-node-secret"),
        )?;
        write_admin_files(&config.data, &authority, api_address, registry_address)?;

        let service_range: Ipv4Range = config
            .network
            .services
            .to_string()
            .parse()
            .ok()
            .context("the Service range does not read")?;
        let mut api_config = Config::new(store.clone(), service_range);
        api_config.kubelet_tls = Some(Arc::new(kubelet_client_tls(&authority)?));
        api_config.advertise = Some(advertised);
        api_config.tokens = Some(service_accounts::token_config(
            &config.data.pki(),
            &config.service_accounts,
        )?);
        let (verbosity, stored) = (config.verbosity.clone(), config.data.store());
        config
            .api
            .configure(&mut api_config, audit, verbosity, stored);
        // The join routes need a client of the server that they are part of.
        let late = LateClient::default();
        api_config.extra = join::routes(authority.clone(), registry.clone(), late.clone());
        let api = ApiServer::new(api_config);

        let deciding = CancellationToken::new();
        let serving = CancellationToken::new();
        let mut servers = JoinSet::new();
        let tls = tls_config(&authority, &serving_certificate)?;
        {
            let (api, cancel) = (api.clone(), serving.clone());
            servers.spawn(async move {
                api.serve(listener, Arc::new(tls), cancel)
                    .await
                    .context("the API's listener failed")
            });
        }
        {
            let (api, cancel) = (api.clone(), serving.clone());
            servers.spawn(async move {
                api.run(cancel).await;
                Ok(())
            });
        }
        let router = {
            let credentials = registry.clone();
            coracle_images::registry::router(RegistryConfig::new(
                config.data.registry(),
                Arc::new(move |parts| {
                    let authorization = parts
                        .headers
                        .get(http::header::AUTHORIZATION)
                        .and_then(|value| value.to_str().ok());
                    match credentials.grant(authorization) {
                        Grant::Push => Access::Push,
                        Grant::Pull => Access::Pull,
                        Grant::Nothing => Access::None,
                    }
                }),
            ))
            .context("the registry's folder cannot be used")?
        };
        let tls = tls_config(&authority, &serving_certificate)?;
        servers.spawn(registry_tls::serve(
            registry_listener,
            tls,
            router,
            serving.clone(),
        ));

        let watching = TaskTracker::new();
        let informers = {
            let client = client_as(&api, CONTROLLERS, MASTERS);
            Informers::start(&client, &watching, &deciding)
        };
        let handle = Handle {
            api_address,
            registry_address,
            advertised,
            authority,
            registry,
            api,
            informers,
        };
        late.set(handle.client_as("system:coracle:join", MASTERS));
        let mut server = Self {
            handle,
            store,
            deciding,
            serving,
            deciders: JoinSet::new(),
            servers,
        };
        server.start_deciders(watching, &config.network, config.node_mask)?;
        Ok(server)
    }

    fn start_deciders(
        &mut self,
        watching: TaskTracker,
        network: &ClusterNetwork,
        node_mask: u8,
    ) -> Result<()> {
        let cancel = self.deciding.clone();
        let client = self.handle.client_as(CONTROLLERS, MASTERS);
        let informers = &self.handle.informers;
        let mut config = ControllersConfig::new(informers.clone());
        config.cluster_cidr = network
            .pods
            .to_string()
            .parse()
            .map_err(anyhow::Error::msg)?;
        config.node_cidr_mask_size = node_mask;
        config.root_ca = Some(self.handle.authority.certificate().to_owned());
        let api = self.handle.api.clone();
        config.token_signer = Some(Arc::new(move |of: TokenOwner<'_>| {
            api.secret_token(of.namespace, (of.account, of.account_uid), of.secret)
                .map_err(|error| error.to_string())
        }));
        let controllers = coracle_controllers::run(client, config, cancel.clone());
        self.deciders
            .spawn(async move { controllers.await.context("the controllers ended") });
        let pods = Feed {
            store: informers.pods.store().clone(),
            changes: informers.pods.subscribe(),
            ready: informers.pods.ready(),
        };
        let nodes = Feed {
            store: informers.nodes.store().clone(),
            changes: informers.nodes.subscribe(),
            ready: informers.nodes.ready(),
        };
        let client = self.handle.client_as("system:kube-scheduler", MASTERS);
        let scheduler = coracle_scheduler::run(client, SchedulerConfig::new(pods, nodes), cancel);
        self.deciders
            .spawn(async move { scheduler.await.context("the scheduler ended") });
        self.deciders.spawn(async move {
            watching.close();
            watching.wait().await;
            Ok(())
        });
        Ok(())
    }

    /// What others in the process may ask of it.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until a part ends, which none does by itself while all is well.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.servers.join_next() => ended,
            Some(ended) = self.deciders.join_next() => ended,
            else => return anyhow::anyhow!("the server has no parts left"),
        };
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("a part of the server ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => anyhow::Error::new(error).context("a part of the server failed"),
        }
    }

    /// Stops controllers and scheduler; the API goes on, and says that it is to end.
    pub(crate) async fn stop_deciding(&mut self) {
        self.handle.api.announce_shutdown();
        self.deciding.cancel();
        while self.deciders.join_next().await.is_some() {}
    }

    /// Stops everything, in the reverse order of the start.
    pub(crate) async fn stop(mut self) {
        self.stop_deciding().await;
        self.serving.cancel();
        while self.servers.join_next().await.is_some() {}
        self.store.shutdown().await;
    }
}

impl Handle {
    /// A client in this process with an identity.
    pub(crate) fn client_as(&self, user: &str, group: &str) -> kube::Client {
        client_as(&self.api, user, group)
    }

    /// Services as the controllers' informers have them, until these stop.
    pub(crate) fn services(&self) -> ServiceFeed {
        service_feed::of(&self.informers)
    }

    /// A client in this process for a node.
    pub(crate) fn node_client(&self, node: &str) -> kube::Client {
        self.client_as(&format!("system:node:{node}"), NODES)
    }

    /// The identity of a node that runs beside this server; it need not join.
    pub(crate) fn node_identity(&self, node: &str, addresses: &[IpAddr]) -> Result<NodeIdentity> {
        let (key, request) = crate::identity::authority::node_request(node, addresses)?;
        Ok(NodeIdentity {
            authority: self.authority.certificate().to_owned(),
            certificate: KeyedCertificate {
                certificate: self.authority.sign_node_request(&request, node)?,
                key: key.serialize_pem(),
            },
            registry: self.registry.node(node),
        })
    }

    /// The registry's address for other machines: one that listens everywhere is known by the
    /// server's own.
    pub(crate) fn registry_hosting(&self) -> SocketAddr {
        let address = self.registry_address;
        if address.ip().is_unspecified() {
            SocketAddr::new(self.advertised.ip(), address.port())
        } else {
            address
        }
    }

    /// Where guests are pushed, with the admin's credential.
    pub(crate) fn push_target(&self) -> coracle_images::EmbeddedRegistry {
        let admin = self.registry.admin();
        crate::push::embedded(
            self.registry_address,
            self.authority.certificate(),
            (admin.user, admin.password),
        )
    }
}

/// A client in this process with an identity.
fn client_as(api: &ApiServer, user: &str, group: &str) -> kube::Client {
    let user = UserInfo::new(user, &[group]);
    kube::Client::new(api.service().with_identity(user), "default")
}

/// A client that is there only after the server that it is a client of has been made.
#[derive(Clone, Default)]
pub(crate) struct LateClient(Arc<std::sync::OnceLock<kube::Client>>);

impl LateClient {
    fn set(&self, client: kube::Client) {
        // Set once, by `Server::start`.
        let _ = self.0.set(client);
    }

    pub(crate) fn get(&self) -> Result<&kube::Client> {
        self.0.get().context("the server is still starting")
    }
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            anyhow::anyhow!(
                "{address}, the address of {what}, is in use: stop what holds it, or choose another with {flag}"
            )
        } else {
            anyhow::Error::new(error).context(format!("cannot listen on {address} for {what}"))
        }
    })
}

fn serving_certificate(
    authority: &Authority,
    config: &ServerConfig,
    listening: &[SocketAddr],
) -> Result<KeyedCertificate> {
    // Of addresses there is a list of its own.
    let mut names = config.network.api_hosts();
    names.retain(|name| name.parse::<IpAddr>().is_err());
    names.push("localhost".to_owned());
    names.extend(crate::host::node_name(None).ok());
    let mut addresses = BTreeSet::from([
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        config.advertise,
        config.network.kubernetes(),
    ]);
    addresses.extend(
        listening
            .iter()
            .map(SocketAddr::ip)
            .filter(|address| !address.is_unspecified()),
    );
    for name in &config.names {
        match name.parse() {
            Ok(address) => {
                addresses.insert(address);
            }
            Err(_) => names.push(name.clone()),
        }
    }
    names.sort();
    names.dedup();
    authority.certificate_for(
        "apiserver",
        &Purpose::Server {
            common_name: "kube-apiserver",
            names: &names,
            addresses: &addresses.into_iter().collect::<Vec<_>>(),
        },
    )
}

fn write_admin_files(
    data: &DataDir,
    authority: &Authority,
    api: SocketAddr,
    registry: SocketAddr,
) -> Result<()> {
    let admin = authority.certificate_for(
        "admin",
        &Purpose::Client {
            user: "kubernetes-admin",
            group: MASTERS,
        },
    )?;
    let text = kubeconfig::render(
        &format!("https://{}", reachable(api)),
        authority.certificate(),
        "kubernetes-admin",
        &admin,
    )?;
    write_private(&data.kubeconfig(), text.as_bytes())?;
    write_private(
        &data.registry_address(),
        reachable(registry).to_string().as_bytes(),
    )
}

/// The address under which a client on this machine reaches a listener.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn authority_der(authority: &Authority) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(authority.certificate().as_bytes())
        .context("the CA certificate does not read")
}

fn tls_config(
    authority: &Authority,
    certificate: &KeyedCertificate,
) -> Result<rustls::ServerConfig> {
    let (chain, key) = certificate.for_rustls()?;
    Ok(server_config(chain, key, &[authority_der(authority)?])?)
}

/// TLS with which the API server meets kubelets: as an administrator, which they ask for.
fn kubelet_client_tls(authority: &Authority) -> Result<rustls::ClientConfig> {
    let certificate = authority.certificate_for(
        "apiserver-kubelet-client",
        &Purpose::Client {
            user: "kube-apiserver-kubelet-client",
            group: MASTERS,
        },
    )?;
    let (chain, key) = certificate.for_rustls()?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority_der(authority)?)?;
    Ok(rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?)
}
