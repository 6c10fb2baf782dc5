//! The agent's side: images, sandboxes and containers.
//!
//! A sandbox is ready as long as its shim lives. State in memory follows the records on disk
//! ([`coracle_runtime::ledger`]), to which shims add how containers ended: after a restart the next
//! agent reads them and takes over every shim that lives.

mod adopt;
mod apparmor;
mod lifecycle;
mod machine;
mod making;
mod shim;
mod streaming;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use coracle_images::layer::LayerError;
use coracle_images::unpack::LIMITS;
use coracle_images::{ContentStore, ImageKind, ImageLayer, StoredImage};
use coracle_runtime::cgroup::Hierarchies;
use coracle_runtime::cgroup::pods::PodCgroups;
use coracle_runtime::ledger::{self, Ledger};
use coracle_runtime::streaming::{ExecConfig, PortConnection, Session, Wanted};
use coracle_runtime::usage::{DiskUsage, disk_usage};
use coracle_runtime::{
    Container, ContainerConfig, ContainerId, ContainerStats, Error, Image, ImageUser, Listener,
    PodSandbox, PodSandboxConfig, PodsLimits, Resources, Result, RuntimeEvent, RuntimeService,
    SandboxId,
};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::binary::Binary;
use crate::devices::Filter;
use crate::snapshots::Snapshots;
use crate::spec;
use apparmor::DefaultProfile;
use shim::Shim;

/// The runtime's name, also its RuntimeClass handler.
const NAME: &str = "oci";
/// The version of libcontainer.
const VERSION: &str = "0.7.0";

/// What the runtime needs.
#[derive(Clone)]
pub struct OciConfig {
    /// Folder of its records and of unpacked images. Only one runtime may use it at a time.
    pub state_dir: PathBuf,
    /// Where images are.
    pub content: Arc<ContentStore>,
    /// The binary that is executed for shims; it calls [`crate::subcommand`] first of all.
    pub exe: PathBuf,
    /// Whether shims end, with their containers, when no agent was connected to them for that
    /// long.
    pub ephemeral: Option<Duration>,
}

/// The container runtime of a node. It takes root.
#[derive(Clone)]
pub struct OciRuntime(Arc<Inner>);

/// A container and the shim that keeps it.
type Entry = ledger::Entry<Shim>;

struct Inner {
    config: OciConfig,
    ledger: Ledger<Shim>,
    snapshots: Snapshots,
    /// Shims that end remove Pods' cgroups too, and are processes of their own: `Cgroup::create` tries again
    /// for those.
    cgroups: PodCgroups,
    /// Whether containers use no other devices than they are to.
    filters_devices: bool,
    app_armor: DefaultProfile,
    binary: Binary,
    /// Counts further processes, for numbers and names.
    processes: AtomicU64,
    shims: Mutex<HashMap<SandboxId, Arc<Shim>>>,
    tasks: TaskTracker,
    detached: CancellationToken,
}

impl OciRuntime {
    /// Opens the runtime: reads the records of an earlier agent and takes over its shims.
    pub async fn new(config: OciConfig) -> Result<Self> {
        let folder = config.state_dir.clone();
        let failed = |error| {
            let folder = folder.display();
            Error::io(
                format!("opening the container runtime's state in {folder}"),
                error,
            )
        };
        let ledger = Ledger::open(NAME, &config.state_dir).map_err(failed)?;
        let snapshots = Snapshots::open(config.state_dir.join("snapshots"), LIMITS);
        let cgroups = PodCgroups::detect().map_err(failed)?;
        let app_armor = tokio::task::spawn_blocking(DefaultProfile::of_machine).await;
        let inner = Arc::new(Inner {
            ledger,
            snapshots: snapshots.map_err(failed)?,
            filters_devices: filters_devices(cgroups.hierarchies()),
            app_armor: app_armor.map_err(|error| failed(io::Error::other(error)))?,
            cgroups,
            binary: Binary::of(&config.exe).map_err(failed)?,
            processes: AtomicU64::new(0),
            shims: Mutex::default(),
            tasks: TaskTracker::new(),
            detached: CancellationToken::new(),
            config,
        });
        adopt::all(&inner).await.map_err(failed)?;
        if let Err(error) = inner.sweep(None).await {
            // What is not swept now is when an image is removed.
            tracing::warn!(%error, "removing unpacked layers that nothing needs");
        }
        Ok(Self(inner))
    }
}

