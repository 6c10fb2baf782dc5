//! The agent's side: sandboxes and containers of wasm guests.
//!
//! State in memory follows the records on disk ([`coracle_runtime::ledger`]), which the guests'
//! processes write too: after a restart the next agent reads them and takes over every process that
//! lives.

mod adopt;
mod client;
mod dispatch;
mod exec;
mod folders;
mod home;
mod hosts;
mod image_volumes;
mod lifecycle;
mod placement;
mod process;
mod spec;
mod streaming;
mod users;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use coracle_images::{ContentStore, ImageKind, StoredImage};
use coracle_runtime::ledger::{self, Ledger};
use coracle_runtime::streaming::{ExecConfig, Session, Wanted};
use coracle_runtime::usage::DiskUsage;
use coracle_runtime::{
    Container, ContainerConfig, ContainerId, ContainerStats, Error, GuestUser, Image, Listener,
    Network, PodSandbox, PodSandboxConfig, Resources, Result, RuntimeEvent, RuntimeService,
    SandboxId,
};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::compile::{self, Artifact, Cache};
use crate::protocol::{Bound, Request, Response};
use dispatch::Dispatches;
use exec::Execs;
use folders::Folders;
use home::Home;
use hosts::Hosts;
use image_volumes::ImageVolumes;
use placement::Placement;
use process::Process;
use users::Users;

/// The runtime's name, also its RuntimeClass handler.
const NAME: &str = "wasm";
/// How long a process may take to tell what its guests use.
const STATS: Duration = Duration::from_secs(2);

/// What the runtime needs.
#[derive(Clone)]
pub struct WasmConfig {
    /// Folder of its records. Only one runtime may use it at a time.
    pub state_dir: PathBuf,
    /// Folder of compiled modules; it may be lost at any time the runtime does not run.
    pub cache_dir: PathBuf,
    /// Where images are.
    pub content: Arc<ContentStore>,
    /// The binary that is executed for guests; it calls [`crate::subcommand`] first of all.
    pub exe: PathBuf,
    /// Whether guest processes end when no agent was connected to them for 60 seconds.
    pub ephemeral: bool,
    /// The network namespace that guest processes join; none: they stay in the agent's. To join
    /// one takes CAP_SYS_ADMIN.
    pub network_namespace: Option<PathBuf>,
    /// Users of the host for guest processes, one per Kubernetes namespace, as user and as group;
    /// none: they run as the agent does. They see no folder above that of `state_dir`: logs,
    /// volumes and the network's snapshot must lie below it, or be open to all. To change users
    /// takes root.
    pub guest_users: Option<Range<u32>>,
}

/// The wasm runtime of a node.
#[derive(Clone)]
pub struct WasmRuntime(Arc<Inner>);

/// A container and the process of its guest.
type Entry = ledger::Entry<Process>;

struct Inner {
    config: WasmConfig,
    ledger: Ledger<Process>,
    folders: Folders,
    placement: Placement,
    users: Option<Users>,
    cache: Cache,
    volumes: ImageVolumes,
    hosts: Hosts,
    dispatches: Dispatches,
    execs: Execs,
    tasks: TaskTracker,
    detached: CancellationToken,
}

impl WasmRuntime {
    /// Opens the runtime: reads the records of an earlier agent and takes over its processes.
    pub async fn new(config: WasmConfig) -> Result<Self> {
        let failed = |error| {
            let folder = config.state_dir.display();
            Error::io(
                format!("opening the wasm runtime's state in {folder}"),
                error,
            )
        };
        let ranges = config.guest_users.clone();
        let ledger = Ledger::open(NAME, &config.state_dir).map_err(failed)?;
        let folders = Folders::open(&config.state_dir, ranges.is_some()).map_err(failed)?;
        let volumes = config.state_dir.join("volumes");
        let volumes = ImageVolumes::open(volumes, ranges.is_some()).map_err(failed)?;
        let users = ranges.map(|range| Users::open(&config.state_dir, range));
        let users = users.transpose().map_err(failed)?;
        let placement = Placement::new(&config).map_err(failed)?;
        let compiler = users.as_ref().map(Users::compiler);
        let cache = Cache::open(&config.cache_dir, config.exe.clone(), compiler);
        let cache = cache.map_err(|error| {
            let folder = config.cache_dir.display();
            let context = format!("opening the cache of compiled modules in {folder}");
            Error::io(context, std::io::Error::other(error.to_string()))
        })?;
        let inner = Arc::new(Inner {
            ledger,
            folders,
            placement,
            users,
            cache,
            volumes,
            hosts: Hosts::default(),
            dispatches: Dispatches::default(),
            execs: Execs::default(),
            tasks: TaskTracker::new(),
            detached: CancellationToken::new(),
            config,
        });
        inner.sweep_cache();
        adopt::all(&inner).await.map_err(|error| {
            let folder = inner.config.state_dir.display();
            Error::io(format!("taking over guests recorded in {folder}"), error)
        })?;
        inner.sweep_volumes();
        Ok(Self(inner))
    }
}

