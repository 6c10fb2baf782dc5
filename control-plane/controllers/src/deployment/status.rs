//! The status of a Deployment: counts, and the conditions `Available`, `Progressing` and
//! `ReplicaFailure`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSetCondition};
use kube::ResourceExt;

use super::conditions::{AVAILABLE, Conditions, PROGRESSING, REPLICA_FAILURE};
use super::plan::Observed;
use super::revision::Annotations;
use super::template::{actual, available, replicas, wanted};

/// What applying the plan brought about that the caches do not show yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// The name of a ReplicaSet that was created.
    pub(super) created: Option<String>,
    /// Why none could be created.
    pub(super) create_failed: Option<String>,
    /// The name for the new ReplicaSet is taken by another template.
    pub(super) collided: bool,
    /// Annotations to be written together with the status.
    pub(super) annotations: Annotations,
}

/// The status that the Deployment should show.
pub(super) fn status(observed: &Observed<'_>, outcome: &Outcome) -> DeploymentStatus {
    let deployment = observed.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(observed, &old);
    if outcome.collided {
        status.collision_count = Some(old.collision_count.unwrap_or(0) + 1);
    }
    let mut conditions = Conditions::new(old.conditions.clone(), observed.now);
    let least = wanted(deployment) - observed.limits.unavailable;
    if status.available_replicas.unwrap_or(0) >= least {
        let message = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message);
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
    pausing(observed, &mut conditions);
    let deleted = deployment.metadata.deletion_timestamp.is_some();
    if !deleted && !observed.paused() && !observed.scaling() {
        progress(observed, outcome, &old, &status, &mut conditions);
        match replica_failure(observed) {
            Some(failure) => {
                let reason = failure.reason.unwrap_or_default();
                let message = failure.message.unwrap_or_default();
                let status = failure.status.unwrap_or_default();
                conditions.set(REPLICA_FAILURE, &status, &reason, &message);
            }
            None => conditions.remove(REPLICA_FAILURE),
        }
    }
    status.conditions = conditions.finish();
    status
}

/// Whether every Pod is of the current revision and available.
pub(super) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// When to look whether the progress deadline has passed.
pub(super) fn next_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let conditions = status.conditions.iter().flatten();
    let progressing = conditions
        .into_iter()
        .find(|c| c.type_.as_deref() == Some(PROGRESSING))?;
    let ended = matches!(
        progressing.reason.as_deref(),
        Some("ProgressDeadlineExceeded" | "NewReplicaSetAvailable" | "DeploymentPaused")
    );
    if ended || complete(deployment, status) {
        return None;
    }
    let left = progressing
        .last_update_time
        .as_ref()?
        .0
        .saturating_add(deadline)
        .ok()?;
    let left = left.duration_since(now).max(SignedDuration::ZERO);
    Duration::try_from(left + SignedDuration::from_secs(1)).ok()
}

fn counts(observed: &Observed<'_>, old: &DeploymentStatus) -> DeploymentStatus {
    let nonzero = |n: i32| (n > 0).then_some(n);
    let available: i32 = observed.all().map(|set| available(set)).sum();
    let sets = || observed.all().filter_map(|set| set.status.as_ref());
    let ready: i32 = sets().filter_map(|s| s.ready_replicas).sum();
    let terminating: i32 = sets().filter_map(|s| s.terminating_replicas).sum();
    DeploymentStatus {
        observed_generation: observed.deployment.metadata.generation,
        replicas: nonzero(observed.all().map(|set| actual(set)).sum()),
        updated_replicas: observed.new.as_ref().and_then(|set| nonzero(actual(set))),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero(observed.total() - available),
        terminating_replicas: nonzero(terminating),
        collision_count: old.collision_count,
        conditions: None,
    }
}

/// While a Deployment is paused its progress is unknown, and no deadline runs.
fn pausing(observed: &Observed<'_>, conditions: &mut Conditions) {
    let reason = conditions.reason(PROGRESSING);
    if deadline(observed.deployment).is_none() || reason == Some("ProgressDeadlineExceeded") {
        return;
    }
    let shown = reason == Some("DeploymentPaused");
    if observed.paused() && !shown {
        conditions.set(
            PROGRESSING,
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused",
        );
    } else if !observed.paused() && shown {
        conditions.set(
            PROGRESSING,
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed",
        );
    }
}

fn progress(
    observed: &Observed<'_>,
    outcome: &Outcome,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
) {
    let deployment = observed.deployment;
    let Some(deadline) = deadline(deployment) else {
        return conditions.remove(PROGRESSING);
    };
    if let Some(message) = &outcome.create_failed {
        return conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", message);
    }
    if let Some(name) = &outcome.created {
        let message = format!("Created new replica set {name:?}");
        return conditions.renew(PROGRESSING, "True", "NewReplicaSetCreated", &message);
    }
    if let (Some(new), None) = (&observed.new, conditions.get(PROGRESSING)) {
        let message = format!("Found new replica set {:?}", new.name_any());
        conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", &message);
    }
    let settled = status.replicas == status.updated_replicas
        && conditions.reason(PROGRESSING) == Some("NewReplicaSetAvailable");
    if settled {
        return;
    }
    let subject = match &observed.new {
        Some(set) => format!("ReplicaSet {:?}", set.name_any()),
        None => format!("Deployment {:?}", deployment.name_any()),
    };
    if complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        conditions.set(PROGRESSING, "True", "NewReplicaSetAvailable", &message);
    } else if progressed(old, status) {
        let message = format!("{subject} is progressing.");
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &message);
    } else if timed_out(conditions, deadline, observed.now) {
        let message = format!("{subject} has timed out progressing.");
        conditions.set(PROGRESSING, "False", "ProgressDeadlineExceeded", &message);
    }
}

fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn timed_out(conditions: &Conditions, deadline: SignedDuration, now: Timestamp) -> bool {
    let Some(condition) = conditions.get(PROGRESSING) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => condition
            .last_update_time
            .as_ref()
            .is_some_and(|at| now.duration_since(at.0) > deadline),
    }
}

/// The progress deadline, if there is one.
fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

/// The newest failure that a ReplicaSet reports, that of the new one first.
fn replica_failure(observed: &Observed<'_>) -> Option<ReplicaSetCondition> {
    let mut sets = observed
        .new
        .iter()
        .chain(observed.old.iter().filter(|set| replicas(set) > 0));
    sets.find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|c| c.type_.as_deref() == Some(REPLICA_FAILURE))
            .cloned()
    })
}
