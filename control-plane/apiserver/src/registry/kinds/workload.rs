//! What the kinds have in common that make Pods of a template: counts of Pods, columns of the
//! template, the view of their scale. And what all kinds have in common whose spec is the
//! client's and whose status is a controller's.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::selector::Selector;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::registry::strategy::{Cell, Column, ScaleView};
use crate::validation::pod::warnings::{name_warning, spec_warnings};
use crate::validation::{non_negative, text};

/// The methods of a [`Strategy`](crate::registry::strategy::Strategy) of a kind whose spec is
/// written by clients and whose status is written through the status subresource: neither
/// touches the other, and a generation is one of the spec. Where it says so the status is written
/// without the metadata.
macro_rules! spec_and_status {
    ($object:ty) => {
        spec_and_status!(@both $object);

        fn prepare_for_status_update(&self, new: &mut $object, old: &$object) {
            new.spec.clone_from(&old.spec);
        }
    };
    ($object:ty, without metadata) => {
        spec_and_status!(@both $object);

        fn prepare_for_status_update(&self, new: &mut $object, old: &$object) {
            new.spec.clone_from(&old.spec);
            crate::registry::meta::keep_metadata(&mut new.metadata, &old.metadata);
        }

        fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
            crate::registry::strategy::resets_with_metadata(subresource)
        }
    };
    (@both $object:ty) => {
        fn prepare_for_create(&self, object: &mut $object) {
            object.status = Some(Default::default());
        }

        fn prepare_for_update(&self, new: &mut $object, old: &$object) {
            new.status.clone_from(&old.status);
        }

        fn spec_changed(&self, new: &$object, old: &$object) -> bool {
            !crate::validation::equality::semantic(&new.spec, &old.spec)
        }
    };
}

pub(super) use spec_and_status;

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

/// An error where a count of a status that only grows has become smaller.
pub(super) fn validate_not_decremented(
    new: Option<i32>,
    old: Option<i32>,
    field: &str,
    errors: &mut ErrorList,
) {
    let (new, at) = (new.unwrap_or(0), Path::new("status").child(field));
    non_negative(new, &at, errors);
    if new < old.unwrap_or(0) {
        errors.push(Error::invalid(&at, new, "cannot be decremented"));
    }
}

/// Columns of a template's containers.
pub(super) fn template_columns() -> [Column; 2] {
    [
        Column::text("Containers", "Names of each container in the template."),
        Column::text(
            "Images",
            "Images referenced by each container in the template.",
        ),
    ]
}

/// The column of the selector of the Pods.
pub(super) fn selector_column() -> Column {
    Column::text("Selector", "The labels of the pods that are counted.").wide()
}

/// The cells of [`template_columns`].
pub(super) fn template_cells(template: Option<&PodTemplateSpec>) -> [Cell; 2] {
    let containers = template
        .and_then(|template| template.spec.as_ref())
        .map(|pod| &pod.containers[..])
        .unwrap_or_default();
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().map(|c| text(&c.image)).collect();
    [Cell::from(names.join(",")), Cell::from(images.join(","))]
}

/// What the scale subresource shows; nothing where the selector is none.
pub(super) fn scale_view(
    replicas: Option<i32>,
    current: i32,
    selector: &LabelSelector,
) -> Option<ScaleView> {
    let selector = Selector::from_label_selector(selector).ok()?;
    Some(ScaleView {
        replicas: replicas.unwrap_or(1),
        current,
        selector: selector.to_string(),
    })
}
