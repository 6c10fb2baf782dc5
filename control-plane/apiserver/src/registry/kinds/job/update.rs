//! What may change of a Job, and what its status may say.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec};

use crate::validation::job::is_indexed;
use crate::validation::{immutable, items, non_negative, shown, text};

/// A Job keeps what its Pods are made of. One that is suspended and never ran may still be told
/// where to run, which is how queues of Jobs work.
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
    }
    immutable(&template, &old.template, &at.child("template"), errors);
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

/// Whether a condition holds.
pub(super) fn has(conditions: &Option<Vec<JobCondition>>, kind: &str) -> bool {
    items(conditions)
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Everything that is wrong with a status: what has ended stays ended, and says when.
pub(super) fn validate_status(
    status: &JobStatus,
    old: &JobStatus,
    spec: Option<&JobSpec>,
    errors: &mut ErrorList,
) {
    let at = Path::new("status");
    let counts = [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ];
    for (field, number) in counts {
        non_negative(number.unwrap_or(0), &at.child(field), errors);
    }
    if status == old {
        return;
    }
    let (complete, failed) = (
        has(&status.conditions, "Complete"),
        has(&status.conditions, "Failed"),
    );
    let finished = complete || failed;
    if complete && failed {
        let detail = "cannot set Complete=True and Failed=true conditions";
        errors.push(Error::invalid(
            &at.child("conditions"),
            serde_json::Value::Null,
            detail,
        ));
    }
    for kind in ["Complete", "Failed"] {
        if has(&old.conditions, kind) && !has(&status.conditions, kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            errors.push(Error::invalid(
                &at.child("conditions"),
                serde_json::Value::Null,
                detail,
            ));
        }
    }
    let completion_at = at.child("completionTime");
    match &status.completion_time {
        None if complete => {
            let detail = "completionTime is required for Complete jobs";
            errors.push(Error::required(&completion_at, detail));
        }
        Some(time) if !complete => {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            errors.push(Error::invalid(&completion_at, shown(time), detail));
        }
        _ => {}
    }
    if finished && status.start_time.is_none() {
        let detail = "startTime is required for finished job";
        errors.push(Error::required(&at.child("startTime"), detail));
    }
    if finished && status.active.unwrap_or(0) > 0 {
        let detail = "active>0 is invalid for finished job";
        errors.push(Error::invalid(&at.child("active"), status.active, detail));
    }
    let Some(spec) = spec else {
        return;
    };
    if !text(&status.completed_indexes).is_empty() && !is_indexed(spec) {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        let at = at.child("completedIndexes");
        errors.push(Error::invalid(&at, text(&status.completed_indexes), detail));
    }
    if let Some(indexes) = &status.failed_indexes
        && spec.backoff_limit_per_index.is_none()
    {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(Error::invalid(
            &at.child("failedIndexes"),
            indexes.as_str(),
            detail,
        ));
    }
}
