//! The kubelet: its parts put together, and its life.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::PodsLimits;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::Api;
use kube::runtime::reflector;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::config::{KubeletApi, KubeletConfig};
use crate::credentials::Credentials;
use crate::events::{self, Severity};
use crate::eviction::{EvictionPolicy, Evictor};
use crate::followed::Followed;
use crate::images::ImageKeeper;
use crate::images::collector::Collector;
use crate::listeners::Listeners;
use crate::node::object::{self, NodeFacts};
use crate::node::reporter::Reporter;
use crate::node::{allocatable, capacity, machine};
use crate::node_context::NodeContext;
use crate::objects::RootCertificates;
use crate::orphans;
use crate::pod;
use crate::probes::Results;
use crate::router::Router;
use crate::runtime_cache::RuntimeCache;
use crate::server;
use crate::shutdown::Shutdown;
use crate::source;
use crate::static_pods::StaticPods;
use crate::static_pods::mirrors::Mirrors;
use crate::status::publisher::{Pace, StatusPublisher};
use crate::users::PodUsers;
use crate::worker::Workers;

/// Why the kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A folder cannot be made.
    #[error("cannot make {path}: {source}")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A runtime does not say what it has.
    #[error("cannot read what the runtimes have: {0}")]
    Runtime(#[from] coracle_runtime::Error),
}

/// The agent of one node. Clones are handles to the same one.
#[derive(Clone)]
pub struct Kubelet {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<NodeContext>,
    workers: Workers,
    /// Ends the workers; they let their Pods run on.
    stop_workers: CancellationToken,
    start: parking_lot::Mutex<Option<Start>>,
    registered: watch::Sender<bool>,
}

/// What is used up by running.
struct Start {
    reporter: Reporter,
    collector: Arc<Collector>,
    eviction: EvictionPolicy,
    shutdown: Shutdown,
    manifests: Vec<PathBuf>,
    limits: Option<PodsLimits>,
    events: events::Writer,
    services: Option<reflector::store::Writer<Service>>,
    api: Option<KubeletApi>,
}

impl Kubelet {
    /// Puts the parts together; nothing runs yet.
    pub fn new(config: KubeletConfig) -> Self {
        let router = Router::new(config.runtimes);
        let mut capacity = config.capacity;
        if let Ok(pods) = config.max_pods.to_string().parse() {
            capacity.insert("pods".to_owned(), pods);
        }
        let policy = config.policy;
        let allocatable = allocatable::allocatable(&capacity, &policy.reserved, &policy.eviction);
        let processes = machine::processes().map(|(_, most)| most);
        let limits = allocatable::enforced(&capacity, processes, &policy.reserved);
        let runtime_version = router.all().first().map_or_else(
            || "none://".to_owned(),
            |runtime| match runtime.version() {
                version if version.contains("://") => version,
                version => format!("{}://{version}", runtime.name()),
            },
        );
        let port = config
            .api
            .as_ref()
            .and_then(|api| api.listener.local_addr().ok());
        let facts = NodeFacts {
            name: config.node_name.clone(),
            labels: config.labels,
            taints: config.taints,
            addresses: config.addresses.clone(),
            pod_cidr: config.pod_cidr,
            capacity,
            allocatable: allocatable.clone(),
            info: capacity::system_info(&runtime_version, &config.version),
            port: port.map(|address| address.port()),
            handlers: router.handlers_with_users(),
            strict_groups: router.strict_groups(),
        };
        let (services, follow_services) = match config.services {
            Some(services) => (services, None),
            None => {
                let (services, writer) = reflector::store();
                (services, Some(writer))
            }
        };
        let (recorder, events) = events::recorder(config.client.clone(), &config.node_name);
        let node = Arc::new(NodeContext {
            node_name: config.node_name,
            labels: object::labels(&facts),
            users: PodUsers::load(&config.root_dir, &config.users),
            root: config.root_dir,
            seccomp: config.seccomp_dir,
            apparmor: config.apparmor,
            log_root: config.log_dir,
            log_limits: config.log_limits,
            host_ips: config.addresses,
            client: config.client.clone(),
            router: router.clone(),
            cache: RuntimeCache::new(router.clone()),
            images: ImageKeeper::new(config.images.clone(), policy.access),
            credentials: Credentials::new(policy.credentials),
            network: config.network,
            listeners: Listeners::default(),
            root_certificates: RootCertificates::default(),
            followed: Followed::new(config.client.clone()),
            services,
            services_ready: tokio::sync::OnceCell::new(),
            admission: Admission::new(allocatable, config.max_pods),
            recorder,
            publisher: StatusPublisher::new(config.client.clone(), Pace::default()),
            probes: Results::default(),
            shutting_down: watch::Sender::default(),
            pressure: watch::Sender::default(),
            taints: Arc::default(),
        });
        let collector = Collector::new(
            policy.images,
            (config.images.clone(), node.images.uses().clone()),
            (router.clone(), node.cache.clone()),
            node.recorder.clone(),
            &node.node_name,
        );
        let stop_workers = CancellationToken::new();
        let workers = Workers::new(node.clone(), stop_workers.clone());
        let reporter = Reporter {
            client: config.client,
            facts,
            images: config.images,
            router,
            recorder: node.recorder.clone(),
            shutting_down: node.shutting_down.subscribe(),
            pressure: node.pressure.subscribe(),
            taints: node.taints.clone(),
        };
        let shutdown = Shutdown {
            node: node.clone(),
            workers: workers.clone(),
            policy: policy.shutdown,
            places: config.logind,
        };
        let start = Start {
            reporter,
            collector: Arc::new(collector),
            eviction: policy.eviction,
            shutdown,
            manifests: config
                .manifests
                .into_iter()
                .chain(policy.pod_manifests)
                .collect(),
            limits,
            events,
            services: follow_services,
            api: config.api,
        };
        Self {
            inner: Arc::new(Inner {
                node,
                workers,
                stop_workers,
                start: parking_lot::Mutex::new(Some(start)),
                registered: watch::Sender::new(false),
            }),
        }
    }

