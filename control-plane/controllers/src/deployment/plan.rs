//! What a Deployment needs: the decision, without I/O.

use std::sync::Arc;

use coracle_apimachinery::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::revision::{Annotations, DESIRED, REVISION, current, missing, number, revision, size};
use super::rollout::{Limits, recreate, roll};
use super::template::{age, is_for, replicas, wanted};
use super::{proportion, status};
use crate::owners::{Claim, claim};

/// What one pass sees.
pub(super) struct Observed<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) limits: Limits,
    /// The ReplicaSet of the current template.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
    /// Sets to adopt or to release.
    pub(super) strays: Vec<Action>,
    /// Pods of all the sets, where the strategy asks for them.
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Adopt(Arc<ReplicaSet>),
    Release(Arc<ReplicaSet>),
    Create(Box<ReplicaSet>),
    Update {
        set: Arc<ReplicaSet>,
        change: Change,
    },
    Delete(Arc<ReplicaSet>),
    /// Sets annotations of the Deployment itself.
    Annotate(Annotations),
}

/// What changes in a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Change {
    pub(super) annotations: Annotations,
    pub(super) replicas: Option<i32>,
    pub(super) min_ready_seconds: Option<i32>,
}

impl Change {
    pub(super) fn spec(&self) -> Value {
        let mut spec = json!({});
        if let Some(replicas) = self.replicas {
            spec["replicas"] = replicas.into();
        }
        if let Some(seconds) = self.min_ready_seconds {
            spec["minReadySeconds"] = seconds.into();
        }
        spec
    }

    /// The event's words, if the change is one of size.
    pub(super) fn announcement(&self, set: &ReplicaSet) -> Option<String> {
        let (from, to) = (replicas(set), self.replicas?);
        let direction = match to.cmp(&from) {
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => "up",
        };
        let name = set.name_any();
        Some(format!(
            "Scaled {direction} replica set {name} from {from} to {to}"
        ))
    }
}

