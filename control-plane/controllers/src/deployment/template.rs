//! Deployments and the ReplicaSets made from their templates: which belongs to the current
//! template, and how a new one looks.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use super::hash::hash;
use crate::owners::controller_reference;

/// The label that tells the Pods of one revision from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// The replicas that a ReplicaSet should have.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The replicas that a Deployment should have.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// The replicas that a ReplicaSet has.
pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// The available replicas of a ReplicaSet.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// Sorts by age, the oldest first.
pub(super) fn age(set: &ReplicaSet) -> (Option<Time>, String) {
    (set.metadata.creation_timestamp.clone(), set.name_any())
}

/// Whether `set` was made from the Deployment's current template.
pub(super) fn is_for(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let template = set.spec.template.clone().unwrap_or_default();
    comparable(template) == comparable(deployment.spec.template.clone())
}

/// The new ReplicaSet of a Deployment, without annotations and replicas.
pub(super) fn new_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|s| s.collision_count)
        .unwrap_or(0);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = &mut template.metadata.get_or_insert_default().labels;
    let labels = labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        },
        status: None,
    }
}

/// A template as it is compared: without the hash that we put into it, and with nothing where
/// there is an empty map.
fn comparable(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    metadata.creation_timestamp = None;
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH_LABEL);
    }
    for map in [&mut metadata.labels, &mut metadata.annotations] {
        if map.as_ref().is_some_and(|map| map.is_empty()) {
            *map = None;
        }
    }
    template
}
