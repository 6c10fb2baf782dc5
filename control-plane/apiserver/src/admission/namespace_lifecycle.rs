//! NamespaceLifecycle: objects are created only in namespaces that exist and are not being
//! deleted, and the cluster's own namespaces stay.

use async_trait::async_trait;
use coracle_apimachinery::gvk::GroupResource;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::Namespace;

use super::{Admission, Operation, Review};
use crate::registry::Registry;
use crate::registry::erased::Object;

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let descriptor = review.kind.descriptor();
        match review.operation {
            Operation::Create if descriptor.is_namespaced() => {
                let name = object
                    .and_then(|object| object.meta().name.clone())
                    .unwrap_or_default();
                namespace_is_open(registry, review, &name).await
            }
            Operation::Delete if descriptor.storage == "namespaces" => {
                let name = old
                    .and_then(|old| old.meta().name.as_deref())
                    .unwrap_or_default();
                if IMMORTAL.contains(&name) {
                    return Err(review.forbidden(name, "this namespace may not be deleted"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

async fn namespace_is_open(
    registry: &Registry,
    review: &Review<'_>,
    name: &str,
) -> Result<(), Status> {
    let Some(namespace) = registry.find::<Namespace>("", review.namespace).await? else {
        let resource = GroupResource::new("", "namespaces");
        return Err(Status::not_found(&resource, review.namespace));
    };
    let phase = namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating") {
        let cause = format!(
            "unable to create new content in namespace {} because it is being terminated",
            review.namespace
        );
        let message = format!("namespace {} is being terminated", review.namespace);
        return Err(review.forbidden(name, cause).with_cause(
            "NamespaceTerminating",
            &message,
            "metadata.namespace",
        ));
    }
    Ok(())
}