    /// Runs until cancelled. Pods run on, for the next agent to adopt; call
    /// [`Kubelet::stop_all`] before if they should not. A second call returns at once.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), KubeletError> {
        let inner = &self.inner;
        let Some(start) = inner.start.lock().take() else {
            return Ok(());
        };
        let Start {
            reporter,
            collector,
            eviction,
            shutdown,
            manifests,
            limits,
            events,
            services,
            api,
        } = start;
        let node = &inner.node;
        for path in [&node.root, &node.log_root] {
            std::fs::create_dir_all(path).map_err(|source| KubeletError::Folder {
                path: path.clone(),
                source,
            })?;
        }
        if let Some(limits) = limits {
            for runtime in node.router.all() {
                let root = Path::new(pod::cgroups::ROOT);
                if let Err(error) = runtime.limit_pods(root, limits.clone()).await {
                    let runtime = runtime.name();
                    tracing::warn!(runtime, %error, "what is reserved is not kept from Pods");
                }
            }
        }
        // What runs is known before the first Pod is looked at: nothing is started twice.
        node.cache.relist().await?;

        let mut tasks = JoinSet::new();
        let stop = cancel.child_token();
        tasks.spawn(events.run(stop.clone()));
        let (publisher, token) = (node.publisher.clone(), stop.clone());
        tasks.spawn(async move { publisher.run(token).await });
        for runtime in node.router.all() {
            let (this, runtime, token) = (self.clone(), runtime.clone(), stop.clone());
            tasks.spawn(async move {
                let wake = |uid: &str| this.inner.workers.hint(uid);
                let node = &this.inner.node;
                let (cache, listeners) = (&node.cache, || node.listeners.request());
                cache.watch(runtime, wake, listeners, token).await;
            });
        }
        let (of, token) = (node.clone(), stop.clone());
        tasks.spawn(async move {
            let forward = of.listeners.forward(&of.router, of.network.as_ref());
            tokio::select! {
                () = token.cancelled() => {}
                () = forward => {}
            }
        });
        let (images, token) = (collector.clone(), stop.clone());
        tasks.spawn(async move { images.run(token).await });
        if let Some(writer) = services {
            let client = node.client.clone();
            tasks.spawn(source::follow_services(client, writer, stop.clone()));
        }
        if let Some(api) = api {
            let (node, workers) = (node.clone(), inner.workers.clone());
            tasks.spawn(server::serve(api, node, workers, stop.clone()));
        }
        tasks.spawn(shutdown.run(stop.clone()));
        // They need nobody's leave; whatever else runs is judged when they are known.
        let mut statics = StaticPods::new(node.clone(), inner.workers.clone(), manifests);
        let shown = statics.shown();
        statics.begin().await;
        tasks.spawn(statics.run(stop.clone()));
        let (synced, mut when_synced) = watch::channel(false);
        let (this, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let Some(registered) = reporter.register(&token).await else {
                return;
            };
            this.inner.registered.send_replace(true);
            let name = this.inner.node.node_name.clone();
            let recorder = &this.inner.node.recorder;
            let text = "Starting kubelet.".to_owned();
            recorder.node(&name, Severity::Normal, "Starting", text);
            if let Some(text) = names_exceed(&this.inner.node) {
                let event = "CheckLimitsForResolvConf";
                recorder.node(&name, Severity::Warning, event, text);
            }
            if registered.status.as_ref().is_some_and(object::is_ready) {
                let text = format!("Node {name} status is now: NodeReady");
                recorder.node(&name, Severity::Normal, "NodeReady", text);
            }
            let client = this.inner.node.client.clone();
            let workers = this.inner.workers.clone();
            let mirrors = Mirrors::default();
            let pods = source::follow(client, &name, &workers, &mirrors, synced, token.clone());
            let mirrored = mirrors.keep(&this.inner.node, shown, token.clone());
            let evictor = Evictor::new(
                this.inner.node.clone(),
                workers.clone(),
                collector,
                eviction,
            );
            tokio::join!(
                pods,
                mirrored,
                reporter.run(registered, token.clone()),
                evictor.run(token)
            );
        });
        let (this, token) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let clean = async {
                if when_synced.wait_for(|synced| *synced).await.is_ok() {
                    orphans::remove(&this.inner.node, &this.inner.workers).await;
                }
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = clean => {}
            }
        });

        cancel.cancelled().await;
        inner.stop_workers.cancel();
        inner.workers.wait().await;
        while tasks.join_next().await.is_some() {}
        for runtime in node.router.all() {
            runtime.detach().await;
        }
        Ok(())
    }

    /// Waits until the node is registered.
    pub async fn registered(&self) {
        let mut registered = self.inner.registered.subscribe();
        // The sender lives as long as this value.
        let _ = registered.wait_for(|registered| *registered).await;
    }

    /// Ends all Pods, ordinary ones before critical ones, each within its own grace period
    /// and all within `bound`; their objects stay as they are, so that the next agent starts
    /// them again, but for those that run once: they have failed then. True if all have ended.
    /// Nothing new is to be started meanwhile: the caller stops the scheduler and controllers
    /// first.
    pub async fn stop_all(&self, bound: Duration) -> bool {
        let stop = async {
            let workers = &self.inner.workers;
            // What is left for critical Pods, should the others take all their time.
            let ordinary = bound.mul_f64(0.7);
            workers
                .shut_down(ordinary, |pod| !pod::is_critical(pod))
                .await;
            workers.shut_down(bound - ordinary, |_| true).await;
        };
        tokio::time::timeout(bound, stop).await.is_ok()
    }
}

/// Why Pods do not get all that the machine's resolv.conf gives. Without one there is nothing to get.
fn names_exceed(node: &NodeContext) -> Option<String> {
    let machine = match std::fs::read_to_string(pod::dns::RESOLV_CONF) {
        Ok(machine) => machine,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("open {}: {error}", pod::dns::RESOLV_CONF)),
    };
    pod::dns::exceeds(&machine, node.network.dns().is_some())
}

/// Waits until the control plane has given the node a range for its Pods.
pub async fn pod_cidr(client: kube::Client, node_name: &str) -> Result<String, kube::Error> {
    let nodes: Api<Node> = Api::all(client);
    let name = node_name.to_owned();
    let has_range = |node: Option<&Node>| {
        let spec = node.and_then(|node| node.spec.as_ref());
        spec.is_some_and(|spec| {
            spec.pod_cidr
                .as_deref()
                .is_some_and(|cidr| !cidr.is_empty())
        })
    };
    let node = kube::runtime::wait::await_condition(nodes, &name, has_range).await;
    let node = node.map_err(|error| kube::Error::Service(Box::new(error)))?;
    Ok(node
        .and_then(|node| node.spec?.pod_cidr)
        .unwrap_or_default())
}