impl Inner {
    /// Removes compiled modules whose images went while no agent ran.
    fn sweep_cache(&self) {
        let images = self.config.content.images();
        let modules = images.iter().filter_map(|image| match &image.kind {
            ImageKind::Wasm { module, .. } => Some(module.hex()),
            ImageKind::Container { .. } => None,
        });
        if let Err(error) = self.cache.sweep(&modules.collect()) {
            tracing::warn!(%error, "clearing the cache of compiled modules");
        }
    }

    /// The user of a namespace's guests; none where they run as the agent does.
    fn user(&self, namespace: &str) -> std::io::Result<Option<GuestUser>> {
        let users = self.users.as_ref();
        users.map(|users| users.of(namespace)).transpose()
    }

    fn image(&self, digest: &str) -> Result<StoredImage> {
        let image = self.config.content.image(digest);
        image.ok_or_else(|| self.ledger.not_found("image", digest))
    }

    /// The compiled module of an image; compiles it if need be.
    async fn artifact(&self, image: &StoredImage, reference: &str) -> Result<Artifact> {
        let ImageKind::Wasm { module, .. } = &image.kind else {
            return Err(Error::InvalidImage(format!(
                "image {reference} holds no WebAssembly module: runtime {NAME} cannot run it"
            )));
        };
        let path = self.config.content.blob_path(module);
        let compiled = self.cache.ensure(&module.hex(), &path).await;
        compiled.map_err(|error| match error {
            compile::Error::Invalid(reason) => {
                Error::InvalidImage(format!("image {reference} cannot run: {reason}"))
            }
            compile::Error::Io { context, source } => Error::io(context, source),
        })
    }
}