impl<'a> Observed<'a> {
    /// `sets` are those of the Deployment and those without a controller that it selects.
    pub(super) fn new(
        deployment: &'a Deployment,
        selector: &Selector,
        sets: &[Arc<ReplicaSet>],
        pods: &'a [Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let mut strays = Vec::new();
        let mut ours = Vec::new();
        for set in sets {
            let chosen = selector.matches(set.labels());
            match claim(&deployment.metadata, &set.metadata, chosen) {
                Claim::Keep => ours.push(set.clone()),
                Claim::Adopt => strays.push(Action::Adopt(set.clone())),
                Claim::Release => strays.push(Action::Release(set.clone())),
                Claim::Ignore => {}
            }
        }
        ours.sort_by_key(|set| age(set));
        // Should two sets have the current template, the oldest is the one.
        let new = ours.iter().find(|set| is_for(set, deployment)).cloned();
        let is_new = |set: &Arc<ReplicaSet>| new.as_ref().is_some_and(|n| Arc::ptr_eq(n, set));
        let old = ours.iter().filter(|set| !is_new(set)).cloned().collect();
        let limits = Limits::of(deployment);
        Self {
            deployment,
            limits,
            new,
            old,
            strays,
            pods,
            now,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn total(&self) -> i32 {
        self.all().map(|set| replicas(set)).sum()
    }

    pub(super) fn paused(&self) -> bool {
        self.deployment.spec.paused.unwrap_or(false)
    }

    /// Whether the Deployment's size differs from the one that its sets were last scaled for.
    pub(super) fn scaling(&self) -> bool {
        let wanted = i64::from(wanted(self.deployment));
        let mut active = self.all().filter(|set| replicas(set) > 0);
        active.any(|set| number(&**set, DESIRED).is_some_and(|desired| desired != wanted))
    }

    /// The annotations by which sets remember the Deployment's size.
    pub(super) fn size(&self) -> Annotations {
        let desired = wanted(self.deployment);
        size(self.deployment, desired + self.limits.surge)
    }

    pub(super) fn resize(&self, set: &Arc<ReplicaSet>, replicas: i32) -> Action {
        let change = Change {
            annotations: self.size(),
            replicas: Some(replicas),
            min_ready_seconds: None,
        };
        Action::Update {
            set: set.clone(),
            change,
        }
    }
}

/// What to do.
pub(super) fn plan(observed: &Observed<'_>) -> Vec<Action> {
    if !observed.strays.is_empty() {
        return observed.strays.clone();
    }
    if observed.deployment.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let refreshed = refresh(observed);
    if !refreshed.is_empty() {
        return refreshed;
    }
    let mut actions: Vec<_> = annotate(observed).into_iter().collect();
    if observed.paused() {
        actions.extend(scale(observed));
        actions.extend(clean_up(observed));
    } else if observed.scaling() {
        actions.extend(scale(observed));
    } else {
        let rollout = if super::rollout::recreates(observed.deployment) {
            recreate(observed)
        } else {
            roll(observed)
        };
        let idle = rollout.is_empty();
        actions.extend(rollout);
        let status = observed.deployment.status.as_ref();
        if idle && status.is_some_and(|s| status::complete(observed.deployment, s)) {
            actions.extend(clean_up(observed));
        }
    }
    actions
}

/// Brings the set of the current template up to date with the Deployment's annotations, its
/// revision and `minReadySeconds`.
fn refresh(observed: &Observed<'_>) -> Vec<Action> {
    let Some(set) = &observed.new else {
        return Vec::new();
    };
    let revision = current(observed.old.iter().map(|set| &**set));
    let annotations = missing(observed.deployment, set, revision);
    let wanted = observed.deployment.spec.min_ready_seconds.unwrap_or(0);
    let has = set.spec.min_ready_seconds.unwrap_or(0);
    let min_ready_seconds = (wanted != has).then_some(wanted);
    if annotations.is_empty() && min_ready_seconds.is_none() {
        return Vec::new();
    }
    let change = Change {
        annotations,
        replicas: None,
        min_ready_seconds,
    };
    vec![Action::Update {
        set: set.clone(),
        change,
    }]
}

/// Shows the current revision on the Deployment.
fn annotate(observed: &Observed<'_>) -> Option<Action> {
    let current = revision(&**observed.new.as_ref()?);
    let shown = revision(observed.deployment);
    (current > 0 && current != shown)
        .then(|| Action::Annotate([(REVISION.to_owned(), current.to_string())].into()))
}

/// Scales without rolling out: the one set that has Pods, or all of them in proportion.
fn scale(observed: &Observed<'_>) -> Vec<Action> {
    let wanted = wanted(observed.deployment);
    let active: Vec<_> = observed.all().filter(|set| replicas(set) > 0).collect();
    let resize = |set: &Arc<ReplicaSet>, replicas: i32| {
        let annotations = observed.size();
        let known = annotations
            .iter()
            .all(|(k, v)| set.annotations().get(k) == Some(v));
        let same = known && super::template::replicas(set) == replicas;
        (!same).then(|| observed.resize(set, replicas))
    };
    if let [single] = active[..] {
        return resize(single, wanted).into_iter().collect();
    }
    if active.is_empty() {
        let latest = observed.new.as_ref().or(observed.old.last());
        return latest
            .and_then(|set| resize(set, wanted))
            .into_iter()
            .collect();
    }
    if observed
        .new
        .as_ref()
        .is_some_and(|set| saturated(observed.deployment, set))
    {
        let old = observed.old.iter().filter(|set| replicas(set) > 0);
        return old.map(|set| observed.resize(set, 0)).collect();
    }
    if super::rollout::recreates(observed.deployment) {
        return Vec::new();
    }
    let shares = proportion::shares(observed.deployment, &active, observed.limits.surge);
    shares
        .into_iter()
        .filter_map(|(set, replicas)| resize(&set, replicas))
        .collect()
}

/// Whether the new set alone does all that the Deployment asks for.
fn saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    let desired = number(set, DESIRED);
    replicas(set) == wanted
        && desired == Some(wanted.into())
        && super::template::available(set) == wanted
}

/// Deletes the oldest sets without Pods, beyond the history that is kept.
fn clean_up(observed: &Observed<'_>) -> Vec<Action> {
    let limit = observed
        .deployment
        .spec
        .revision_history_limit
        .unwrap_or(10);
    if limit == i32::MAX {
        return Vec::new();
    }
    let limit = usize::try_from(limit).unwrap_or(0);
    let alive = |set: &&Arc<ReplicaSet>| set.metadata.deletion_timestamp.is_none();
    let mut sets: Vec<_> = observed.old.iter().filter(alive).collect();
    let surplus = sets.len().saturating_sub(limit);
    sets.sort_by_key(|set| (revision(&***set), age(set)));
    let idle = |set: &&Arc<ReplicaSet>| {
        let status = set.status.clone().unwrap_or_default();
        replicas(set) == 0
            && status.replicas == 0
            && set.metadata.generation <= status.observed_generation
    };
    let surplus = sets.into_iter().take(surplus).filter(idle);
    surplus.map(|set| Action::Delete(set.clone())).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
