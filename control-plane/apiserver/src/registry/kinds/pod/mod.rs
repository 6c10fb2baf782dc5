//! Pod: containers and guests that share an address and volumes on one node.

mod columns;
mod label_keys;
mod parts;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::{pod_defaults, resources};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};

use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::pod::resize::{validate_ephemeral_update, validate_resize};
use crate::validation::pod::update::{validate_spec_update, validate_status_update};
use crate::validation::pod::warnings::{name_warning, pod_warnings};
use crate::validation::pod::{
    set_profiles, validate_pod_annotation_update, validate_pod_annotations, validate_pod_only,
    validate_same_profiles, validate_spec,
};
use crate::validation::{equality, items, text};

pub(super) use coracle_apimachinery::pod_defaults::{
    set_claim_spec_defaults, set_storage_defaults, set_template_defaults,
};

pub(super) struct PodStrategy;

impl Strategy for PodStrategy {
    type Object = Pod;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Pod>()
            .short_names(&["po"])
            .returns_deleted()
            .categories(&["all"])
            .subresources(&[
                Subresource::Status,
                Subresource::Binding,
                Subresource::Eviction,
                Subresource::Log,
                Subresource::Exec,
                Subresource::Attach,
                Subresource::PortForward,
                Subresource::Proxy,
                Subresource::EphemeralContainers,
                Subresource::Resize,
            ])
            .fields(&[
                "spec.hostNetwork",
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.nominatedNodeName",
                "status.phase",
                "status.podIP",
            ])
            .generation()
    }

    fn set_defaults(&self, object: &mut Pod) {
        pod_defaults::set_pod_defaults(object);
    }

    fn prepare_for_create(&self, object: &mut Pod) {
        let class = object
            .spec
            .as_ref()
            .map(|spec| resources::qos(spec).as_str().to_owned());
        object.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: class,
            conditions: gated(object).then(|| vec![scheduling_gated(object)]),
            ..PodStatus::default()
        });
        label_keys::merge(object);
        set_profiles(object);
    }

    fn validate(&self, object: &Pod) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        validate_always(object, &mut errors);
        let Some(spec) = &object.spec else {
            return errors;
        };
        validate_same_profiles(&object.metadata, spec, &at, &mut errors);
        if !items(&spec.ephemeral_containers).is_empty() {
            errors.push(Error::forbidden(
                &at.child("ephemeralContainers"),
                "cannot be set on create",
            ));
        }
        if !text(&spec.node_name).is_empty() && gated(object) {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.push(Error::forbidden(&at.child("nodeName"), detail));
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
        // A client that knows nothing of resources of a whole Pod keeps them.
        let was = old.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        if let (Some(spec), Some(was)) = (&mut new.spec, was) {
            spec.resources.get_or_insert_with(|| was.clone());
        }
    }

    fn validate_update(&self, new: &Pod, old: &Pod) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_always(new, &mut errors);
        validate_annotations(new, old, &mut errors);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            validate_spec_update(new, old, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ],
            _ => &[&["status"]],
        }
    }

    fn only_fields(&self, subresource: &str) -> Option<&'static [&'static [&'static str]]> {
        match subresource {
            "ephemeralcontainers" => Some(&[&["spec", "ephemeralContainers"]]),
            "resize" => Some(&[
                &["spec", "containers", "*", "resources"],
                &["spec", "containers", "*", "resizePolicy"],
                &["spec", "initContainers", "*", "resources"],
                &["spec", "initContainers", "*", "resizePolicy"],
            ]),
            _ => None,
        }
    }

    fn prepare_for_status_update(&self, new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
        new.metadata
            .owner_references
            .clone_from(&old.metadata.owner_references);
        new.metadata
            .deletion_timestamp
            .clone_from(&old.metadata.deletion_timestamp);
        let status = new.status.get_or_insert_default();
        // The class is computed once: a kubelet that leaves it out does not take it away.
        if text(&status.qos_class).is_empty() {
            status.qos_class = old
                .status
                .as_ref()
                .and_then(|status| status.qos_class.clone());
        }
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_status_update(new, old, &mut errors);
        errors
    }

    fn prepare_for_part(&self, part: Subresource, new: &mut Pod, old: &Pod) {
        parts::restore(part, new, old);
    }

    fn validate_part(&self, part: Subresource, new: &Pod, old: &Pod) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_always(new, &mut errors);
        if part == Subresource::EphemeralContainers {
            validate_annotations(new, old, &mut errors);
            validate_ephemeral_update(new, old, &mut errors);
        } else {
            validate_resize(new, old, &mut errors);
        }
        errors
    }

    /// Being bound to a node is no new wish of anybody: it leaves the generation as it is.
    fn spec_changed(&self, new: &Pod, old: &Pod) -> bool {
        let bound = new.spec.clone().map(|spec| PodSpec {
            node_name: old.spec.as_ref().and_then(|old| old.node_name.clone()),
            ..spec
        });
        !equality::semantic(&bound, &old.spec)
    }

    fn warnings(&self, object: &Pod) -> Vec<String> {
        let name = name_warning(text(&object.metadata.name), "the Pod's hostname");
        let spec = object
            .spec
            .as_ref()
            .map(|spec| pod_warnings(spec, Some(&object.metadata), &Path::root()));
        name.into_iter().chain(spec.unwrap_or_default()).collect()
    }

    fn selectable_fields(&self, object: &Pod) -> Vec<(&'static str, String)> {
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();
        let of_spec = |field: fn(&PodSpec) -> &str| spec.map(field).unwrap_or_default().to_owned();
        let of_status =
            |field: fn(&PodStatus) -> &str| status.map(field).unwrap_or_default().to_owned();
        vec![
            (
                "spec.hostNetwork",
                spec.and_then(|spec| spec.host_network)
                    .unwrap_or(false)
                    .to_string(),
            ),
            ("spec.nodeName", of_spec(|spec| text(&spec.node_name))),
            (
                "spec.restartPolicy",
                of_spec(|spec| text(&spec.restart_policy)),
            ),
            (
                "spec.schedulerName",
                of_spec(|spec| text(&spec.scheduler_name)),
            ),
            (
                "spec.serviceAccountName",
                of_spec(|spec| text(&spec.service_account_name)),
            ),
            (
                "status.nominatedNodeName",
                of_status(|status| text(&status.nominated_node_name)),
            ),
            ("status.phase", of_status(|status| text(&status.phase))),
            ("status.podIP", of_status(|status| text(&status.pod_ip))),
        ]
    }

    fn columns(&self) -> Vec<Column> {
        columns::columns()
    }

    fn row(&self, object: &Pod, now: jiff::Timestamp) -> Vec<Cell> {
        columns::row(object, now)
    }

    /// As long as was asked for, else as the Pod says; at once where no kubelet will answer.
    fn grace_period(&self, object: &Pod, requested: Option<i64>) -> Option<i64> {
        let spec = object.spec.as_ref();
        let own = spec.and_then(|spec| spec.termination_grace_period_seconds);
        let unbound = spec.is_none_or(|spec| text(&spec.node_name).is_empty());
        let phase = object
            .status
            .as_ref()
            .map_or("", |status| text(&status.phase));
        if unbound || matches!(phase, "Succeeded" | "Failed") {
            return Some(0);
        }
        let seconds = requested.or(own).unwrap_or(0);
        // What is negative is as short as a period can be that is one.
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// Whether something must happen before the scheduler may look at a Pod.
fn gated(object: &Pod) -> bool {
    let spec = object.spec.as_ref();
    spec.is_some_and(|spec| !items(&spec.scheduling_gates).is_empty())
}

/// Says so from the first moment on: no scheduler will (KEP-3521).
fn scheduling_gated(object: &Pod) -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        last_transition_time: object.metadata.creation_timestamp.clone(),
        ..PodCondition::default()
    }
}

/// What is checked of a Pod on creation and on update.
fn validate_always(object: &Pod, errors: &mut ErrorList) {
    let none = PodSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&none);
    let annotations_at = Path::new("metadata").child("annotations");
    validate_pod_annotations(
        object.metadata.annotations.as_ref(),
        spec,
        &annotations_at,
        errors,
    );
    let at = Path::new("spec");
    validate_spec(spec, Some(&object.metadata), &at, errors);
    validate_pod_only(spec, &at, errors);
}

fn validate_annotations(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let at = Path::new("metadata").child("annotations");
    let (new, old) = (&new.metadata.annotations, &old.metadata.annotations);
    validate_pod_annotation_update(new.as_ref(), old.as_ref(), &at, errors);
}

#[cfg(test)]
mod tests;
