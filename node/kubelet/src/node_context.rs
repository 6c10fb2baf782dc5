//! What all workers of a node share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_runtime::LogLimits;
use coracle_runtime::apparmor::AppArmorPlaces;
use k8s_openapi::api::core::v1::{Pod, Service, Taint};
use kube::runtime::reflector::Store;
use tokio::sync::{OnceCell, watch};

use crate::admission::Admission;
use crate::credentials::Credentials;
use crate::events::Recorder;
use crate::eviction::pressure::Conditions;
use crate::followed::Followed;
use crate::images::ImageKeeper;
use crate::listeners::Listeners;
use crate::objects::RootCertificates;
use crate::pod;
use crate::pod::fields::Surroundings;
use crate::pod_network::PodNetwork;
use crate::probes::Results;
use crate::router::Router;
use crate::runtime_cache::RuntimeCache;
use crate::status::publisher::StatusPublisher;
use crate::users::PodUsers;

/// The parts of the node that a worker acts through; each of them is safe to share.
pub(crate) struct NodeContext {
    pub(crate) node_name: String,
    /// Those that the node gives itself; users may give it more.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) root: PathBuf,
    pub(crate) seccomp: PathBuf,
    pub(crate) apparmor: AppArmorPlaces,
    pub(crate) log_root: PathBuf,
    pub(crate) log_limits: LogLimits,
    pub(crate) host_ips: Vec<IpAddr>,
    pub(crate) client: kube::Client,
    pub(crate) router: Router,
    pub(crate) cache: RuntimeCache,
    pub(crate) images: ImageKeeper,
    pub(crate) credentials: Credentials,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) users: PodUsers,
    pub(crate) listeners: Listeners,
    pub(crate) root_certificates: RootCertificates,
    pub(crate) followed: Followed,
    pub(crate) services: Store<Service>,
    /// Set when `services` is filled. One worker waits for the store, the others for that one: of
    /// several that wait there at once only the last is woken (kube-runtime 5.0, `DelayedInit`).
    pub(crate) services_ready: OnceCell<()>,
    pub(crate) admission: Admission,
    pub(crate) recorder: Recorder,
    pub(crate) publisher: StatusPublisher,
    pub(crate) probes: Results,
    /// The machine is about to shut down.
    pub(crate) shutting_down: watch::Sender<bool>,
    /// What the node is short of.
    pub(crate) pressure: watch::Sender<Conditions>,
    /// The node's taints, as the API has them.
    pub(crate) taints: Arc<watch::Sender<Vec<Taint>>>,
}

impl NodeContext {
    /// Waits until the Services are known.
    pub(crate) async fn services_known(&self) {
        let wait = || async {
            if self.services.wait_until_ready().await.is_err() {
                // Nobody follows them any more, because the agent stops.
                std::future::pending::<()>().await;
            }
        };
        self.services_ready.get_or_init(wait).await;
    }

    /// What a Pod may be told of its place.
    pub(crate) fn surroundings(&self, pod_ips: &[IpAddr]) -> Surroundings {
        Surroundings {
            node_name: self.node_name.clone(),
            host_ips: self.host_ips.clone(),
            pod_ips: pod_ips.to_vec(),
            allocatable: self.admission.allocatable().clone(),
        }
    }

    /// Folder of the logs of a Pod, named as below `/var/log/pods`.
    pub(crate) fn pod_logs(&self, pod: &Pod) -> PathBuf {
        let (namespace, name, uid) = (pod::namespace(pod), pod::name(pod), pod::uid(pod));
        self.log_root.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The current log file of one attempt of a container.
    pub(crate) fn log_file(&self, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
        self.pod_logs(pod)
            .join(container)
            .join(format!("{attempt}.log"))
    }

    /// Where the termination message of one attempt of a container is written.
    pub(crate) fn termination_file(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        let folder = crate::volumes::pod_folder(&self.root, uid);
        folder
            .join("containers")
            .join(container)
            .join(format!("{attempt}.message"))
    }
}
