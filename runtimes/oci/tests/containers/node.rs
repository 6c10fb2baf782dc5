//! A node of containers, and images of busybox for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coracle_images::{
    ContentStore, Digest, ImageConfig, ImageKind, ImageLayer, StoredImage, media_types,
};
use coracle_oci::{OciConfig, OciRuntime};
use coracle_runtime::identity::Identity;
use coracle_runtime::{
    ContainerConfig, Exit, Image, Network, PodIdentity, PodSandboxConfig, Resources,
    RuntimeService, SandboxId,
};
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

#[path = "pod.rs"]
mod pod;

use pod::BUSYBOX;
pub(crate) use pod::{DEADLINE, Pod, archive, exit, finish};

/// What tests ask of the processor: who asks for nothing gets nothing where others are busy.
pub(crate) fn request() -> Resources {
    Resources {
        cpu_request_millis: Some(1000),
        ..Resources::default()
    }
}

/// Why containers cannot be run here; none if they can.
pub(crate) fn lacks() -> Option<String> {
    if let Some(lack) = coracle_oci::lacks() {
        return Some(lack);
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("no {BUSYBOX}: install busybox-static"));
    }
    let linked = Command::new("ldd").arg(BUSYBOX).output();
    if linked.is_ok_and(|output| output.status.success()) {
        return Some(format!("{BUSYBOX} needs libraries: install busybox-static"));
    }
    None
}

/// Where hierarchies of control groups may be mounted.
pub(crate) fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&root).into_iter().flatten().flatten();
    let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
    [root].into_iter().chain(below)
}

/// What a run of tests must leave nothing of. What was there before is somebody else's, and may go.
#[derive(Debug)]
pub(crate) struct Machine {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    interfaces: BTreeSet<PathBuf>,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let list = |path: &Path| -> BTreeSet<PathBuf> {
            fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .collect()
        };
        let ours = hierarchies().map(|root| root.join("coracle"));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        // As the Pods of this process are known by.
        let id = std::process::id();
        let marks = [format!("podtest-{id}-"), format!("pod{id:08x}-")];
        let own = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            marks.iter().any(|mark| name.starts_with(mark))
        };
        Self {
            mounts: { mounts.lines().map(str::to_owned) }.collect(),
            cgroups: ours.flat_map(|path| list(&path)).filter(own).collect(),
            interfaces: list(Path::new("/sys/class/net")),
        }
    }

    /// What has come since.
    pub(crate) fn added(&self) -> Vec<String> {
        fn new<T: Ord + std::fmt::Debug>(after: &BTreeSet<T>, before: &BTreeSet<T>) -> Vec<String> {
            after
                .difference(before)
                .map(|it| format!("{it:?}"))
                .collect()
        }
        let now = Self::now();
        [
            new(&now.mounts, &self.mounts),
            new(&now.cgroups, &self.cgroups),
            new(&now.interfaces, &self.interfaces),
        ]
        .concat()
    }
}

