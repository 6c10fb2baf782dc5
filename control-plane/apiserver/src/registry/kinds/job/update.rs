//! What may change of a Job.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::{Affinity, Container, PodTemplateSpec};

use crate::validation::job::is_indexed;
use crate::validation::{immutable, items, shown};

/// A Job keeps what its Pods are made of. One that is suspended and has no Pods may still be told
/// where to run and with how much, which is how queues of Jobs work.
pub(super) fn validate_spec_update(
    new: &JobSpec,
    old: &JobSpec,
    movable: bool,
    errors: &mut ErrorList,
) {
    let at = Path::new("spec");
    if new.completions != old.completions {
        let at = at.child("completions");
        if !is_indexed(new) {
            immutable(&new.completions, &old.completions, &at, errors);
        } else if new.completions != new.parallelism {
            let detail = "can only be modified in tandem with spec.parallelism";
            errors.push(Error::invalid(&at, shown(&new.completions), detail));
        }
    }
    immutable(&new.selector, &old.selector, &at.child("selector"), errors);
    let mut template = new.template.clone();
    if movable {
        copy_placement(&mut template, &old.template);
        copy_resources(&mut template, &old.template);
        let at = at.child("template.spec");
        immutable(&template.spec, &old.template.spec, &at, errors);
    } else {
        immutable(&template, &old.template, &at.child("template"), errors);
    }
    immutable(
        &new.completion_mode,
        &old.completion_mode,
        &at.child("completionMode"),
        errors,
    );
    immutable(
        &new.pod_failure_policy,
        &old.pod_failure_policy,
        &at.child("podFailurePolicy"),
        errors,
    );
    immutable(
        &new.backoff_limit_per_index,
        &old.backoff_limit_per_index,
        &at.child("backoffLimitPerIndex"),
        errors,
    );
    immutable(
        &new.managed_by,
        &old.managed_by,
        &at.child("managedBy"),
        errors,
    );
    immutable(
        &new.success_policy,
        &old.success_policy,
        &at.child("successPolicy"),
        errors,
    );
}

/// Takes over what says where Pods run, and how they are labelled.
fn copy_placement(new: &mut PodTemplateSpec, old: &PodTemplateSpec) {
    let was = old.metadata.clone().unwrap_or_default();
    let meta = new.metadata.get_or_insert_default();
    (meta.labels, meta.annotations) = (was.labels, was.annotations);
    let (Some(pod), Some(was)) = (&mut new.spec, &old.spec) else {
        return;
    };
    pod.node_selector.clone_from(&was.node_selector);
    pod.tolerations.clone_from(&was.tolerations);
    pod.scheduling_gates.clone_from(&was.scheduling_gates);
    let before = was.affinity.as_ref();
    match (&mut pod.affinity, before) {
        (Some(affinity), _) => {
            affinity.node_affinity = before.and_then(|before| before.node_affinity.clone());
            if before.is_none() && *affinity == Affinity::default() {
                pod.affinity = None;
            }
        }
        (None, Some(before))
            if before.pod_affinity.is_none() && before.pod_anti_affinity.is_none() =>
        {
            pod.affinity = was.affinity.clone();
        }
        (None, _) => {}
    }
}

/// Takes over what the containers ask for.
fn copy_resources(new: &mut PodTemplateSpec, old: &PodTemplateSpec) {
    let (Some(pod), Some(was)) = (&mut new.spec, &old.spec) else {
        return;
    };
    let copy = |new: &mut [Container], old: &[Container]| {
        if new.len() == old.len() {
            let both = new.iter_mut().zip(old);
            for (new, old) in both.filter(|(new, old)| new.name == old.name) {
                new.resources.clone_from(&old.resources);
            }
        }
    };
    copy(&mut pod.containers, &was.containers);
    copy(
        pod.init_containers.as_deref_mut().unwrap_or_default(),
        items(&was.init_containers),
    );
}
