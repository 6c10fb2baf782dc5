//! What the kubelet is told when it is made.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_apimachinery::quantity::Quantity;
use coracle_runtime::apparmor::AppArmorPlaces;
use coracle_runtime::{LogLimits, RuntimeService};
use k8s_openapi::api::core::v1::{Service, Taint};
use kube::runtime::reflector::Store;

use crate::credentials::CredentialPolicy;
use crate::eviction::EvictionPolicy;
use crate::images::{AccessPolicy, ImageGcPolicy, Images};
use crate::node::allocatable::Reserved;
use crate::pod_network::PodNetwork;
use crate::shutdown::{LogindPlaces, ShutdownPolicy};
use crate::users::UserPlaces;

/// Port of the kubelet's own API.
pub const KUBELET_PORT: u16 = 10250;

/// Everything that a kubelet needs.
pub struct KubeletConfig {
    /// Name of the node.
    pub node_name: String,
    /// Labels beside those that every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints with which the node registers.
    pub taints: Vec<Taint>,
    /// Folder for Pods and their volumes.
    pub root_dir: PathBuf,
    /// Folders of manifests of static Pods.
    pub manifests: Vec<PathBuf>,
    /// Folder of the machine's filters of system calls (`seccompProfile` of type `Localhost`).
    pub seccomp_dir: PathBuf,
    /// Folder for the logs of containers, as `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Bounds of a container's log.
    pub log_limits: LogLimits,
    /// The API, as the node's identity.
    pub client: kube::Client,
    /// The runtimes, with the handlers that RuntimeClasses may name; those of the names `wasm` and
    /// `oci` are chosen by the kind of an image.
    pub runtimes: Vec<Arc<dyn RuntimeService>>,
    /// Images.
    pub images: Arc<dyn Images>,
    /// The network of Pods.
    pub network: Arc<dyn PodNetwork>,
    /// Services, for the environment of containers. None makes the kubelet follow them itself.
    pub services: Option<Store<Service>>,
    /// Addresses of the node, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Range of the node's Pods, if it is not for the control plane to give.
    pub pod_cidr: Option<String>,
    /// What the node has; see [`crate::Capacity::detect`].
    pub capacity: BTreeMap<String, Quantity>,
    /// Pods that the node takes.
    pub max_pods: usize,
    /// What the kubelet's flags say.
    pub policy: NodePolicy,
    /// Where the machine tells of AppArmor.
    pub apparmor: AppArmorPlaces,
    /// Where the machine tells which IDs are for Pods.
    pub users: UserPlaces,
    /// Where the machine tells that it is about to shut down.
    pub logind: LogindPlaces,
    /// Version that the node reports, `v1.37.…`.
    pub version: String,
    /// The kubelet's own API; none serves none.
    pub api: Option<KubeletApi>,
}

/// How the node runs Pods and keeps room for itself, as in `KubeletConfiguration`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePolicy {
    /// When images are removed.
    pub images: ImageGcPolicy,
    /// Who may use images that are here.
    pub access: AccessPolicy,
    /// When Pods are ended.
    pub eviction: EvictionPolicy,
    /// What is kept from Pods.
    pub reserved: Reserved,
    /// Programs that give credentials for pulls.
    pub credentials: CredentialPolicy,
    /// How long Pods may take to end when the machine does.
    pub shutdown: ShutdownPolicy,
    /// A folder of manifests of static Pods, beside those of [`KubeletConfig::manifests`].
    pub pod_manifests: Option<PathBuf>,
}

/// Where and to whom the kubelet serves its API.
pub struct KubeletApi {
    /// The socket; its port is the one that the node reports.
    pub listener: tokio::net::TcpListener,
    /// TLS that asks callers for a certificate of the cluster; see
    /// [`crate::server_tls`].
    pub tls: Arc<rustls::ServerConfig>,
    /// Users, beside the group `system:masters`, who may call: the API server's.
    pub allowed_users: Vec<String>,
}
