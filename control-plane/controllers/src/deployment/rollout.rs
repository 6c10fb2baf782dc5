//! How the Pods of one revision replace those of another.

use std::sync::Arc;

use coracle_apimachinery::intstr::scaled_value;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{Action, Observed};
use super::revision::{REVISION, current, initial};
use super::template::{actual, available, new_set, replicas, wanted};
use crate::owners::controlled_by;
use crate::pods;

/// How far a rolling update may deviate from the wanted size, in Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

impl Limits {
    /// Percentages of the surge are rounded up and those of the unavailable Pods down; should
    /// both be zero, one Pod may be unavailable, or nothing would ever move.
    pub(super) fn of(deployment: &Deployment) -> Self {
        if recreates(deployment) {
            return Self::default();
        }
        let wanted = wanted(deployment);
        let strategy = deployment.spec.strategy.as_ref();
        let rolling = strategy
            .and_then(|s| s.rolling_update.clone())
            .unwrap_or_default();
        let scaled = |value: Option<IntOrString>, round_up| {
            let value = value.unwrap_or_else(|| IntOrString::String("25%".to_owned()));
            // Validation admits no other strings than percentages.
            scaled_value(&value, wanted, round_up).unwrap_or(0)
        };
        let surge = scaled(rolling.max_surge, true);
        let unavailable = scaled(rolling.max_unavailable, false);
        let stuck = surge == 0 && unavailable == 0;
        let unavailable = if stuck { 1 } else { unavailable };
        Self {
            surge,
            unavailable: unavailable.min(wanted),
        }
    }
}

/// Whether the strategy is Recreate.
pub(super) fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// One step of a rolling update.
pub(super) fn roll(observed: &Observed<'_>) -> Vec<Action> {
    let Some(new) = &observed.new else {
        return create(observed, room(observed, 0));
    };
    let wanted = wanted(observed.deployment);
    let size = replicas(new);
    if size > wanted {
        return vec![observed.resize(new, wanted)];
    }
    let more = room(observed, size);
    if more > 0 {
        return vec![observed.resize(new, size + more)];
    }
    shrink(observed, new)
}

/// One step of a Recreate rollout: everything old ends before anything new begins.
pub(super) fn recreate(observed: &Observed<'_>) -> Vec<Action> {
    let old: Vec<_> = observed
        .old
        .iter()
        .filter(|set| replicas(set) > 0)
        .collect();
    if !old.is_empty() {
        return old.into_iter().map(|set| observed.resize(set, 0)).collect();
    }
    if old_pods_run(observed) {
        return Vec::new();
    }
    let wanted = wanted(observed.deployment);
    match &observed.new {
        None => create(observed, wanted),
        Some(new) if replicas(new) != wanted => vec![observed.resize(new, wanted)],
        Some(_) => Vec::new(),
    }
}

fn old_pods_run(observed: &Observed<'_>) -> bool {
    let new = observed
        .new
        .as_ref()
        .and_then(|set| set.metadata.uid.as_deref());
    observed.old.iter().any(|set| actual(set) > 0)
        || observed
            .pods
            .iter()
            .any(|pod| !pods::finished(pod) && !controlled_by(&pod.metadata, new))
}

fn create(observed: &Observed<'_>, replicas: i32) -> Vec<Action> {
    let deployment = observed.deployment;
    let revision = current(observed.old.iter().map(|set| &**set));
    let mut set = new_set(deployment);
    let max = wanted(deployment) + observed.limits.surge;
    set.metadata.annotations = Some(initial(deployment, revision, max));
    set.spec.replicas = Some(replicas);
    let shown = [(REVISION.to_owned(), revision.to_string())].into();
    vec![Action::Create(Box::new(set)), Action::Annotate(shown)]
}

/// How many Pods the new set may have beyond `size`.
fn room(observed: &Observed<'_>, size: i32) -> i32 {
    let wanted = wanted(observed.deployment);
    let most = wanted + observed.limits.surge;
    (most - observed.total()).min(wanted - size).max(0)
}

/// Scales old sets down: first what is not available anyway, then as much as may be missing.
fn shrink(observed: &Observed<'_>, new: &ReplicaSet) -> Vec<Action> {
    let least = wanted(observed.deployment) - observed.limits.unavailable;
    let new_unavailable = (replicas(new) - available(new)).max(0);
    let most = observed.total() - least - new_unavailable;
    if most <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<(&Arc<ReplicaSet>, i32)> = observed
        .old
        .iter()
        .map(|set| (set, replicas(set)))
        .collect();
    let mut left = most;
    for (set, size) in &mut sizes {
        let unhealthy = (*size - available(set)).clamp(0, left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let available: i32 = observed.all().map(|set| available(set)).sum();
    let mut left = available - least;
    for (_, size) in &mut sizes {
        let step = (*size).min(left.max(0));
        *size -= step;
        left -= step;
    }
    let changed = sizes
        .into_iter()
        .filter(|(set, size)| replicas(set) != *size);
    changed
        .map(|(set, size)| observed.resize(set, size))
        .collect()
}