/// Whether there is something that filters devices: with the older hierarchies, of which one does,
/// or a filter that the kernel takes.
fn filters_devices(hierarchies: &Hierarchies) -> bool {
    match hierarchies.unified().then(Filter::load) {
        Some(Err(error)) => {
            tracing::warn!(%error, "the kernel takes no filter of devices: no container can make one");
            false
        }
        _ => true,
    }
}

impl Inner {
    fn image(&self, digest: &str) -> Result<StoredImage> {
        let image = self.config.content.image(digest);
        image.ok_or_else(|| self.ledger.not_found("image", digest))
    }

    /// The layers of an image.
    fn layers(&self, image: &StoredImage, reference: &str) -> Result<Vec<ImageLayer>> {
        match &image.kind {
            ImageKind::Container {
                layers: Some(layers),
            } => Ok(layers.clone()),
            // It was pulled when the node ran no containers; a pull completes it.
            ImageKind::Container { layers: None } => {
                Err(self.ledger.not_found("image", &image.digest))
            }
            ImageKind::Wasm { .. } => Err(Error::InvalidImage(format!(
                "image {reference} holds WebAssembly and no root file system: \
                 runtime {NAME} cannot run it"
            ))),
        }
    }

    /// What containers that run use.
    fn stats(&self) -> Vec<ContainerStats> {
        let entries = self.ledger.entries();
        let running = entries.iter().filter(|entry| entry.is_running());
        let stats = running.filter_map(|entry| {
            let usage = self.cgroup(&entry.record).usage()?;
            Some(ContainerStats {
                id: entry.record.id.clone(),
                at: SystemTime::now(),
                cpu: usage.cpu,
                memory_bytes: usage.memory_bytes,
                traps: 0,
            })
        });
        stats.collect()
    }

    /// Removes unpacked layers that neither an image, but for the one that goes, nor a container
    /// needs.
    async fn sweep(self: &Arc<Self>, going: Option<String>) -> io::Result<()> {
        let quiet = self.snapshots.quiet().await;
        let sweep = move |inner: &Self| {
            let _quiet = quiet;
            inner.sweep_quiet(going.as_deref())
        };
        self.blocking(sweep).await
    }

    /// The same while nothing is being unpacked. Blocks on the disk.
    fn sweep_quiet(&self, going: Option<&str>) -> io::Result<()> {
        let needed = self.needed(going)?;
        self.snapshots.retain(needed.iter().map(Vec::as_slice))
    }

    fn needed(&self, going: Option<&str>) -> io::Result<Vec<Vec<ImageLayer>>> {
        let mut needed: Vec<Vec<ImageLayer>> = Vec::new();
        for image in self.config.content.images() {
            if let ImageKind::Container {
                layers: Some(layers),
            } = image.kind
                && Some(&*image.digest) != going
            {
                needed.push(layers);
            }
        }
        for entry in self.ledger.entries() {
            // One whose making was cut off is never started. One whose record cannot be read may
            // be running.
            if let Some(made) = self.read_made(&entry)? {
                needed.push(made.layers);
                needed.extend(made.volumes);
            }
        }
        Ok(needed)
    }
}

