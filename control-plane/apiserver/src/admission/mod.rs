//! Admission: what depends on other objects than the one that is written.
//!
//! Plugins are called in the order of [`built_in`], first all to mutate, then, after the kind's
//! own validation, all to validate. Webhooks and policies will take their place before the quotas.

mod certificate_signing_request;
mod default_ingress_class;
mod default_toleration_seconds;
mod device_admin_access;
mod device_taints;
mod limit_ranger;
mod mirror_pod;
mod namespace_lifecycle;
mod node_restriction;
mod pod_certificate_request;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::Pod;

use crate::metrics::admission::Step;
use crate::registry::erased::{Kind, Object};
use crate::registry::{Caller, Registry};

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is created.
    Create,
    /// It is updated, or one of its subresources.
    Update,
    /// It is deleted.
    Delete,
}

/// A request under review.
pub struct Review<'a> {
    /// What is done.
    pub operation: Operation,
    /// Kind of the object.
    pub kind: &'a Arc<dyn Kind>,
    /// Namespace of the request; empty for kinds of the cluster.
    pub namespace: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Who asks.
    pub caller: Caller<'a>,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

impl Review<'_> {
    /// Whether a Pod itself is being created or updated.
    fn writes_pod(&self) -> bool {
        self.operation != Operation::Delete
            && self.kind.descriptor().storage == "pods"
            && self.subresource.is_empty()
    }

    /// Whether a Pod is being created.
    fn creates_pod(&self) -> bool {
        self.operation == Operation::Create && self.writes_pod()
    }

    fn forbidden(&self, name: &str, cause: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.kind.descriptor().group_resource(), name, cause)
    }
}

/// A plugin. Without an object it is a deletion; without an old one a creation. Of objects that are
/// applied the sets of managers are text (`registry/set_text`): who sends them on decodes them first.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Changes the object, or refuses it.
    async fn admit(
        &self,
        _registry: &Registry,
        _review: &mut Review<'_>,
        _object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object as it would be stored.
    async fn validate(
        &self,
        _registry: &Registry,
        _review: &mut Review<'_>,
        _object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins that are always on, in order.
#[must_use]
pub fn built_in() -> Vec<Box<dyn Admission>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(limit_ranger::LimitRanger),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(priority::Priority),
        Box::new(runtime_class::RuntimeClass),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(storage::DefaultStorageClass),
        Box::new(storage::StorageObjectInUseProtection),
        Box::new(storage::VolumePhase),
        Box::new(storage::PersistentVolumeClaimResize),
        Box::new(certificate_signing_request::CertificateSigningRequest),
        Box::new(pod_certificate_request::PodCertificateRequest),
        Box::new(default_ingress_class::DefaultIngressClass),
        Box::new(device_taints::DeviceTaints),
        Box::new(device_admin_access::DeviceAdminAccess),
        // What is charged must not be refused by anybody after.
        Box::new(resource_quota::ResourceQuota),
    ]
}

impl Registry {
    pub(crate) async fn admit(
        &self,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let (began, operation) = (Instant::now(), review.operation);
        let done = self.ask_to_admit(review, object, old).await;
        let (rejected, took) = (done.is_err(), began.elapsed());
        self.admitted.step(Step::Admit, operation, rejected, took);
        done
    }

    async fn ask_to_admit(
        &self,
        review: &mut Review<'_>,
        mut object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        for plugin in &self.admission {
            let object = object
                .as_mut()
                .map(|object| &mut **object as &mut dyn Object);
            plugin.admit(self, review, object, old).await?;
        }
        Ok(())
    }

    pub(crate) async fn validate(
        &self,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let (began, operation) = (Instant::now(), review.operation);
        let mut done = Ok(());
        for plugin in &self.admission {
            done = plugin.validate(self, review, object, old).await;
            if done.is_err() {
                break;
            }
        }
        let (rejected, took) = (done.is_err(), began.elapsed());
        self.admitted
            .step(Step::Validate, operation, rejected, took);
        done
    }
}

/// The Pod that a stored object is.
fn old_pod(object: Option<&dyn Object>) -> Option<&Pod> {
    object?.as_any().downcast_ref()
}

/// The Pod that an object is.
fn pod(object: Option<&mut dyn Object>) -> Option<&mut Pod> {
    object?.as_any_mut().downcast_mut()
}
