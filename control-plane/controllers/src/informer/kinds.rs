//! Which kinds have a shared informer.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{FEW_CHANGES, Informer};

/// The informers of every kind that controllers, scheduler and a node in one process share.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Informers {
    pub deployments: Informer<Deployment>,
    pub endpoints: Informer<Endpoints>,
    pub endpoint_slices: Informer<EndpointSlice>,
    pub claims: Informer<PersistentVolumeClaim>,
    pub disruption_budgets: Informer<PodDisruptionBudget>,
    pub leases: Informer<Lease>,
    pub namespaces: Informer<Namespace>,
    pub nodes: Informer<Node>,
    pub pods: Informer<Pod>,
    pub quotas: Informer<ResourceQuota>,
    pub replica_sets: Informer<ReplicaSet>,
    pub service_accounts: Informer<ServiceAccount>,
    pub services: Informer<Service>,
    pub volume_attributes_classes: Informer<VolumeAttributesClass>,
    pub volumes: Informer<PersistentVolume>,
}

impl Informers {
    /// Starts one watch per kind; `tasks` owns them, and they end with `cancel`.
    pub fn start(client: &Client, tasks: &TaskTracker, cancel: &CancellationToken) -> Self {
        macro_rules! start {
            () => {
                Informer::start(Api::all(client.clone()), (), tasks, cancel)
            };
            (few) => {{
                let (part, api) = (watcher::Config::default(), Api::all(client.clone()));
                Informer::with_room(FEW_CHANGES, part, api, (), tasks, cancel)
            }};
        }
        Self {
            deployments: start!(),
            endpoints: start!(),
            endpoint_slices: start!(),
            claims: start!(few),
            disruption_budgets: start!(few),
            leases: start!(),
            namespaces: start!(),
            nodes: start!(),
            pods: start!(),
            quotas: start!(few),
            replica_sets: start!(),
            service_accounts: start!(),
            services: start!(),
            volume_attributes_classes: start!(few),
            volumes: start!(few),
        }
    }

    /// Waits until every kind was listed once.
    pub async fn wait_until_ready(&self) {
        macro_rules! wait {
            ($($kind:ident),*) => {
                tokio::join!($(self.$kind.wait_until_ready()),*)
            };
        }
        wait!(
            deployments,
            endpoints,
            endpoint_slices,
            claims,
            disruption_budgets,
            leases,
            namespaces,
            nodes,
            pods,
            quotas,
            replica_sets,
            service_accounts,
            services,
            volume_attributes_classes,
            volumes
        );
    }
}
