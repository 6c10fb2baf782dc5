//! A node: images, runtimes, the network of Pods, and the kubelet over them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_cri::CriRuntime;
use coracle_images::{ContentStore, Puller, PullerConfig};
use coracle_kubelet::{
    Capacity, KUBELET_PORT, Kubelet, KubeletApi, KubeletConfig, LogindPlaces, NodePolicy,
    UserPlaces, server_tls,
};
use coracle_network::snapshot::Authority;
use coracle_network::{Alias, FormChoice, NodeNetwork, NodeNetworkConfig, ServiceFeed};
use coracle_oci::{OciConfig, OciRuntime};
use coracle_runtime::apparmor::AppArmorPlaces;
use coracle_runtime::{LogLimits, PortDispatcher, RuntimeService};
use coracle_wasm::{WasmConfig, WasmRuntime};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{AgentOptions, PodNetworkForm};
use crate::cluster_facts::ClusterFacts;
use crate::cluster_network::ClusterNetwork;
use crate::containers::{self, Containers};
use crate::identity::authority::{KeyedCertificate, fingerprint};
use crate::identity::join::{self, NodeIdentity};
use crate::paths::{DataDir, admit_guests, create_private_dir, lock};
use crate::pod_network::ThisNode;
use crate::registry_relay::Relay;
use crate::server::reachable;
use crate::{defaults, host, kubelet_args, logging, push, shutdown};

/// The ConfigMap in which a cluster says where its registry is (KEP-1755).
pub(crate) const REGISTRY_HOSTING: &str = "local-registry-hosting";
/// The key in it.
pub(crate) const REGISTRY_HOSTING_KEY: &str = "localRegistryHosting.v1";
/// The node's folder of manifests of static Pods, named as in k3s.
const MANIFESTS: &str = "pod-manifests";
/// How long containers of an ephemeral node wait for an agent before they end.
const ORPHANED: Duration = Duration::from_secs(60);
/// How long Pods may take to end when the node does.
const STOP: Duration = Duration::from_secs(60);

/// What a node needs to know.
pub(crate) struct NodeConfig {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) address: IpAddr,
    pub(crate) network: ClusterNetwork,
    /// Where the kubelet's API listens.
    pub(crate) listen: SocketAddr,
    pub(crate) max_pods: u32,
    /// What the kubelet's flags say.
    pub(crate) policy: NodePolicy,
    pub(crate) client: kube::Client,
    pub(crate) identity: NodeIdentity,
    pub(crate) registry: Option<SocketAddr>,
    pub(crate) pod_network: PodNetworkForm,
    /// Where a container runtime of the machine listens, if that is to run containers.
    pub(crate) container_runtime: Option<String>,
    /// Where the API server is found beside its Service: names or addresses.
    pub(crate) api_hosts: Vec<String>,
    /// Sockets that are known under another address, see [`NodeNetworkConfig::aliases`].
    pub(crate) aliases: Vec<Alias>,
    /// Whether guests end when no agent has come for them.
    pub(crate) ephemeral: bool,
    /// Services, where this process follows them already.
    pub(crate) services: Option<ServiceFeed>,
}

/// A running node.
pub(crate) struct RunningNode {
    name: String,
    directory: PathBuf,
    client: kube::Client,
    kubelet: Kubelet,
    cancel: CancellationToken,
    tasks: JoinSet<Result<()>>,
    network: Arc<NodeNetwork>,
    cri: Option<CriRuntime>,
    /// Held as long as the node uses its folder.
    _lock: std::fs::File,
}

