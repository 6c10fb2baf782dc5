//! What ReplicaSets and Deployments have in common: counts of Pods, and columns of a template.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::validation::pod::warnings::{name_warning, spec_warnings};
use crate::validation::{non_negative, text};

/// Counts of a status: none is negative, and none but that of the terminating Pods is above the
/// number of all.
pub(super) fn validate_replica_counts(
    replicas: i32,
    counts: &[(&str, Option<i32>)],
    observed_generation: Option<i64>,
    errors: &mut ErrorList,
) {
    let at = Path::new("status");
    non_negative(replicas, &at.child("replicas"), errors);
    let count = |name: &str| {
        counts
            .iter()
            .find(|(field, _)| *field == name)
            .and_then(|(_, n)| *n)
            .unwrap_or(0)
    };
    for (field, number) in counts {
        non_negative(number.unwrap_or(0), &at.child(field), errors);
    }
    non_negative(
        observed_generation.unwrap_or(0),
        &at.child("observedGeneration"),
        errors,
    );
    for (field, number) in counts
        .iter()
        .filter(|(field, _)| *field != "terminatingReplicas")
    {
        let number = number.unwrap_or(0);
        if number > replicas {
            errors.push(Error::invalid(
                &at.child(field),
                number,
                "cannot be greater than status.replicas",
            ));
        }
    }
    let available = count("availableReplicas");
    if available > count("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        errors.push(Error::invalid(
            &at.child("availableReplicas"),
            available,
            detail,
        ));
    }
}

/// Warnings about the name, which Pods are named after, and about the template.
pub(super) fn template_warnings(
    meta: &ObjectMeta,
    template: Option<&PodTemplateSpec>,
) -> Vec<String> {
    let name = name_warning(text(&meta.name), "Pod names and hostnames");
    let at = Path::new("spec").child("template").child("spec");
    let spec = template
        .and_then(|template| template.spec.as_ref())
        .map(|spec| spec_warnings(spec, &at));
    name.into_iter().chain(spec.unwrap_or_default()).collect()
}

/// Names of the containers, as one cell shows them.
pub(super) fn container_names(pod: &PodSpec) -> String {
    pod.containers
        .iter()
        .map(|container| container.name.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

/// Images of the containers, as one cell shows them.
pub(super) fn container_images(pod: &PodSpec) -> String {
    pod.containers
        .iter()
        .map(|container| text(&container.image))
        .collect::<Vec<_>>()
        .join(",")
}
