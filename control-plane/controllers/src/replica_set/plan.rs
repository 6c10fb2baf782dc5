//! What a ReplicaSet needs: the decision, without I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use super::{Failure, rank};
use crate::owners::{Claim, claim, controller_reference};
use crate::pods;

/// Pods created or deleted in one pass at most.
const BURST: usize = 500;

/// What one pass sees.
pub(super) struct Observed<'a> {
    pub(super) set: &'a ReplicaSet,
    pub(super) selector: &'a Selector,
    /// Pods of the set, and Pods without a controller that its selector chooses.
    pub(super) pods: &'a [Arc<Pod>],
    /// Pods that are being deleted though they look active, by uid.
    pub(super) doomed: &'a HashSet<String>,
    /// Active Pods of the set and its siblings, by node.
    pub(super) related: &'a HashMap<String, usize>,
    pub(super) now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(usize),
    Delete(Arc<Pod>),
}

/// What to do.
pub(super) fn plan(observed: &Observed<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for pod in observed.pods {
        match observed.claim(pod) {
            Claim::Adopt if !pods::finished(pod) => actions.push(Action::Adopt(pod.clone())),
            Claim::Release if pods::active(pod) => actions.push(Action::Release(pod.clone())),
            _ => {}
        }
    }
    if observed.set.metadata.deletion_timestamp.is_some() {
        return actions;
    }
    let mut active = observed.active();
    let wanted = observed.wanted();
    if active.len() < wanted {
        actions.push(Action::Create((wanted - active.len()).min(BURST)));
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        active.sort_by(|a, b| rank::compare(a, b, observed.related, observed.now));
        actions.extend(
            active
                .into_iter()
                .take(surplus)
                .cloned()
                .map(Action::Delete),
        );
    }
    actions
}

/// The status that the set should show.
pub(super) fn status(observed: &Observed<'_>, failure: Option<&Failure>) -> ReplicaSetStatus {
    let set = observed.set;
    let active = observed.active();
    let template = set.spec.template.as_ref();
    let labels = template
        .and_then(|t| t.metadata.as_ref())
        .and_then(|m| m.labels.clone());
    let labels = labels.unwrap_or_default();
    let labelled = |pod: &&&Arc<Pod>| labels.iter().all(|(k, v)| pod.labels().get(k) == Some(v));
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    // Absent means zero, as everywhere in Kubernetes.
    let nonzero = |n: usize| (n > 0).then(|| count(n));
    let terminating = observed.pods.iter().filter(|pod| {
        observed.claim(pod) == Claim::Keep
            && pod.metadata.deletion_timestamp.is_some()
            && !pods::finished(pod)
    });
    let min_ready = min_ready_seconds(set);
    let available = active.iter().filter(|pod| {
        pods::until_available(pod, min_ready, observed.now).is_some_and(|left| left.is_zero())
    });
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: nonzero(active.iter().filter(labelled).count()),
        ready_replicas: nonzero(active.iter().filter(|pod| pods::ready(pod)).count()),
        available_replicas: nonzero(available.count()),
        terminating_replicas: nonzero(terminating.count()),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, observed.now),
    }
}

/// How long until a Pod becomes available by the passing of time alone.
pub(super) fn next_change(observed: &Observed<'_>) -> Option<Duration> {
    let min_ready = min_ready_seconds(observed.set);
    let active = observed.active();
    let waits = active
        .iter()
        .filter_map(|p| pods::until_available(p, min_ready, observed.now));
    let wait = waits.filter(|wait| !wait.is_zero()).min()?;
    Duration::try_from(wait).ok()
}

/// The Pod to create, but for its random name.
pub(super) fn pod_from(set: &ReplicaSet) -> Pod {
    let PodTemplateSpec { metadata, spec } = set.spec.template.clone().unwrap_or_default();
    let metadata = metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

impl Observed<'_> {
    fn wanted(&self) -> usize {
        let replicas = self.set.spec.replicas.unwrap_or(1);
        usize::try_from(replicas).unwrap_or(0)
    }

    fn claim(&self, pod: &Pod) -> Claim {
        claim(
            &self.set.metadata,
            &pod.metadata,
            self.selector.matches(pod.labels()),
        )
    }

    /// Pods that count as replicas, those about to be adopted among them.
    fn active(&self) -> Vec<&Arc<Pod>> {
        let ours = |pod: &&Arc<Pod>| matches!(self.claim(pod), Claim::Keep | Claim::Adopt);
        let doomed = |pod: &Pod| pod.uid().is_some_and(|uid| self.doomed.contains(&uid));
        let pods = self
            .pods
            .iter()
            .filter(|pod| pods::active(pod) && !doomed(pod));
        pods.filter(ours).collect()
    }
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let old = set
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    let (mut kept, others): (Vec<_>, Vec<_>) = old
        .into_iter()
        .partition(|c| c.type_.as_deref() == Some("ReplicaFailure"));
    let mut conditions = others;
    if let Some(failure) = failure {
        conditions.push(kept.pop().unwrap_or_else(|| ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