impl RunningNode {
    /// Starts everything.
    pub(crate) async fn start(config: NodeConfig) -> Result<Self> {
        create_private_dir(&config.directory)?;
        let lock = lock(&config.directory)?;
        let folder = |name: &str| config.directory.join(name);
        create_private_dir(&folder(MANIFESTS))?;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!(
                "cannot listen on {} for the kubelet's API: choose another port with --kubelet-port",
                config.listen
            )
        })?;
        let reserve = kubelet_args::kept_from_images(&config.policy.eviction);
        let content = ContentStore::open_keeping(folder("images"), reserve)
            .with_context(|| format!("cannot open {}", folder("images").display()))?;
        let embedded = config.registry.map(|address| {
            let credential = config.identity.registry.clone();
            push::embedded(
                address,
                &config.identity.authority,
                (credential.user, credential.password),
            )
        });
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let containers = Containers::of(config.container_runtime, &config.directory)?;
        let cri = match &containers {
            Containers::Machine(endpoint) => {
                Some(containers::open(&config.directory, endpoint, &exe).await?)
            }
            Containers::Own | Containers::None => None,
        };
        let mut tasks = JoinSet::new();
        let cancel = CancellationToken::new();
        let relay = match (&containers, config.registry) {
            (Containers::Machine(_), Some(registry)) => {
                let relay = Relay::open(reachable(registry), &config.identity.authority).await?;
                let address = relay.address;
                tasks.spawn(relay.run(cancel.clone()));
                Some(address)
            }
            _ => None,
        };
        let puller = Puller::new(
            content.clone(),
            PullerConfig {
                embedded,
                relay,
                containers: matches!(containers, Containers::Own),
                ..PullerConfig::default()
            },
        )?;
        let mut api_hosts = config.network.api_hosts();
        api_hosts.extend(config.api_hosts);
        let network = NodeNetwork::open(NodeNetworkConfig {
            directory: folder("network"),
            node_name: config.name.clone(),
            node_address: config.address,
            cluster: fingerprint(&config.identity.authority)?,
            cluster_range: config.network.pods.into(),
            service_range: config.network.services.into(),
            cluster_dns: Some(config.network.dns()),
            authority: Some(Authority {
                certificates: config.identity.authority.clone(),
                hosts: api_hosts,
            }),
            domain: config.network.domain,
            node_port_address: IpAddr::from([0, 0, 0, 0]),
            aliases: config.aliases,
            form: match config.pod_network {
                PodNetworkForm::Auto => FormChoice::Auto,
                PodNetworkForm::Namespaced => FormChoice::Namespaced,
                PodNetworkForm::Virtual => FormChoice::Virtual,
            },
        })?;
        if let Some(reason) = network.fallback() {
            println!(
                "Pods have virtual addresses, reached by NodePorts and by other Pods: {reason}"
            );
        }
        let guest_users = host::guest_users();
        if guest_users.is_some() {
            admit_guests(&config.directory)?;
        }
        let wasm = WasmRuntime::new(WasmConfig {
            state_dir: folder("wasm"),
            cache_dir: folder("compiled"),
            content: content.clone(),
            exe: exe.clone(),
            ephemeral: config.ephemeral,
            network_namespace: network.namespace(),
            guest_users,
        })
        .await?;
        let dispatcher: Arc<dyn PortDispatcher> = Arc::new(wasm.clone());
        let mut runtimes: Vec<Arc<dyn RuntimeService>> = vec![Arc::new(wasm)];
        if let Some(cri) = &cri {
            // The node says which one it has.
            runtimes.insert(0, Arc::new(cri.clone()));
        }
        if matches!(containers, Containers::Own) {
            let oci = OciRuntime::new(OciConfig {
                state_dir: folder("oci"),
                content,
                exe,
                ephemeral: config.ephemeral.then_some(ORPHANED),
            });
            runtimes.push(Arc::new(oci.await?));
        }
        let tls = kubelet_tls(&config.identity)?;
        let max_pods = usize::try_from(config.max_pods)?;
        let kubelet = Kubelet::new(KubeletConfig {
            node_name: config.name.clone(),
            labels: [(
                "node.kubernetes.io/instance-type".to_owned(),
                "coracle".to_owned(),
            )]
            .into(),
            taints: Vec::new(),
            root_dir: folder("pods"),
            manifests: vec![folder(MANIFESTS)],
            seccomp_dir: folder("seccomp"),
            log_dir: folder("logs"),
            log_limits: LogLimits::default(),
            client: config.client.clone(),
            runtimes,
            images: Arc::new(Arc::new(puller)),
            network: Arc::new(ThisNode(network.clone())),
            services: config.services.as_ref().map(|feed| feed.services.clone()),
            addresses: vec![config.address],
            pod_cidr: None,
            capacity: Capacity::detect(&config.directory, max_pods),
            max_pods,
            policy: config.policy,
            apparmor: AppArmorPlaces::of_machine(),
            users: UserPlaces::of_machine(),
            logind: LogindPlaces::of_machine(),
            version: format!("v1.37.0+coracle{}", env!("CARGO_PKG_VERSION")),
            api: Some(KubeletApi {
                listener,
                tls,
                allowed_users: Vec::new(),
            }),
        });
        {
            let (client, cancel) = (config.client.clone(), cancel.clone());
            let (network, services) = (network.clone(), config.services);
            tasks.spawn(async move {
                network
                    .run(client, services, Some(dispatcher), cancel)
                    .await;
                Ok(())
            });
        }
        {
            let (kubelet, cancel) = (kubelet.clone(), cancel.clone());
            tasks.spawn(async move { Ok(kubelet.run(cancel).await?) });
        }
        Ok(Self {
            name: config.name,
            directory: config.directory,
            client: config.client,
            kubelet,
            cancel,
            tasks,
            network,
            cri,
            _lock: lock,
        })
    }

    /// Waits until the API says that the node is ready.
    pub(crate) async fn ready(&self) -> Result<()> {
        until_ready(self.client.clone(), &self.name).await
    }

    /// Waits until a part ends, which none does by itself while all is well.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error.context("the node failed"),
            Some(Err(error)) => anyhow::Error::new(error).context("a part of the node failed"),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a part of the node ended by itself"),
        }
    }

    /// Ends all Pods. What decides about Pods must have stopped.
    pub(crate) async fn stop_pods(&self) {
        if !self.kubelet.stop_all(STOP).await {
            tracing::warn!("some Pods did not end in time");
        }
    }

    /// Stops the agent. Pods that still run are left to the next one.
    pub(crate) async fn stop(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Stops the agent for good: nothing of it stays on the machine but its folder. Its Pods must
    /// have been ended.
    pub(crate) async fn leave(self) {
        let (network, cri) = (self.network.clone(), self.cri.clone());
        let directory = self.directory.clone();
        self.stop().await;
        if let Some(Err(error)) = cri.map(|cri| containers::leave(&directory, &cri)) {
            tracing::warn!(%error, "the container runtime keeps this node's network: `coracle reset` \
                tries again");
        }
        if let Err(error) = network.tear_down() {
            tracing::warn!(%error, "the Pods' network was not removed: `coracle reset` tries again");
        }
    }
}

