//! The agent's side: the verbs of a runtime as calls of the CRI.
//!
//! What is kept in memory is what would cost a call each time and cannot change any more: how a
//! container has ended, and since when one runs.

mod containers;
mod groups;
mod images;
mod sandboxes;
mod streaming;
mod watching;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use coracle_runtime::cgroup::Hierarchies;
use coracle_runtime::cgroup::pods::PodCgroups;
use coracle_runtime::grpc::{NOT_FOUND, Status};
use coracle_runtime::streaming::{ExecConfig, PortConnection, Session, Wanted};
use coracle_runtime::usage::DiskUsage;
use coracle_runtime::{
    Container, ContainerConfig, ContainerId, ContainerStats, Error, Image, ImageSource, ImageUser,
    Listener, OwnImage, PodSandbox, PodSandboxConfig, PodsLimits, Resources, Result, RuntimeEvent,
    RuntimeService, SandboxId, disk, ledger,
};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{self, Client};
use crate::cni;
use crate::facts::{self, Facts};
use crate::wire::{STATUS, StatusRequest};

/// The runtime's name: its containers are what those of our own runtime are to the kubelet.
const NAME: &str = "oci";
/// Events kept for a subscriber that lags.
const EVENTS: usize = 4096;
/// How long a runtime may take to see a network.
const NETWORK: Duration = Duration::from_secs(30);
/// Between looks at whether it does: it tells nobody.
const LOOK: Duration = Duration::from_millis(50);

/// What the runtime needs.
#[derive(Clone, Debug)]
pub struct CriConfig {
    /// Where the runtime of the machine listens, `unix:///PATH`.
    pub endpoint: String,
    /// Folder of what the node keeps beside it. Only one node may use it at a time.
    pub state_dir: PathBuf,
    /// The binary that the runtime executes as its plugin; it calls [`crate::plugin`] first of all.
    pub exe: PathBuf,
}

/// Containers under a runtime of the machine. It takes root.
#[derive(Clone)]
pub struct CriRuntime(Arc<Inner>);

struct Inner {
    config: CriConfig,
    client: Client,
    facts: Facts,
    /// The label of what is ours.
    node: String,
    events: broadcast::Sender<RuntimeEvent>,
    /// Asks for a look at once.
    look: Arc<Notify>,
    /// States that do not change any more, by container and the state that is listed.
    states: Mutex<HashMap<ContainerId, (i32, containers::Seen)>>,
    /// Whether the machine has the unified hierarchy of control groups alone.
    unified: bool,
    /// The control groups of Pods; none where systemd has them. Changed by one at a time, since what is
    /// known of sandboxes has to be asked for.
    cgroups: Option<tokio::sync::Mutex<Arc<PodCgroups>>>,
    /// What sandboxes may use together by now, where that is not what they were made with.
    resized: Mutex<HashMap<SandboxId, Resources>>,
    tasks: TaskTracker,
    detached: CancellationToken,
}

impl CriRuntime {
    /// Begins to use a runtime: asks what it is, and makes the Pods' network known to it. What an
    /// earlier agent had there is there still.
    pub async fn new(config: CriConfig) -> Result<Self> {
        let invalid = Error::InvalidConfig;
        let client = Client::new(client::socket(&config.endpoint).map_err(invalid)?);
        let facts = facts::ask(&client, &config.endpoint).await;
        let facts = facts.map_err(invalid)?;
        let node = config.state_dir.to_string_lossy().into_owned();
        let cgroups = match facts.systemd {
            // They come and go with what is in them.
            true => None,
            false => {
                let detected = PodCgroups::detect();
                let failed = |error| Error::io("reading the machine's control groups", error);
                Some(tokio::sync::Mutex::new(Arc::new(detected.map_err(failed)?)))
            }
        };
        let hierarchies = Hierarchies::detect();
        let inner = Arc::new(Inner {
            client,
            facts,
            node,
            events: broadcast::Sender::new(EVENTS),
            look: Arc::default(),
            states: Mutex::default(),
            unified: hierarchies.is_ok_and(|found| found.unified()),
            cgroups,
            resized: Mutex::default(),
            tasks: TaskTracker::new(),
            detached: CancellationToken::new(),
            config,
        });
        inner.install().await?;
        let (look, detached) = (inner.look.clone(), inner.detached.clone());
        let watching = watching::run(Arc::downgrade(&inner), look, detached);
        inner.tasks.spawn(watching);
        Ok(Self(inner))
    }

    /// Takes away what the node has put into the runtime's folders. Its Pods must have ended.
    pub fn leave(&self) -> Result<()> {
        let Facts {
            network_folder,
            plugins_folder,
            ..
        } = &self.0.facts;
        let left = cni::uninstall(network_folder, plugins_folder, &self.0.network_records());
        left.map_err(|error| Error::io("removing the Pods' network from the runtime", error))
    }
}

impl Inner {
    /// The folder of what the plugin is told of Pods.
    fn network_records(&self) -> PathBuf {
        self.config.state_dir.join("network")
    }

