//! What a budget's status should say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coracle_apimachinery::intstr::scaled_value;
use coracle_apimachinery::meta;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::owners::controller_of;
use crate::pods;

const CONDITION: &str = "DisruptionAllowed";
/// An evicted Pod is deleted within this time, or it stays.
const DELETION: SignedDuration = SignedDuration::from_mins(2);

/// How many Pods are asked for, and by which object (its uid), by the uid of the controller that
/// Pods name. A Deployment's Pods name its ReplicaSets.
pub(super) type Scales = HashMap<String, (String, i32)>;

pub(super) struct Observed<'a> {
    pub(super) budget: &'a PodDisruptionBudget,
    /// Those that it selects.
    pub(super) pods: &'a [Arc<Pod>],
    /// Of their controllers, where [`needs_scales`] says so.
    pub(super) scales: &'a Scales,
    pub(super) now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) status: PodDisruptionBudgetStatus,
    /// Evicted Pods that were not deleted in time.
    pub(super) overdue: Vec<Arc<Pod>>,
    /// Pods that count for nothing: nobody says how many of them there should be.
    pub(super) unmanaged: Vec<String>,
    /// When the next evicted Pod should be gone.
    pub(super) recheck: Option<SignedDuration>,
}

/// Whether the budget is measured by what the Pods' controllers ask for.
pub(super) fn needs_scales(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// Decides what the budget allows, or says why that cannot be known.
pub(super) fn plan(observed: &Observed) -> Result<Plan, String> {
    let Observed {
        budget, pods, now, ..
    } = observed;
    let mut plan = Plan::default();
    let (expected, desired) = desired(observed, &mut plan.unmanaged)?;
    let disrupted = disrupted(observed, &mut plan);
    let healthy = |pod: &&Arc<Pod>| {
        !meta::is_terminating(&pod.metadata)
            && !disrupted.contains_key(meta::name(&pod.metadata))
            && pods::ready(pod)
    };
    let healthy = count(pods.iter().filter(healthy).count());
    // A budget that matches no Pods yet must not let the first ones go before it was updated.
    let allowed = if expected <= 0 {
        0
    } else {
        (healthy - desired).max(0)
    };
    let old = budget.status.clone().unwrap_or_default();
    let generation = budget.metadata.generation;
    let reason = if allowed > 0 {
        "SufficientPods"
    } else {
        "InsufficientPods"
    };
    let condition = condition(allowed > 0, reason, String::new(), generation, *now);
    plan.status = PodDisruptionBudgetStatus {
        conditions: Some(with(old.conditions, condition)),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: generation,
    };
    Ok(plan)
}

/// The status of a budget of which nothing can be said: nobody may go.
pub(super) fn fail_safe(
    budget: &PodDisruptionBudget,
    message: String,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    let condition = condition(
        false,
        "SyncFailed",
        message,
        status.observed_generation,
        now,
    );
    status.disruptions_allowed = Some(0);
    status.conditions = Some(with(status.conditions, condition));
    status
}

/// Whether two statuses say the same.
pub(super) fn same(a: &PodDisruptionBudgetStatus, b: &PodDisruptionBudgetStatus) -> bool {
    let normal = |status: &PodDisruptionBudgetStatus| {
        let mut status = status.clone();
        status.disrupted_pods = status.disrupted_pods.filter(|pods| !pods.is_empty());
        status
    };
    normal(a) == normal(b)
}

/// How many Pods there should be, and how many of them healthy.
fn desired(observed: &Observed, unmanaged: &mut Vec<String>) -> Result<(i32, i32), String> {
    let spec = observed.budget.spec.clone().unwrap_or_default();
    if let Some(most) = &spec.max_unavailable {
        let expected = expected(observed, unmanaged)?;
        let most = scaled_value(most, expected, true).map_err(|error| error.to_string())?;
        return Ok((expected, expected.saturating_sub(most).max(0)));
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => Ok((count(observed.pods.len()), *least)),
        Some(percent) => {
            let expected = expected(observed, unmanaged)?;
            let least = scaled_value(percent, expected, true);
            Ok((expected, least.map_err(|error| error.to_string())?))
        }
        // The API sets neither by itself; then nothing is demanded of anybody.
        None => Ok((0, 0)),
    }
}

/// What the Pods' controllers ask for together, each counted once.
fn expected(observed: &Observed, unmanaged: &mut Vec<String>) -> Result<i32, String> {
    let mut asked: HashMap<&str, i32> = HashMap::new();
    for pod in observed.pods {
        let name = meta::name(&pod.metadata);
        let Some(controller) = controller_of(&pod.metadata) else {
            unmanaged.push(name.to_owned());
            continue;
        };
        let scale = observed.scales.get(&controller.uid);
        let (uid, replicas) =
            scale.ok_or_else(|| format!("found no controllers for pod {name:?}"))?;
        asked.insert(uid, *replicas);
    }
    Ok(asked.into_values().fold(0, i32::saturating_add))
}

/// Evicted Pods whose deletion is still to be seen.
fn disrupted(observed: &Observed, plan: &mut Plan) -> BTreeMap<String, Time> {
    let status = observed.budget.status.as_ref();
    let Some(evicted) = status.and_then(|status| status.disrupted_pods.as_ref()) else {
        return BTreeMap::new();
    };
    let mut disrupted = BTreeMap::new();
    for pod in observed.pods {
        let name = meta::name(&pod.metadata);
        let Some(at) = evicted
            .get(name)
            .filter(|_| !meta::is_terminating(&pod.metadata))
        else {
            continue;
        };
        let left = DELETION - observed.now.duration_since(at.0);
        if left.is_positive() {
            plan.recheck = Some(plan.recheck.map_or(left, |soonest| soonest.min(left)));
            disrupted.insert(name.to_owned(), at.clone());
        } else {
            plan.overdue.push(pod.clone());
        }
    }
    disrupted
}

fn condition(
    allowed: bool,
    reason: &str,
    message: String,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: CONDITION.to_owned(),
        status: if allowed { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation,
        last_transition_time: Time(now),
    }
}

/// The conditions with this one among them; its time stays where its status does.
fn with(conditions: Option<Vec<Condition>>, mut new: Condition) -> Vec<Condition> {
    let mut conditions = conditions.unwrap_or_default();
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    conditions
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
