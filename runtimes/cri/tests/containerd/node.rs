//! A node over a daemon, and Pods on it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use coracle_cri::{CriConfig, CriRuntime};
use coracle_runtime::{ContainerConfig, Image, PodIdentity, PodSandboxConfig, RuntimeService};
use serde_json::json;

use crate::daemon::{self, Daemon};
use crate::registry::Registry;

#[path = "../../../oci/tests/containers/pod.rs"]
mod pod;

pub(crate) use pod::{DEADLINE, Pod, archive, exit, finish};

/// Counts nodes of this process.
static NODES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    pub(crate) runtime: CriRuntime,
    pub(crate) registry: Registry,
    /// Busybox, whose container runs what it is told.
    pub(crate) busybox: Image,
    daemon: Option<Daemon>,
    number: u32,
    pods: AtomicU32,
    /// Goes after the daemon.
    folder: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&daemon::folders())
            .tempdir();
        let folder = folder.unwrap();
        let registry = Registry::start().await;
        let sleeps = json!({"Entrypoint": ["/bin/sleep", "1000000"]});
        let pause = registry.image("pause", &archive(&[]), sleeps);
        let busybox = registry.image("busybox", &archive(&[]), json!({"Cmd": ["sh"]}));
        let daemon = Daemon::start(folder.path(), &pause.reference, true);
        let runtime = CriRuntime::new(config(folder.path(), &daemon)).await;
        Self {
            runtime: runtime.unwrap(),
            registry,
            busybox,
            daemon: Some(daemon),
            number: NODES.fetch_add(1, Ordering::Relaxed),
            pods: AtomicU32::new(0),
            folder,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> CriConfig {
        config(self.path(), self.daemon.as_ref().unwrap())
    }

    /// The next agent.
    pub(crate) async fn restart(&self) -> CriRuntime {
        CriRuntime::new(self.config()).await.unwrap()
    }

    /// Stops the daemon, and starts the next one.
    pub(crate) fn restart_daemon(&mut self) {
        self.daemon.take().unwrap().stop();
        let pause = format!("{}/pause:v1", self.registry.address);
        self.daemon = Some(Daemon::start(self.path(), &pause, true));
    }

    pub(crate) fn sandbox_config(&self) -> PodSandboxConfig {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let (process, node) = (std::process::id(), self.number);
        PodSandboxConfig {
            pod: PodIdentity {
                namespace: "test".into(),
                name: format!("pod-{number}"),
                uid: format!("{process:08x}-{node}-{number}"),
            },
            hostname: format!("pod-{number}"),
            ips: vec![[10, 42, 0, number as u8].into()],
            log_directory: self.path().join(format!("logs/{number}")),
            ..Default::default()
        }
    }

    pub(crate) fn container_config(&self, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: "main".into(),
            image_digest: self.busybox.digest.clone(),
            image: self.busybox.reference.clone(),
            command: ["sh", "-c", script].map(str::to_owned).into(),
            log_path: "main/0.log".into(),
            ..Default::default()
        }
    }

    /// Runs a container in a Pod of its own.
    pub(crate) async fn run(&self, sandbox: PodSandboxConfig, config: ContainerConfig) -> Pod {
        let log = sandbox.log_directory.join(&config.log_path);
        let runtime = &self.runtime;
        runtime.ensure_image(&self.busybox).await.unwrap();
        let sandbox = runtime.run_pod_sandbox(sandbox).await.unwrap();
        let created = runtime.create_container(&sandbox, config).await;
        let container = created.unwrap();
        runtime.start_container(&container).await.unwrap();
        Pod {
            sandbox,
            container,
            log,
        }
    }

    /// Runs a script in a Pod of its own.
    pub(crate) async fn script(&self, script: &str) -> Pod {
        self.run(self.sandbox_config(), self.container_config(script))
            .await
    }

    /// Runs a command in a container: its exit code and what it wrote.
    pub(crate) async fn exec(&self, pod: &Pod, command: &[&str]) -> (i32, String) {
        pod::exec(&self.runtime, &pod.container, command).await
    }

    pub(crate) async fn remove(&self, pod: &Pod) {
        self.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    }

    /// Ends the node.
    pub(crate) async fn end(self) {
        self.runtime.detach().await;
        self.runtime.leave().unwrap();
    }
}

fn config(folder: &Path, daemon: &Daemon) -> CriConfig {
    CriConfig {
        endpoint: daemon.endpoint(),
        state_dir: folder.join("node"),
        exe: std::env::current_exe().unwrap(),
    }
}
