//! The verbs of a runtime.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::time::Instant;

use crate::Resources;
use crate::images::{Image, ImageSource, ImageUser, OwnImage};
use crate::streaming::{ExecConfig, PortConnection, Session, Wanted};
use crate::types::*;
use crate::usage::DiskUsage;

/// Why a runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such sandbox, container or image.
    #[error("{kind} {id} is not known to runtime {runtime}")]
    NotFound {
        /// `sandbox`, `container` or `image`.
        kind: &'static str,
        /// What was asked for.
        id: String,
        /// Name of the runtime.
        runtime: &'static str,
    },
    /// The image cannot run here; the message says why and what would help. It is final for
    /// this image: a retry gives the same.
    #[error("{0}")]
    InvalidImage(String),
    /// The configuration asks for what this runtime cannot give.
    #[error("{0}")]
    InvalidConfig(String),
    /// The container could not be started.
    #[error("{0}")]
    Start(String),
    /// The verb does not fit the state that the object is in.
    #[error("{0}")]
    State(String),
    /// A process of the runtime does not answer, or a system call failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// An I/O error with what was being done.
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            context: context.into(),
            source,
        }
    }
}

/// What a verb returns.
pub type Result<T> = std::result::Result<T, Error>;

/// When a grace period is over that begins now. It is the user's to choose, and any number of
/// seconds; as there is an end of time, none lasts longer than 30 years.
pub fn end_of_grace(grace: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(30 * 365 * 86400);
    Instant::now() + grace.min(LONGEST)
}

/// A runtime of the node. Verbs are idempotent where the CRI asks it: stopping what is stopped
/// and removing what is gone succeed. Every implementation passes [`crate::conformance`].
#[async_trait]
pub trait RuntimeService: Send + Sync {
    /// Name of the runtime, also the default RuntimeClass handler: `wasm`, `oci`.
    fn name(&self) -> &'static str;

    /// Version of the engine, for `status.nodeInfo.containerRuntimeVersion`.
    fn version(&self) -> String;

    /// Handlers that a RuntimeClass may name for it.
    fn handlers(&self) -> Vec<String> {
        vec![self.name().to_owned()]
    }

    /// Whether it can leave out the groups that a user has in an image, and tells as whom containers
    /// began ([`crate::Security::strict_groups`], [`crate::ContainerUser`]). Guests have no groups of
    /// an image's.
    fn strict_groups(&self) -> bool {
        true
    }

    /// Whether it gives Pods users of their own (`hostUsers: false`), where the kernel can.
    fn gives_users(&self) -> bool {
        false
    }

    /// Whether an image has to be pulled by the runtime itself, and is not there yet. Others find
    /// what was pulled in the node's content store.
    async fn must_pull(&self, digest: &str) -> Result<bool> {
        let _ = digest;
        Ok(false)
    }

    /// The image of a Pod's reference that a runtime has which pulls for itself, though the node's
    /// content store know nothing of it.
    async fn own_image(&self, reference: &str) -> Result<Option<OwnImage>> {
        let _ = reference;
        Ok(None)
    }

    /// Pulls an image from the first of the sources that gives it.
    async fn pull_image(&self, image: &Image, sources: &[ImageSource]) -> Result<()> {
        let _ = sources;
        self.ensure_image(image).await
    }

    /// Where a runtime that pulls for itself keeps its images.
    fn images_folder(&self) -> Option<PathBuf> {
        None
    }

    /// Makes a pulled image ready to start: compiles or unpacks it. Cheap if that was done.
    async fn ensure_image(&self, image: &Image) -> Result<()>;

    /// Makes a pulled image ready to be a volume (`volumes[].image`). Cheap if that was done.
    async fn ensure_volume(&self, image: &Image) -> Result<()> {
        self.ensure_image(image).await
    }

    /// As whom an image runs that is ready to start. None: it has no users, as a guest's, which runs
    /// as a user of the node's choice that is never root, whatever its image says.
    async fn image_user(&self, image: &Image) -> Result<Option<ImageUser>> {
        let _ = image;
        Ok(None)
    }

    /// Forgets what was made of an image.
    async fn remove_image(&self, digest: &str) -> Result<()>;

    /// Makes the sandbox of a Pod.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId>;

    /// Ends all containers of the sandbox and gives its network back.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// Removes a sandbox and all that belongs to it; stops it first if need be.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()>;

    /// All sandboxes, also those adopted after a restart of the agent.
    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>>;

    /// Makes a container in a sandbox. It does not run yet.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId>;

    /// Starts a container; returns when it runs (an HTTP guest: when it is served after one
    /// trial instantiation), or with [`Error::Start`].
    async fn start_container(&self, id: &ContainerId) -> Result<()>;

    /// Asks the container to end, and makes it end when the grace period is over. Returns when
    /// it has ended.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()>;

    /// Removes an ended container; one that runs is killed first.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;

    /// All containers, also the ended ones that were not removed.
    async fn list_containers(&self) -> Result<Vec<Container>>;

    /// One container.
    async fn container_status(&self, id: &ContainerId) -> Result<Container>;

    /// Runs a further process in a running container. Why it was never run is told by the end of
    /// the session.
    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<Session>;

    /// Joins the streams of a running container: what it writes from now on, and its input if it
    /// was made with one.
    async fn attach(&self, id: &ContainerId, wanted: Wanted) -> Result<Session>;

    /// Connects to a TCP port of a Pod as from within it. `None`: the runtime's Pods are dialled
    /// at their addresses, where [`Self::listeners`] says.
    async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<Option<PortConnection>> {
        let _ = (sandbox, port);
        Ok(None)
    }

    /// Changes limits of a running container.
    async fn update_container_resources(&self, id: &ContainerId, r: Resources) -> Result<()>;

    /// Changes what all containers of a sandbox may use together, where that is limited at all.
    async fn update_pod_sandbox_resources(&self, id: &SandboxId, r: Resources) -> Result<()> {
        let _ = (id, r);
        Ok(())
    }

    /// Bounds what is in the control group above all Pods', from now on, where the runtime has
    /// control groups.
    async fn limit_pods(&self, root: &Path, limits: PodsLimits) -> Result<()> {
        let _ = (root, limits);
        Ok(())
    }

    /// Use of every running container.
    async fn stats(&self) -> Result<Vec<ContainerStats>>;

    /// What a container, run it or not, has written to a file system of its own, or beside its
    /// volumes.
    /// It is measured now, which takes the longer the more there is.
    async fn writable_layer(&self, id: &ContainerId) -> Result<DiskUsage> {
        let _ = id;
        Ok(DiskUsage::default())
    }

    /// Sockets on which guests listen now.
    async fn listeners(&self) -> Result<Vec<Listener>>;

    /// The user as which guests of a namespace run, where it is not the agent's own: the folders
    /// that a Pod's guests read and write must let that user in. It stays the same for as long as
    /// the node knows the namespace.
    fn guest_user(&self, namespace: &str) -> Result<Option<GuestUser>> {
        let _ = namespace;
        Ok(None)
    }

    /// Changes from now on. The stream is bounded; see [`RuntimeEvent`] for what a loss means.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;

    /// Lets go of everything without ending it: the agent stops, Pods go on and are adopted by
    /// the next one.
    async fn detach(&self);
}