    /// Makes the Pods' network known to the runtime, and waits until it is.
    async fn install(&self) -> Result<()> {
        let records = self.network_records();
        let failed = |error| Error::io("making the node's folders", error);
        disk::private_dir(&records).map_err(failed)?;
        let Facts {
            network_folder,
            plugins_folder,
            ..
        } = &self.facts;
        cni::install(network_folder, plugins_folder, &self.config.exe, &records).map_err(
            |cause| {
                let endpoint = &self.config.endpoint;
                Error::InvalidConfig(format!(
                    "the network of Pods cannot be given to the container runtime at {endpoint}: \
                     {cause}"
                ))
            },
        )?;
        let seen = async {
            loop {
                let status = self
                    .client
                    .call(STATUS, &StatusRequest { verbose: true })
                    .await;
                let status = status.map_err(|status| broken("asking for its status", status))?;
                let why = facts::condition(&status, "NetworkReady");
                // Where it shows its networks, ours has to be among them.
                let shown = status.info.get("cniconfig");
                let ours = shown.is_none_or(|shown| shown.contains(&*self.node));
                match why {
                    Ok(()) if ours => return Ok(()),
                    Ok(()) => tokio::time::sleep(LOOK).await,
                    Err(why) => {
                        tracing::debug!(why, "the container runtime has no network yet");
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        };
        match tokio::time::timeout(NETWORK, seen).await {
            Ok(seen) => seen,
            Err(_) => Err(Error::InvalidConfig(format!(
                "the container runtime at {} does not take the network in {}: is that its folder \
                 of networks?",
                self.config.endpoint,
                network_folder.display()
            ))),
        }
    }

    fn not_found(&self, kind: &'static str, id: &str) -> Error {
        Error::NotFound {
            kind,
            id: id.to_owned(),
            runtime: NAME,
        }
    }

    /// Does what must not be cut off when the caller gives up.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.tasks.spawn(work).await {
            Ok(done) => done,
            Err(error) => Err(Error::Start(format!("it was cut off: {error}"))),
        }
    }
}

/// A call that has failed for a reason of the runtime's.
fn broken(what: &str, status: Status) -> Error {
    Error::io(
        format!("the container runtime, {what}"),
        std::io::Error::other(status),
    )
}

/// What is gone already is no error.
fn gone(what: &str, called: std::result::Result<impl Sized, Status>) -> Result<()> {
    match called {
        Err(status) if status.code != NOT_FOUND => Err(broken(what, status)),
        _ => Ok(()),
    }
}

/// A moment in nanoseconds since 1970.
fn at(nanoseconds: i64) -> SystemTime {
    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[async_trait]
impl RuntimeService for CriRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.0.facts.version.clone()
    }

    fn strict_groups(&self) -> bool {
        self.0.facts.strict_groups
    }

    fn handlers(&self) -> Vec<String> {
        let own = std::iter::once(NAME.to_owned());
        own.chain(self.0.facts.handlers.iter().cloned()).collect()
    }

    async fn must_pull(&self, digest: &str) -> Result<bool> {
        Ok(self.0.find_image(digest).await?.is_none())
    }

    async fn own_image(&self, reference: &str) -> Result<Option<OwnImage>> {
        self.0.own_image(reference).await
    }

    async fn pull_image(&self, image: &Image, sources: &[ImageSource]) -> Result<()> {
        self.0.pull(image, sources).await
    }

    fn images_folder(&self) -> Option<PathBuf> {
        self.0.facts.images_folder.clone()
    }

    async fn ensure_image(&self, image: &Image) -> Result<()> {
        match self.0.find_image(&image.digest).await? {
            Some(_) => Ok(()),
            None => self.0.pull(image, &[images::by_itself(image)]).await,
        }
    }

    async fn image_user(&self, image: &Image) -> Result<Option<ImageUser>> {
        let known = self.0.find_image(&image.digest).await?;
        let known = known.ok_or_else(|| self.0.not_found("image", &image.digest))?;
        Ok(Some(images::user(known)))
    }

    async fn remove_image(&self, digest: &str) -> Result<()> {
        self.0.remove_image(digest).await
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        let inner = self.0.clone();
        self.0
            .whole(async move { inner.run_sandbox(config).await })
            .await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.0.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.0.remove_sandbox(id).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>> {
        self.0.sandboxes(None).await
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let (inner, sandbox) = (self.0.clone(), sandbox.clone());
        self.0
            .whole(async move { inner.create_container(&sandbox, config).await })
            .await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let (inner, id) = (self.0.clone(), id.clone());
        self.0
            .whole(async move { inner.start_container(&id).await })
            .await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.0.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.0.remove_container(id).await
    }

    async fn list_containers(&self) -> Result<Vec<Container>> {
        self.0.containers().await
    }

    async fn container_status(&self, id: &ContainerId) -> Result<Container> {
        self.0.container(id).await
    }

    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<Session> {
        self.0.exec(id, config).await
    }

    async fn attach(&self, id: &ContainerId, wanted: Wanted) -> Result<Session> {
        self.0.clone().attach(id, wanted).await
    }

    async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<Option<PortConnection>> {
        self.0.connect(sandbox, port).await.map(Some)
    }

    async fn update_container_resources(&self, id: &ContainerId, r: Resources) -> Result<()> {
        self.0.update_container(id, &r).await
    }

    async fn update_pod_sandbox_resources(&self, id: &SandboxId, r: Resources) -> Result<()> {
        self.0.resize_sandbox(id, r).await
    }

    async fn limit_pods(&self, root: &Path, limits: PodsLimits) -> Result<()> {
        self.0.limit_pods(root, limits).await
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>> {
        self.0.stats().await
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<DiskUsage> {
        self.0.writable_layer(id).await
    }

    async fn listeners(&self) -> Result<Vec<Listener>> {
        // Where a container listens is known to the kernel alone, and dialled as it is.
        Ok(Vec::new())
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        ledger::stream(&self.0.events)
    }

    async fn detach(&self) {
        self.0.detached.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// The folder of a sandbox's files.
fn sandbox_folder(state_dir: &Path, config: &PodSandboxConfig) -> PathBuf {
    let name = format!("{}_{}", config.pod.uid, config.attempt);
    state_dir.join("sandboxes").join(name)
}