#[async_trait]
impl RuntimeService for WasmRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        compile::engine_version()
    }

    async fn ensure_image(&self, image: &Image) -> Result<()> {
        let stored = self.0.image(&image.digest)?;
        self.0.artifact(&stored, &image.reference).await.map(drop)
    }

    async fn ensure_volume(&self, image: &Image) -> Result<()> {
        self.0.ensure_volume(image).await
    }

    async fn remove_image(&self, digest: &str) -> Result<()> {
        let removed = self.0.volumes.remove(digest).await;
        removed
            .map_err(|error| Error::io(format!("removing the files of image {digest}"), error))?;
        let content = &self.0.config.content;
        let Some(image) = content.image(digest) else {
            return Ok(());
        };
        let ImageKind::Wasm { module, .. } = &image.kind else {
            return Ok(());
        };
        let shared = content.images().iter().any(|other| {
            other.digest != digest
                && matches!(&other.kind, ImageKind::Wasm { module: same, .. } if same == module)
        });
        if shared {
            return Ok(());
        }
        let removed = self.0.cache.remove(&module.hex());
        removed.map_err(|error| Error::io(format!("removing compiled code of {digest}"), error))
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        let namespace = &config.pod.namespace;
        if namespace.is_empty() || namespace.starts_with('.') || namespace.contains('/') {
            return Err(Error::InvalidConfig(format!(
                "{namespace:?} is no name of a namespace"
            )));
        }
        if config.namespaces.network == Network::Host {
            return Err(Error::InvalidConfig(
                "hostNetwork is not supported for WebAssembly on this node".into(),
            ));
        }
        self.0.ledger.add_sandbox(config, |_| Ok(()))
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.0.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.0.stop_sandbox(id).await?;
        for entry in self.0.ledger.entries_of(id) {
            self.0.remove_container(&entry.record.id).await?;
        }
        self.0.ledger.remove_sandbox(id)
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>> {
        Ok(self.0.ledger.sandboxes())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let digest = config.image_digest.clone();
        self.0.ledger.add_container(sandbox, config, |record, _| {
            self.0.image(&digest)?;
            self.0.mounts(record).map(drop)
        })
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        // The start goes on if the caller gives up, and a stop waits for it: half of one would
        // leave a guest in its host that nobody knows.
        let (inner, id) = (self.0.clone(), id.clone());
        let start = async move { inner.start_container(&id).await };
        match self.0.tasks.spawn(start).await {
            Ok(started) => started,
            Err(error) => Err(Error::Start(format!("the start was cut off: {error}"))),
        }
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        match self.0.ledger.entry(id) {
            Ok(entry) => self.0.stop(&entry, grace).await,
            Err(_) => Ok(()),
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.0.remove_container(id).await
    }

    async fn list_containers(&self) -> Result<Vec<Container>> {
        Ok(self.0.ledger.containers())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<Container> {
        Ok(self.0.ledger.entry(id)?.container())
    }

    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<Session> {
        self.0.exec(id, config).await
    }

    async fn attach(&self, id: &ContainerId, wanted: Wanted) -> Result<Session> {
        let entry = self.0.ledger.entry(id)?;
        self.0.attach(&entry, wanted).await
    }

    async fn update_container_resources(&self, id: &ContainerId, r: Resources) -> Result<()> {
        let entry = self.0.ledger.entry(id)?;
        let Some(process) = entry.process() else {
            return Err(Error::State(format!("container {} does not run", id.0)));
        };
        let request = Request::Update {
            container: id.clone(),
            resources: r,
        };
        let answer = process.request(request).await;
        answer
            .map(drop)
            .map_err(|error| Error::io(format!("changing limits of container {}", id.0), error))
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>> {
        let asked = self.0.processes().into_iter().map(|process| async move {
            let answer = tokio::time::timeout(STATS, process.request(Request::Stats)).await;
            match answer {
                Ok(Ok(Response::Stats(of))) => of,
                // It has just ended, or is so busy that it is left out this time.
                _ => Vec::new(),
            }
        });
        let used = futures::future::join_all(asked).await;
        let at = SystemTime::now();
        Ok(used
            .into_iter()
            .flatten()
            .map(|used| ContainerStats {
                id: used.container,
                at,
                cpu: used.cpu,
                memory_bytes: used.memory_bytes,
                traps: used.traps,
            })
            .collect())
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<DiskUsage> {
        let entry = self.0.ledger.entry(id)?;
        let runner = Folders::runner(self.0.ledger.records(), id);
        let of = id.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let process = entry.process();
            let process = process.as_ref().map(|process| process.folder());
            folders::written(&runner, process, &of)
        });
        let measured = measured
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        measured
            .map_err(|error| Error::io(format!("measuring the files of container {}", id.0), error))
    }

    async fn listeners(&self) -> Result<Vec<Listener>> {
        let bound = self.0.processes();
        let bound = bound.iter().flat_map(|process| process.listeners());
        let listener = |bound: Bound| {
            // In a namespace of its Pod's own everybody finds it where it listens.
            let ips = |of: &PodSandbox| (!Home::is_own_of(of)).then(|| of.config.ips.clone());
            Some(Listener {
                pod_ips: match self.0.ledger.with_sandbox(&bound.sandbox, ips) {
                    Ok(ips) => ips?,
                    Err(_) => Vec::new(),
                },
                sandbox: bound.sandbox,
                protocol: bound.protocol,
                address: bound.address,
                actual: bound.actual,
            })
        };
        Ok(bound.filter_map(listener).collect())
    }

    fn guest_user(&self, namespace: &str) -> Result<Option<GuestUser>> {
        self.0.user(namespace).map_err(|error| {
            Error::io(
                format!("finding a user for guests of namespace {namespace}"),
                error,
            )
        })
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.0.ledger.events()
    }

    async fn detach(&self) {
        self.0.detach().await;
    }
}