fn kubelet_tls(identity: &NodeIdentity) -> Result<Arc<rustls::ServerConfig>> {
    let (chain, key) = identity.certificate.for_rustls()?;
    let authority = CertificateDer::from_pem_slice(identity.authority.as_bytes())
        .context("the CA certificate does not read")?;
    Ok(server_tls(chain, key, [authority])?)
}

/// `coracle agent`.
pub(crate) async fn run(options: AgentOptions) -> Result<()> {
    logging::start(options.log.log.as_deref(), "info")?;
    let policy = kubelet_args::policy(NodePolicy::default(), &options.node.kubelet_arg)?;
    let data = DataDir::new(options.data.data_dir)?;
    data.create()?;
    let directory = data.agent();
    let name = host::node_name(options.node.node_name.as_deref())?;
    let address = host::node_address(options.node.node_ip);
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => Some(token.parse()?),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Some(text.parse()?)
        }
        (None, None) => None,
    };
    let identity = join::node_identity(
        &directory.join("pki"),
        &options.server,
        token.as_ref(),
        &name,
        &[address],
    )
    .await?;
    let client = client(&options.server, &identity)?;
    let cancel = CancellationToken::new();
    let signals = shutdown::on_signals(cancel.clone())?;
    let facts = ClusterFacts::learn(&client, &directory.join("cluster.json")).await?;
    let mut node = RunningNode::start(NodeConfig {
        name: name.clone(),
        directory,
        address,
        network: facts.network,
        listen: SocketAddr::from((
            [0, 0, 0, 0],
            options.node.kubelet_port.unwrap_or(KUBELET_PORT),
        )),
        max_pods: options.node.max_pods.unwrap_or(defaults::MAX_PODS),
        policy,
        pod_network: options.node.pod_network,
        container_runtime: options.node.container_runtime_endpoint,
        api_hosts: options
            .server
            .host_str()
            .map(str::to_owned)
            .into_iter()
            .collect(),
        client,
        identity,
        registry: facts.registry,
        aliases: Vec::new(),
        ephemeral: false,
        services: None,
    })
    .await?;
    let announcement = tokio::spawn(say_when_ready(node.client.clone(), name));
    let outcome = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        error = node.failed() => Err(error),
    };
    announcement.abort();
    node.stop().await;
    signals.abort();
    outcome
}