/// A node with a runtime.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) content: Arc<ContentStore>,
    pub(crate) runtime: OciRuntime,
    config: OciConfig,
    /// Busybox, whose container runs `sh` until it is told what else.
    pub(crate) busybox: Image,
    pods: AtomicU32,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::patient(None).await
    }

    pub(crate) async fn patient(ephemeral: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let content = ContentStore::open(folder.path().join("images")).unwrap();
        let busybox = image(
            &content,
            "busybox",
            &[archive(&[])],
            ImageConfig {
                cmd: vec!["sh".into()],
                ..ImageConfig::default()
            },
        );
        let config = OciConfig {
            state_dir: folder.path().join("oci"),
            content: content.clone(),
            exe: std::env::current_exe().unwrap(),
            ephemeral,
        };
        let runtime = OciRuntime::new(config.clone()).await.unwrap();
        Self {
            folder,
            content,
            runtime,
            config,
            busybox,
            pods: AtomicU32::new(0),
        }
    }

    /// The next agent.
    pub(crate) async fn restart(&self) -> OciRuntime {
        OciRuntime::new(self.config.clone()).await.unwrap()
    }

    pub(crate) fn sandbox_config(&self) -> PodSandboxConfig {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let uid = format!(
            "test-{}-{}-{number}",
            std::process::id(),
            self.folder.path().display()
        );
        PodSandboxConfig {
            pod: PodIdentity {
                namespace: "test".into(),
                name: format!("pod-{number}"),
                uid: uid.replace(['/', '.'], "-"),
            },
            hostname: format!("pod-{number}"),
            ips: vec![[10, 42, 0, number as u8].into()],
            network_snapshot: self.folder.path().join("network.json"),
            log_directory: self.folder.path().join(format!("logs/{number}")),
            resources: request(),
            ..Default::default()
        }
    }

    pub(crate) fn container_config(&self, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: "main".into(),
            image_digest: self.busybox.digest.clone(),
            image: self.busybox.reference.clone(),
            command: ["sh", "-c", script].map(str::to_owned).into(),
            resources: request(),
            log_path: "main/0.log".into(),
            ..Default::default()
        }
    }

    pub(crate) async fn sandbox(&self) -> (SandboxId, PodSandboxConfig) {
        let config = self.sandbox_config();
        let id = self.runtime.run_pod_sandbox(config.clone()).await.unwrap();
        (id, config)
    }

    pub(crate) async fn create(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Pod {
        self.runtime.ensure_image(&self.busybox).await.unwrap();
        let (sandbox, config) = self.sandbox().await;
        let mut container = self.container_config(script);
        edit(&mut container);
        let log = config.log_directory.join(&container.log_path);
        let container = self
            .runtime
            .create_container(&sandbox, container)
            .await
            .unwrap();
        Pod {
            sandbox,
            container,
            log,
        }
    }

    /// Starts a container in a sandbox that is there.
    pub(crate) async fn start_in(
        &self,
        sandbox: &SandboxId,
        config: &PodSandboxConfig,
        container: ContainerConfig,
    ) -> Pod {
        let log = config.log_directory.join(&container.log_path);
        let created = self.runtime.create_container(sandbox, container).await;
        let container = created.unwrap();
        self.runtime.start_container(&container).await.unwrap();
        Pod {
            sandbox: sandbox.clone(),
            container,
            log,
        }
    }

    /// Starts a container of busybox that runs a script.
    pub(crate) async fn start(&self, script: &str, edit: impl FnOnce(&mut ContainerConfig)) -> Pod {
        let pod = self.create(script, edit).await;
        self.runtime.start_container(&pod.container).await.unwrap();
        pod
    }

    /// Runs a script to its end: how it ended, and what it wrote.
    pub(crate) async fn run(
        &self,
        script: &str,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> (Exit, String) {
        let pod = self.start(script, edit).await;
        let exit = exit(&self.runtime, &pod.container).await;
        (exit, pod.output())
    }

    /// Runs a further process to its end: its code, and what it wrote.
    pub(crate) async fn exec(&self, pod: &Pod, command: &[&str]) -> (i32, String) {
        pod::exec(&self.runtime, &pod.container, command).await
    }

    /// The cgroups of a sandbox's Pod, in all hierarchies.
    pub(crate) async fn cgroups(&self, sandbox: &SandboxId) -> Vec<PathBuf> {
        let sandboxes = self.runtime.list_pod_sandboxes().await.unwrap();
        let found = sandboxes.iter().find(|known| known.id == *sandbox);
        let name = format!("coracle/pod{}", found.unwrap().config.pod.uid);
        let paths = hierarchies().map(|root| root.join(&name));
        paths.filter(|path| path.exists()).collect()
    }

    /// A folder of the state of a sandbox.
    pub(crate) fn shim_folder(&self, sandbox: &SandboxId) -> PathBuf {
        self.config
            .state_dir
            .join("sandboxes")
            .join(&sandbox.0)
            .join("shim")
    }
}

impl Drop for Node {
    /// Ends what is left, also after a failure.
    fn drop(&mut self) {
        let sandboxes = self.config.state_dir.join("sandboxes");
        for sandbox in fs::read_dir(sandboxes).into_iter().flatten().flatten() {
            if let Ok(Some((_, pidfd))) = Identity::living(&sandbox.path().join("shim")) {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
        }
        // What the shims kept ends with them, but not at once.
        let began = Instant::now();
        let prefix = format!("podtest-{}-", std::process::id());
        let own = self
            .folder
            .path()
            .display()
            .to_string()
            .replace(['/', '.'], "-");
        while began.elapsed() < DEADLINE {
            let mut left = false;
            for root in hierarchies() {
                let pods = root.join("coracle");
                for pod in fs::read_dir(&pods).into_iter().flatten().flatten() {
                    let name = pod.file_name().to_string_lossy().into_owned();
                    if !name.starts_with(&prefix) || !name.contains(&own) {
                        continue;
                    }
                    for container in fs::read_dir(pod.path()).into_iter().flatten().flatten() {
                        // A change of AppArmor's profile takes the signal that the kernel sends when
                        // a parent dies.
                        let processes = fs::read_to_string(container.path().join("cgroup.procs"));
                        for pid in processes.iter().flat_map(|all| all.lines()) {
                            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                                let _ = kill_process(pid, Signal::KILL);
                            }
                        }
                        let _ = fs::remove_dir(container.path());
                    }
                    left |= fs::remove_dir(pod.path()).is_err();
                }
                let _ = fs::remove_dir(pods);
            }
            if !left {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Puts an image into the store, as a pull would.
pub(crate) fn image(
    content: &ContentStore,
    name: &str,
    archives: &[Vec<u8>],
    config: ImageConfig,
) -> Image {
    let manifest = content.put(name.as_bytes()).unwrap();
    let layers: Vec<ImageLayer> = archives
        .iter()
        .map(|bytes| ImageLayer {
            digest: content.put(bytes).unwrap(),
            media_type: media_types::OCI_LAYER.into(),
            diff_id: Digest::of(bytes),
        })
        .collect();
    let blobs = layers.iter().map(|layer| layer.digest.clone());
    let stored = content.record(StoredImage {
        digest: manifest.to_string(),
        blobs: blobs.chain([manifest]).collect(),
        kind: ImageKind::Container {
            layers: Some(layers),
        },
        config,
        size_bytes: 1,
        references: vec![format!("registry.test/{name}:v1")],
        pulled: Default::default(),
    });
    Image {
        reference: format!("registry.test/{name}:v1"),
        digest: stored.unwrap().digest,
    }
}

/// Network of the machine, for a sandbox.
pub(crate) fn host_network(config: &mut PodSandboxConfig) {
    config.namespaces.network = Network::Host;
}
