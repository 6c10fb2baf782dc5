//! A node of one runtime in a temporary folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use coracle_images::{
    ContentStore, Digest, ImageConfig, ImageKind, ImageLayer, StoredImage, media_types,
};
use coracle_runtime::{
    ContainerConfig, ContainerId, ContainerState, Error, Exit, Image, PodIdentity,
    PodSandboxConfig, RuntimeService, SandboxId,
};
use coracle_wasm::{WasmConfig, WasmRuntime};
use futures::StreamExt;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::task::JoinHandle;

use crate::network::Snapshot;

/// How long a process of an impatient node waits for an agent.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(500);
/// The name under which this program is executed for guests that do not wait a minute.
pub(crate) const IMPATIENT: &str = "impatient";

/// Makes an ephemeral process wait no longer than [`IMPATIENCE`].
pub(crate) fn hurry(args: &mut [std::ffi::OsString]) {
    for arg in args {
        if arg
            .to_str()
            .is_some_and(|arg| arg.starts_with("--ephemeral="))
        {
            *arg = format!("--ephemeral={}", IMPATIENCE.as_millis()).into();
        }
    }
}

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    /// What the next runtime is opened with.
    pub(crate) config: WasmConfig,
    /// Where Pods are made.
    pub(crate) namespace: String,
    /// In which `folder` lies.
    _above: tempfile::TempDir,
    pub(crate) content: Arc<ContentStore>,
    pub(crate) runtime: WasmRuntime,
    pods: AtomicU16,
}