async fn say_when_ready(client: kube::Client, name: String) {
    if until_ready(client, &name).await.is_ok() {
        println!("node {name} is Ready");
    }
}

/// Waits until the API says that a node is ready.
async fn until_ready(client: kube::Client, name: &str) -> Result<()> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut nodes = watcher(Api::<Node>::all(client), only)
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(node) = nodes.next().await {
        let ready = node.is_ok_and(|node| {
            let conditions = node.status.and_then(|status| status.conditions);
            conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        if ready {
            return Ok(());
        }
    }
    anyhow::bail!("the watch of node {name} ended")
}

/// A client of a server for a node.
fn client(server: &url::Url, identity: &NodeIdentity) -> Result<kube::Client> {
    let KeyedCertificate { certificate, key } = &identity.certificate;
    let mut config = kube::Config::new(server.as_str().parse()?);
    config.root_cert = Some(vec![
        CertificateDer::from_pem_slice(identity.authority.as_bytes())?.to_vec(),
    ]);
    config.auth_info.client_certificate_data = Some(base64(certificate));
    config.auth_info.client_key_data = Some(base64(key).into());
    Ok(kube::Client::try_from(config)?)
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Where the cluster's registry is; a node without one pulls from all others.
pub(crate) async fn registry_hosting(client: &kube::Client) -> Option<SocketAddr> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let map = match maps.get_opt(REGISTRY_HOSTING).await {
        Ok(map) => map?,
        Err(error) => {
            tracing::warn!(%error, "where the cluster's registry is could not be read");
            return None;
        }
    };
    let text = map.data?.remove(REGISTRY_HOSTING_KEY)?;
    let value: serde_json::Value = serde_yaml::from_str(&text).ok()?;
    value.get("host")?.as_str()?.parse().ok()
}

/// Tells nodes and tools where the registry is.
pub(crate) async fn publish_registry(client: &kube::Client, registry: SocketAddr) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let map: ConfigMap = serde_json::from_value(serde_json::json!({
        "metadata": {"name": REGISTRY_HOSTING, "namespace": "kube-public"},
        "data": {REGISTRY_HOSTING_KEY: format!("host: \"{registry}\"\n")},
    }))?;
    put_config_map(&maps, REGISTRY_HOSTING, &map).await
}

/// Makes a ConfigMap what it should be.
pub(crate) async fn put_config_map(
    maps: &Api<ConfigMap>,
    name: &str,
    map: &ConfigMap,
) -> Result<()> {
    match maps.create(&Default::default(), map).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = kube::api::Patch::Merge(map);
            maps.patch(name, &Default::default(), &patch).await?;
        }
        other => {
            other?;
        }
    }
    Ok(())
}
