//! A node of fakes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_images::{Access, PullSecret, RegistryAuth};
use coracle_runtime::apparmor::AppArmorPlaces;
use coracle_runtime::fake::FakeRuntime;
use coracle_runtime::{
    Attachment, IdRange, Image, ImageSource, Listener, LogLimits, PodIdentity, Protocol,
    RuntimeService,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::FakeApi;
use crate::{
    Attached, ClusterDns, EvictionPolicy, Fetched, HostPort, ImageError, ImageGcPolicy, Images,
    Kind, Kubelet, KubeletApi, KubeletConfig, ListedImage, LocalImage, LogindPlaces, NodePolicy,
    Origin, PodNetwork, PullProgress, Reserved, Use, UserPlaces,
};

/// With which what is private is pulled.
pub(super) const PASSWORD: &str = "p";

/// Images that exist are those whose name does not begin with `missing`; those that begin
/// with `container` are no wasm, those that begin with `slow` come when they are let, and those that
/// begin with `private` take the password [`PASSWORD`].
#[derive(Default)]
pub(super) struct FakeImages {
    /// With whose credentials images were pulled; of what was put there by others nothing is known.
    pub(super) pulled: Mutex<BTreeMap<String, Access>>,
    pub(super) present: Mutex<BTreeSet<String>>,
    pub(super) pulls: Mutex<Vec<(String, usize)>>,
    /// What each was pulled for.
    pub(super) uses: Mutex<Vec<(String, Use)>>,
    /// Lets the pull of what is slow end.
    pub(super) released: Notify,
}

fn local(reference: &str, pulled: Option<&Access>) -> LocalImage {
    LocalImage {
        origin: match pulled {
            None => Origin::Preloaded,
            Some(access) => Origin::Pulled(Some(access.clone())),
        },
        image: Image {
            reference: reference.to_owned(),
            digest: format!("sha256:{reference}"),
        },
        resolved: format!("registry/{reference}@sha256:00"),
        kind: match reference.starts_with("container") {
            true => Kind::Container,
            false => Kind::Wasm,
        },
        size_bytes: 1000,
    }
}

#[async_trait]
impl Images for FakeImages {
    async fn local(&self, reference: &str, _: Use) -> Result<Option<LocalImage>, ImageError> {
        if reference.contains(' ') {
            return Err(ImageError {
                reason: "InvalidImageName",
                message: "bad name".to_owned(),
            });
        }
        let reference = reference.trim_start_matches("sha256:");
        let present = self.present.lock().contains(reference);
        let pulled = self.pulled.lock();
        Ok(present.then(|| local(reference, pulled.get(reference))))
    }

    async fn pull(
        &self,
        reference: &str,
        of: Use,
        auths: &[RegistryAuth],
        progress: &PullProgress,
    ) -> Result<LocalImage, ImageError> {
        self.pulls.lock().push((reference.to_owned(), auths.len()));
        self.uses.lock().push((reference.to_owned(), of));
        progress.set(Fetched {
            done_bytes: 120 << 20,
            total_bytes: 300 << 20,
        });
        if reference.starts_with("slow") {
            self.released.notified().await;
        }
        if reference.starts_with("missing") {
            return Err(ImageError {
                reason: "ErrImagePull",
                message: "not in the registry".to_owned(),
            });
        }
        let access = match reference.starts_with("private") {
            false => Access::Everybody,
            true => {
                let fits = auths.iter().find(|auth| auth.password == PASSWORD);
                let used = fits.ok_or_else(|| ImageError {
                    reason: "ErrImagePull",
                    message: "access denied".to_owned(),
                })?;
                let secret = used.pull_secret();
                secret.map_or(Access::Everybody, |secret| Access::Secrets(vec![secret]))
            }
        };
        self.present.lock().insert(reference.to_owned());
        let mut pulled = self.pulled.lock();
        pulled.insert(reference.to_owned(), access);
        Ok(local(reference, pulled.get(reference)))
    }

    async fn admit(&self, image: &LocalImage, secret: PullSecret) -> std::io::Result<()> {
        let mut pulled = self.pulled.lock();
        if let Some(Access::Secrets(known)) = pulled.get_mut(&image.image.reference) {
            known.push(secret);
        }
        Ok(())
    }

    fn sources(&self, _: &LocalImage, _: &[RegistryAuth]) -> Vec<ImageSource> {
        Vec::new()
    }

    fn list(&self) -> Vec<ListedImage> {
        let present = self.present.lock();
        let listed = present.iter().map(|name| ListedImage {
            digest: local(name, None).image.digest,
            references: vec![name.clone()],
            size_bytes: 1000,
        });
        listed.collect()
    }

    fn folder(&self) -> PathBuf {
        // Its disk is that of whoever runs the tests.
        PathBuf::from("/")
    }

    async fn remove(&self, digest: &str) -> std::io::Result<u64> {
        let name = digest.trim_start_matches("sha256:");
        match self.present.lock().remove(name) {
            true => Ok(1000),
            false => Ok(0),
        }
    }

    async fn remove_left_over(&self, _: Duration) -> std::io::Result<u64> {
        Ok(0)
    }
}

#[derive(Default)]
pub(super) struct FakeNetwork {
    given: Mutex<BTreeMap<String, IpAddr>>,
    next: Mutex<u8>,
    pub(super) host_ports: Mutex<BTreeMap<String, Vec<HostPort>>>,
    pub(super) users: Mutex<BTreeMap<String, Option<IdRange>>>,
    pub(super) listeners: Mutex<Vec<Listener>>,
}

impl FakeNetwork {
    pub(super) fn given(&self) -> usize {
        self.given.lock().len()
    }
}

#[async_trait]
impl PodNetwork for FakeNetwork {
    async fn attach(
        &self,
        pod: &PodIdentity,
        wanted: Attachment,
        ports: &[HostPort],
        users: Option<IdRange>,
    ) -> std::io::Result<Attached> {
        self.users.lock().insert(pod.uid.clone(), users);
        let mut held = self.host_ports.lock();
        held.insert(pod.uid.clone(), ports.to_vec());
        let mut given = self.given.lock();
        let ip = given.entry(pod.uid.clone()).or_insert_with(|| {
            let mut next = self.next.lock();
            *next += 1;
            IpAddr::from([10, 42, 0, *next])
        });
        Ok(Attached {
            ips: vec![*ip],
            namespace: (wanted == Attachment::Netns).then(|| PathBuf::from(format!("netns/{ip}"))),
        })
    }

    async fn release(&self, pod_uid: &str) -> std::io::Result<()> {
        self.given.lock().remove(pod_uid);
        self.host_ports.lock().remove(pod_uid);
        Ok(())
    }

    fn set_listeners(&self, listeners: Vec<Listener>) {
        *self.listeners.lock() = listeners;
    }

    fn dial(&self, _: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        let listeners = self.listeners.lock();
        let found = listeners
            .iter()
            .find(|listener| listener.address == address);
        found.map(|listener| listener.actual)
    }

    fn dns(&self) -> Option<ClusterDns> {
        None
    }

    fn snapshot_path(&self) -> PathBuf {
        PathBuf::from("snapshot")
    }
}

/// API, runtime, images and network outlive a kubelet.
pub(super) struct World {
    pub(super) api: FakeApi,
    pub(super) runtime: FakeRuntime,
    /// For images of containers, where the node has one.
    pub(super) containers: Option<FakeRuntime>,
    pub(super) images: Arc<FakeImages>,
    pub(super) network: Arc<FakeNetwork>,
    pub(super) root: tempfile::TempDir,
    pub(super) policy: NodePolicy,
    /// Where the machine's logind is, if it has one.
    pub(super) logind: Option<LogindPlaces>,
}

/// The policy of a node that does not care how full the disk of whoever runs the tests is.
fn unmoved() -> NodePolicy {
    NodePolicy {
        images: ImageGcPolicy {
            high_threshold_percent: 100,
            ..ImageGcPolicy::default()
        },
        eviction: EvictionPolicy {
            period: Duration::from_millis(50),
            hard: BTreeMap::new(),
            ..EvictionPolicy::default()
        },
        reserved: Reserved::default(),
        ..NodePolicy::default()
    }
}

/// A kubelet that runs.
pub(super) struct Running {
    pub(super) kubelet: Kubelet,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            api: FakeApi::default(),
            runtime: FakeRuntime::new("wasm"),
            containers: None,
            images: Arc::default(),
            network: Arc::default(),
            root: tempfile::tempdir().unwrap(),
            policy: unmoved(),
            logind: None,
        }
    }

    pub(super) fn with_containers() -> Self {
        Self {
            containers: Some(FakeRuntime::new("oci")),
            ..Self::new()
        }
    }

    pub(super) fn start(&self) -> Running {
        self.start_with(None)
    }

    pub(super) fn start_with(&self, api: Option<KubeletApi>) -> Running {
        let capacity = [("cpu", "2"), ("memory", "4Gi")];
        let quantity = |(name, text): (&str, &str)| (name.to_owned(), text.parse().unwrap());
        let kubelet = Kubelet::new(KubeletConfig {
            node_name: "n1".to_owned(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            root_dir: self.root.path().join("kubelet"),
            seccomp_dir: self.root.path().join("seccomp"),
            manifests: vec![self.root.path().join("manifests")],
            log_dir: self.root.path().join("logs"),
            log_limits: LogLimits::default(),
            client: self.api.client(),
            runtimes: std::iter::once(&self.runtime)
                .chain(&self.containers)
                .map(|runtime| Arc::new(runtime.clone()) as Arc<dyn RuntimeService>)
                .collect(),
            images: self.images.clone(),
            network: self.network.clone(),
            services: None,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pod_cidr: Some("10.42.0.0/24".to_owned()),
            capacity: capacity.into_iter().map(quantity).collect(),
            max_pods: 110,
            policy: self.policy.clone(),
            apparmor: AppArmorPlaces::below(&self.root.path().join("machine")),
            users: UserPlaces::below(&self.root.path().join("machine")),
            logind: self.logind.clone().unwrap_or_else(|| LogindPlaces {
                bus: self.root.path().join("no-bus"),
                configuration: self.root.path().join("logind.conf.d"),
            }),
            version: "v1.37.0+coracle".to_owned(),
            api,
        });
        let cancel = CancellationToken::new();
        let (handle, token) = (kubelet.clone(), cancel.clone());
        let task = tokio::spawn(async move { handle.run(token).await.unwrap() });
        Running {
            kubelet,
            cancel,
            task,
        }
    }

    /// Puts a Pod of one container.
    pub(super) fn pod(&self, name: &str, container: Value, spec: Value) {
        let mut container = container;
        container["name"] = json!("main");
        if container["image"].is_null() {
            container["image"] = json!("app:v1");
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1},
            "spec": {"nodeName": "n1", "containers": [container]},
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        self.api.put(&path(name), pod);
    }
}

impl Running {
    /// Ends the kubelet; its Pods run on.
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        ended.expect("the kubelet ends").unwrap();
    }
}

pub(super) fn path(pod: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{pod}")
}

/// The status of a condition.
pub(super) fn condition<'a>(pod: &'a Value, type_: &str) -> &'a str {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == type_);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or("")
}

pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

pub(super) fn waiting(pod: &Value) -> &str {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    state["waiting"]["reason"].as_str().unwrap_or("")
}
