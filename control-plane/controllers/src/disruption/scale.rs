//! How many Pods the controllers of Pods ask for.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt, discovery};

use super::plan::Scales;
use crate::context::Context;
use crate::error::{Error, not_found};
use crate::owners::controller_of;

/// The scales of all controllers that these Pods of a namespace name. One that is gone is
/// missing.
///
/// # Errors
/// When a controller cannot be scaled, or the API server could not be asked.
pub(super) async fn scales(
    context: &Context,
    namespace: &str,
    pods: &[Arc<Pod>],
) -> Result<Scales, Error> {
    let controllers = pods.iter().filter_map(|pod| controller_of(&pod.metadata));
    let controllers: HashMap<&str, &OwnerReference> = controllers
        .map(|controller| (controller.uid.as_str(), controller))
        .collect();
    let mut scales = Scales::new();
    for (uid, controller) in controllers {
        let scale = match of_replica_set(context, namespace, controller) {
            Some(scale) => Some(scale),
            None => of_any(context, namespace, controller).await?,
        };
        scales.extend(scale.map(|scale| (uid.to_owned(), scale)));
    }
    Ok(scales)
}

/// The scale of a ReplicaSet, or of the Deployment that it belongs to.
fn of_replica_set(
    context: &Context,
    namespace: &str,
    controller: &OwnerReference,
) -> Option<(String, i32)> {
    if controller.kind != "ReplicaSet" || !controller.api_version.starts_with("apps/") {
        return None;
    }
    let informers = &context.informers;
    let key = ObjectRef::<ReplicaSet>::new(&controller.name).within(namespace);
    let set = informers.replica_sets.store().get(&key)?;
    if set.metadata.uid.as_ref() != Some(&controller.uid) {
        return None;
    }
    let deployment = controller_of(&set.metadata).and_then(|owner| {
        let key = ObjectRef::<Deployment>::new(&owner.name).within(namespace);
        let deployment = informers.deployments.store().get(&key)?;
        (deployment.metadata.uid.as_ref() == Some(&owner.uid)).then_some(deployment)
    });
    let (uid, replicas) = match deployment {
        Some(deployment) => (deployment.uid(), deployment.spec.replicas),
        None => (set.uid(), set.spec.replicas),
    };
    Some((uid?, replicas.unwrap_or(1)))
}

/// The scale of a controller of whatever kind, as its subresource tells.
async fn of_any(
    context: &Context,
    namespace: &str,
    controller: &OwnerReference,
) -> Result<Option<(String, i32)>, Error> {
    let resource = scalable(context, controller).await?;
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace, &resource);
    let scale = match api.get_scale(&controller.name).await {
        Ok(scale) => scale,
        Err(error) if not_found(&error) => return Ok(None),
        Err(error) => return Err(Error::api("read the scale of a Pod's controller")(error)),
    };
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    let uid = scale.metadata.uid.filter(|uid| *uid == controller.uid);
    Ok(uid.map(|uid| (uid, replicas)))
}

async fn scalable(context: &Context, controller: &OwnerReference) -> Result<ApiResource, Error> {
    let (group, version) = match controller.api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", controller.api_version.as_str()),
    };
    let kind = GroupVersionKind::gvk(group, version, &controller.kind);
    if matches!(
        (group, kind.kind.as_str()),
        ("apps", "ReplicaSet" | "StatefulSet") | ("", "ReplicationController")
    ) {
        return Ok(ApiResource::from_gvk(&kind));
    }
    let found = discovery::pinned_kind(&context.client, &kind).await;
    let (resource, capabilities) =
        found.map_err(Error::api("discover the kind of a Pod's controller"))?;
    let mut subresources = capabilities.subresources.iter();
    if subresources.any(|(subresource, _)| subresource.plural.ends_with("scale")) {
        return Ok(resource);
    }
    let name = crate::discovery::resource_name(&resource);
    Err(Error::Object(format!(
        "{name} does not implement the scale subresource; give the budget a number as its \
         minAvailable"
    )))
}