/// A Pod with one container that was started.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) sandbox: SandboxId,
    pub(crate) container: ContainerId,
    pub(crate) log: PathBuf,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// A node whose guest processes wait for an agent no longer than [`IMPATIENCE`].
    pub(crate) async fn impatient() -> Self {
        let edit = |config: &mut WasmConfig| {
            let exe = config.state_dir.with_file_name(IMPATIENT);
            std::os::unix::fs::symlink(&config.exe, &exe).unwrap();
            config.exe = exe;
        };
        Self::with(edit).await
    }

    pub(crate) async fn with(edit: impl FnOnce(&mut WasmConfig)) -> Self {
        // Nobody else may enter this one; guests with users of their own do not need to.
        let above = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir_in(&above).unwrap();
        set_mode(folder.path(), 0o711);
        let content = ContentStore::open(folder.path().join("content")).unwrap();
        let mut config = WasmConfig {
            state_dir: folder.path().join("state"),
            cache_dir: folder.path().join("cache"),
            content: content.clone(),
            exe: std::env::current_exe().unwrap(),
            ephemeral: true,
            network_namespace: None,
            guest_users: None,
        };
        edit(&mut config);
        let runtime = WasmRuntime::new(config.clone()).await.unwrap();
        Self {
            folder,
            config,
            namespace: "tests".into(),
            _above: above,
            content,
            runtime,
            pods: AtomicU16::new(1),
        }
    }

    /// The agent ends and the next one comes.
    pub(crate) async fn restart(&mut self) {
        self.runtime.detach().await;
        self.runtime = WasmRuntime::new(self.config.clone()).await.unwrap();
    }

    /// Puts a module into the content store.
    pub(crate) fn image(&self, module: &[u8]) -> Image {
        image(&self.content, module)
    }

    /// The same, with layers by their titles.
    pub(crate) fn image_with(&self, module: &[u8], layers: &[(&str, &[u8])]) -> Image {
        let layer = |(title, bytes): &(&str, &[u8])| {
            ((*title).to_owned(), self.content.put(bytes).unwrap())
        };
        record(&self.content, module, layers.iter().map(layer).collect())
    }

    /// Puts an image of one layer into the content store, with these files and links by their paths.
    pub(crate) fn image_of_files(&self, files: &[(&str, &str)], links: &[(&str, &str)]) -> Image {
        let mut archive = tar::Builder::new(Vec::new());
        let header = |kind, size: usize| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(size as u64);
            header
        };
        for (path, content) in files {
            let mut header = header(tar::EntryType::Regular, content.len());
            let content = content.as_bytes();
            archive.append_data(&mut header, path, content).unwrap();
        }
        for (path, target) in links {
            let mut header = header(tar::EntryType::Symlink, 0);
            archive.append_link(&mut header, path, target).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let layer = self.content.put(&archive).unwrap();
        let digest = Digest::of(layer.to_string().as_bytes()).to_string();
        let stored = StoredImage {
            digest: digest.clone(),
            kind: ImageKind::Container {
                layers: Some(vec![ImageLayer {
                    digest: layer.clone(),
                    media_type: media_types::OCI_LAYER.into(),
                    diff_id: layer.clone(),
                }]),
            },
            config: ImageConfig::default(),
            size_bytes: 1,
            references: Vec::new(),
            blobs: vec![layer],
            pulled: Default::default(),
        };
        self.content.record(stored).unwrap();
        Image {
            reference: "registry.test/files:v1".into(),
            digest,
        }
    }

    /// A sample of the repository.
    pub(crate) fn sample(&self, path: &str) -> Image {
        let samples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../wasm-samples");
        self.image(&std::fs::read(samples.join(path)).unwrap())
    }

    /// A program of the tests.
    pub(crate) fn program(&self, name: &str) -> Image {
        let programs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
        self.image(&std::fs::read(programs.join(name)).unwrap())
    }

    pub(crate) fn publish(&self, snapshot: &Snapshot) {
        let path = self.folder.path().join("network.json");
        std::fs::write(path, serde_json::to_vec(snapshot).unwrap()).unwrap();
    }

    pub(crate) async fn create(
        &self,
        image: &Image,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let logs = self.folder.path().join(format!("logs/{number}"));
        if let Some(user) = self.runtime.guest_user(&self.namespace).unwrap() {
            std::fs::create_dir_all(logs.join("main")).unwrap();
            std::os::unix::fs::chown(logs.join("main"), Some(user.uid), Some(user.gid)).unwrap();
        }
        let sandbox = PodSandboxConfig {
            pod: PodIdentity {
                namespace: self.namespace.clone(),
                name: format!("pod-{number}"),
                uid: format!("uid-{number}"),
            },
            hostname: format!("pod-{number}"),
            ips: vec![[10, 42, (number >> 8) as u8, number as u8].into()],
            network_snapshot: self.folder.path().join("network.json"),
            log_directory: logs.clone(),
            ..Default::default()
        };
        let sandbox = self.runtime.run_pod_sandbox(sandbox).await.unwrap();
        let mut config = ContainerConfig {
            name: "main".into(),
            image_digest: image.digest.clone(),
            image: image.reference.clone(),
            log_path: "main/0.log".into(),
            ..Default::default()
        };
        edit(&mut config);
        let container = self.runtime.create_container(&sandbox, config).await;
        Pod {
            container: container.unwrap(),
            sandbox,
            log: logs.join("main/0.log"),
        }
    }

    pub(crate) async fn start(
        &self,
        image: &Image,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Pod {
        self.runtime.ensure_image(image).await.unwrap();
        let pod = self.create(image, edit).await;
        self.runtime.start_container(&pod.container).await.unwrap();
        pod
    }

    /// Runs a guest to its end.
    pub(crate) async fn run(
        &self,
        image: &Image,
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> (Exit, Pod) {
        let pod = self.start(image, edit).await;
        (self.exit(&pod).await, pod)
    }

    pub(crate) async fn exit(&self, pod: &Pod) -> Exit {
        let mut events = self.runtime.events();
        let wait = async {
            loop {
                if let ContainerState::Exited(exit) = self.state(pod).await {
                    return exit;
                }
                events.next().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap()
    }

    pub(crate) async fn state(&self, pod: &Pod) -> ContainerState {
        let status = self.runtime.container_status(&pod.container).await;
        status.unwrap().state
    }

    /// The socket that serves a port of a Pod.
    pub(crate) async fn listener(&self, pod: &Pod) -> (SocketAddr, SocketAddr) {
        let mut events = self.runtime.events();
        let wait = async {
            loop {
                let listeners = self.runtime.listeners().await.unwrap();
                let found = listeners.iter().find(|of| of.sandbox == pod.sandbox);
                if let Some(found) = found {
                    return (found.address, found.actual);
                }
                events.next().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap()
    }

    pub(crate) async fn refusal(&self, image: &Image) -> String {
        match self.runtime.ensure_image(image).await {
            Err(Error::InvalidImage(message)) => message,
            other => panic!("expected an invalid image, got {other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever a failed test left running goes with its folder.
        let state = self.folder.path().join("state");
        for folder in ["containers", "hosts"] {
            let entries = std::fs::read_dir(state.join(folder)).into_iter().flatten();
            for entry in entries.flatten() {
                for record in ["process.json", "runner/process.json"] {
                    kill(&entry.path().join(record));
                }
            }
        }
    }
}

fn pid(record: &std::path::Path) -> Option<Pid> {
    let identity: serde_json::Value = serde_json::from_slice(&std::fs::read(record).ok()?).unwrap();
    Pid::from_raw(identity["pid"].as_i64().unwrap() as i32)
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Kills the process of a record, if it lives.
pub(crate) fn kill(record: &Path) -> bool {
    pid(record).is_some_and(|pid| rustix::process::kill_process(pid, Signal::KILL).is_ok())
}

/// Ends with the process of a record: true, or false after [`DEADLINE`].
pub(crate) fn end_of(record: &Path) -> JoinHandle<bool> {
    let pidfd = pidfd_open(pid(record).unwrap(), PidfdFlags::empty()).unwrap();
    tokio::task::spawn_blocking(move || {
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let deadline = DEADLINE.try_into().unwrap();
        poll(&mut ended, Some(&deadline)).unwrap() == 1
    })
}

pub(crate) fn image(content: &ContentStore, module: &[u8]) -> Image {
    record(content, module, BTreeMap::new())
}

fn record(content: &ContentStore, module: &[u8], layers: BTreeMap<String, Digest>) -> Image {
    let module = content.put(module).unwrap();
    // The digest of a manifest is another one than that of its layer.
    let digest = Digest::of(module.to_string().as_bytes()).to_string();
    let stored = StoredImage {
        digest: digest.clone(),
        kind: ImageKind::Wasm {
            module: module.clone(),
            layers: layers.clone(),
        },
        config: ImageConfig::default(),
        size_bytes: 1,
        references: Vec::new(),
        blobs: layers.into_values().chain([module]).collect(),
        pulled: Default::default(),
    };
    content.record(stored).unwrap();
    Image {
        reference: "registry.test/guest:v1".into(),
        digest,
    }
}

/// The texts of a log's entries, each with its stream and tag.
pub(crate) fn entries(log: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let entry = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    text.lines().map(entry).collect()
}
