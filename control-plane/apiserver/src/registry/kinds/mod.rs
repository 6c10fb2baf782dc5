//! The table of kinds: one file (or folder) and one line for each.

mod admission_registration;
pub(crate) mod api_service;
mod binding;
mod certificate_signing_request;
mod cluster_trust_bundle;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod daemon_set;
mod deployment;
mod devices;
mod endpoint_slice;
mod endpoints;
mod event;
pub(crate) mod flow_control;
mod horizontal_pod_autoscaler;
pub(crate) mod ingress;
pub(crate) mod ingress_class;
mod ip_address;
mod job;
#[cfg(test)]
mod large_inputs;
mod lease;
mod limit_range;
pub(crate) mod metrics;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_certificate_request;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod reviews;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
pub(crate) mod storage_class;
mod storage_row;
mod storage_version_migration;
mod versions;
mod volume_attachment;
mod volume_attributes_class;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use self::namespace::validate_finalize;
use super::erased::{Kind, kind};

/// Every built-in kind, in the order in which discovery lists them within their group-version.
#[must_use]
pub fn all() -> Vec<Arc<dyn Kind>> {
    vec![
        kind(binding::BindingStrategy),
        kind(component_status::ComponentStatusStrategy),
        kind(config_map::ConfigMapStrategy),
        kind(endpoints::EndpointsStrategy),
        kind(event::EventStrategy),
        kind(limit_range::LimitRangeStrategy),
        kind(namespace::NamespaceStrategy),
        kind(node::NodeStrategy),
        kind(persistent_volume_claim::PersistentVolumeClaimStrategy),
        kind(persistent_volume::PersistentVolumeStrategy),
        kind(pod::PodStrategy),
        kind(pod_template::PodTemplateStrategy),
        kind(replication_controller::ReplicationControllerStrategy),
        kind(resource_quota::ResourceQuotaStrategy),
        kind(secret::SecretStrategy),
        kind(service::ServiceStrategy),
        kind(service_account::ServiceAccountStrategy),
        kind(admission_registration::MutatingPolicyStrategy),
        kind(admission_registration::MutatingBindingStrategy),
        kind(admission_registration::MutatingWebhookStrategy),
        kind(admission_registration::ValidatingPolicyStrategy),
        kind(admission_registration::ValidatingBindingStrategy),
        kind(admission_registration::ValidatingWebhookStrategy),
        kind(api_service::APIServiceStrategy),
        kind(controller_revision::ControllerRevisionStrategy),
        kind(daemon_set::DaemonSetStrategy),
        kind(deployment::DeploymentStrategy),
        kind(replica_set::ReplicaSetStrategy),
        kind(stateful_set::StatefulSetStrategy),
        kind(horizontal_pod_autoscaler::AutoscalerStrategy),
        kind(versions::Viewed(horizontal_pod_autoscaler::AutoscalerView)),
        kind(cron_job::CronJobStrategy),
        kind(job::JobStrategy),
        kind(certificate_signing_request::CertificateSigningRequestStrategy),
        kind(cluster_trust_bundle::ClusterTrustBundleStrategy),
        kind(pod_certificate_request::PodCertificateRequestStrategy),
        kind(flow_control::FlowSchemaStrategy),
        kind(flow_control::PriorityLevelStrategy),
        kind(lease::LeaseStrategy),
        kind(endpoint_slice::EndpointSliceStrategy),
        kind(versions::Viewed(event::EventView)),
        kind(metrics::NodeMetricsStrategy),
        kind(metrics::PodMetricsStrategy),
        kind(ingress_class::IngressClassStrategy),
        kind(ingress::IngressStrategy),
        kind(ip_address::IPAddressStrategy),
        kind(network_policy::NetworkPolicyStrategy),
        kind(service_cidr::ServiceCIDRStrategy),
        kind(pod_disruption_budget::PodDisruptionBudgetStrategy),
        kind(runtime_class::RuntimeClassStrategy),
        kind(priority_class::PriorityClassStrategy),
        kind(rbac::ClusterRoleBindingStrategy),
        kind(rbac::ClusterRoleStrategy),
        kind(rbac::RoleBindingStrategy),
        kind(rbac::RoleStrategy),
        kind(devices::DeviceClassStrategy),
        kind(devices::DeviceTaintRuleStrategy),
        kind(devices::ResourceClaimStrategy),
        kind(devices::ResourceClaimTemplateStrategy),
        kind(devices::ResourceSliceStrategy),
        kind(reviews::SelfSubjectReviewStrategy),
        kind(reviews::TokenReviewStrategy),
        kind(reviews::LocalSubjectAccessReviewStrategy),
        kind(reviews::SelfSubjectAccessReviewStrategy),
        kind(reviews::SelfSubjectRulesReviewStrategy),
        kind(reviews::SubjectAccessReviewStrategy),
        kind(csi_driver::CSIDriverStrategy),
        kind(csi_node::CSINodeStrategy),
        kind(csi_storage_capacity::CSIStorageCapacityStrategy),
        kind(storage_class::StorageClassStrategy),
        kind(volume_attachment::VolumeAttachmentStrategy),
        kind(volume_attributes_class::VolumeAttributesClassStrategy),
        kind(storage_version_migration::StorageVersionMigrationStrategy),
    ]
}

/// Labels as one cell shows them: `a=b,c=d`.
fn format_labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

/// Takes a map from elsewhere, where there is none.
fn first_non_empty(
    map: &mut Option<BTreeMap<String, String>>,
    other: Option<&BTreeMap<String, String>>,
) {
    if map.as_ref().is_none_or(BTreeMap::is_empty) {
        *map = other.cloned();
    }
}

/// The first few of a list, and how many there are beside.
fn first_and_more(all: &[String], shown: usize) -> String {
    let first = all[..shown.min(all.len())].join(",");
    match all.len().saturating_sub(shown) {
        0 => first,
        more => format!("{first} + {more} more..."),
    }
}

/// `10.42.0.2:80`, `[fd00::1]:80`.
fn join_host_port(host: &str, port: i32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests;