#[async_trait]
impl RuntimeService for OciRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn gives_users(&self) -> bool {
        true
    }

    async fn ensure_image(&self, image: &Image) -> Result<()> {
        let stored = self.0.image(&image.digest)?;
        let layers = self.0.layers(&stored, &image.reference)?;
        let (inner, going) = (self.0.clone(), image.digest.clone());
        let full = move || {
            // Its lower layers are of no use by themselves, and keep the disk full.
            if let Err(error) = inner.sweep_quiet(Some(&going)) {
                tracing::warn!(%error, "removing the layers of an image that does not fit");
            }
        };
        let content = &self.0.config.content;
        let Err(error) = self.0.snapshots.ensure(content, &layers, full).await else {
            return Ok(());
        };
        Err(match error {
            LayerError::Image(reason) => {
                Error::InvalidImage(format!("image {} cannot run: {reason}", image.reference))
            }
            LayerError::Io(error) => {
                Error::io(format!("unpacking image {}", image.reference), error)
            }
        })
    }

    async fn image_user(&self, image: &Image) -> Result<Option<ImageUser>> {
        let stored = self.0.image(&image.digest)?;
        Ok(Some(spec::of_image(&stored.config.user)))
    }

    async fn remove_image(&self, digest: &str) -> Result<()> {
        let swept = self.0.sweep(Some(digest.to_owned())).await;
        swept.map_err(|error| Error::io(format!("removing unpacked layers of {digest}"), error))
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        // It goes on if the caller gives up: what it has started is on the records then, and is
        // removed like every sandbox that nobody wants.
        let inner = self.0.clone();
        let run = async move { inner.run_sandbox(config).await };
        match self.0.tasks.spawn(run).await {
            Ok(run) => run,
            Err(error) => Err(Error::Start(format!("the start was cut off: {error}"))),
        }
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.0.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.0.remove_sandbox(id).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>> {
        Ok(self.0.ledger.sandboxes())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        // It writes to the disk, and may wait for a profile to be loaded.
        let (inner, sandbox) = (self.0.clone(), sandbox.clone());
        let create = move || inner.create_container(&sandbox, config);
        match tokio::task::spawn_blocking(create).await {
            Ok(created) => created,
            Err(error) => Err(Error::State(format!(
                "making a container was cut off: {error}"
            ))),
        }
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        // The start goes on if the caller gives up, and a stop waits for it.
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
        match self.0.ledger.entry(id) {
            Ok(entry) => self.0.remove_container(&entry).await,
            Err(_) => Ok(()),
        }
    }

    async fn list_containers(&self) -> Result<Vec<Container>> {
        Ok(self.0.ledger.containers())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<Container> {
        Ok(self.0.ledger.entry(id)?.container())
    }

    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<Session> {
        let entry = self.0.ledger.entry(id)?;
        self.0.exec(&entry, config).await
    }

    async fn attach(&self, id: &ContainerId, wanted: Wanted) -> Result<Session> {
        let entry = self.0.ledger.entry(id)?;
        self.0.attach(&entry, wanted).await
    }

    async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<Option<PortConnection>> {
        self.0.connect(sandbox, port).await.map(Some)
    }

    async fn update_container_resources(&self, id: &ContainerId, r: Resources) -> Result<()> {
        let entry = self.0.ledger.entry(id)?;
        if !entry.is_running() {
            return Err(Error::State(format!("container {} does not run", id.0)));
        }
        // The kernel may have to take memory back first.
        let cgroup = self.0.cgroup(&entry.record);
        let updated = self.0.blocking(move |_| cgroup.update(&r)).await;
        updated.map_err(|error| Error::io(format!("changing limits of container {}", id.0), error))
    }

    async fn update_pod_sandbox_resources(&self, id: &SandboxId, r: Resources) -> Result<()> {
        let of = id.clone();
        let resize = move |inner: &Inner| inner.resize_pod_cgroup(&of, &r);
        let resized = self.0.blocking(resize).await;
        resized.map_err(|error| Error::io(format!("changing limits of sandbox {}", id.0), error))
    }

    async fn limit_pods(&self, root: &Path, limits: PodsLimits) -> Result<()> {
        let root = root.to_owned();
        let limited = self
            .0
            .blocking(move |inner| inner.cgroups.limit_all(&root, limits));
        limited
            .await
            .map_err(|error| Error::io("limiting the control group of all Pods", error))
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>> {
        let stats = self.0.blocking(|inner| Ok(inner.stats())).await;
        stats.map_err(|error| Error::io("measuring containers", error))
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<DiskUsage> {
        let entry = self.0.ledger.entry(id)?;
        let bundle = self.0.ledger.records().container_folder(&entry.record.id);
        let measured = self.0.blocking(move |_| {
            let written = making::WRITTEN.iter();
            written.map(|name| disk_usage(&bundle.join(name))).sum()
        });
        measured
            .await
            .map_err(|error| Error::io(format!("measuring the files of container {}", id.0), error))
    }

    async fn listeners(&self) -> Result<Vec<Listener>> {
        // Where a container listens is known to the kernel alone, and dialled as it is.
        Ok(Vec::new())
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.0.ledger.events()
    }

    async fn detach(&self) {
        self.0.detached.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        for entry in self.0.ledger.entries() {
            entry.set_process(None);
        }
        self.0.shims.lock().clear();
    }
}
