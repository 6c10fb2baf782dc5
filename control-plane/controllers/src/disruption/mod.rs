//! PodDisruptionBudgets: how many Pods may go now by somebody's will.
//!
//! The status is what `pods/eviction` obeys: it takes one from `disruptionsAllowed` and notes the
//! Pod in `disruptedPods`; here all is counted anew. A noted Pod counts as gone until it is, or
//! until two minutes have passed. When something cannot be known, nobody may go.
//!
//! Writes carry the version of the budget that was looked at, so that no eviction in between is
//! lost.

mod plan;
#[cfg(test)]
mod plan_tests;
mod scale;
pub(crate) mod stale;

use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use crate::context::{Context, PACE};
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::queue::WorkQueue;
use plan::{Observed, Plan, Scales, fail_safe, needs_scales, plan, same};

type Key = ObjectRef<PodDisruptionBudget>;

/// Passes at once.
const WORKERS: usize = 4;

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let informers = &context.informers;
    context.route(&informers.disruption_budgets, &queue, |budget| {
        vec![Key::from_obj(budget)]
    });
    let budgets = informers.disruption_budgets.store().clone();
    context.route(&informers.pods, &queue, move |pod| {
        let covering = budgets.state_filter(|budget| covers(budget, pod));
        covering.iter().map(|b| Key::from_obj(&**b)).collect()
    });
    // What is asked for may change before any Pod does.
    context.route(&informers.deployments, &queue, beside(&context));
    context.route(&informers.replica_sets, &queue, beside(&context));
    let cancel = context.cancel.clone();
    let controller = Arc::new(Controller {
        events: context.events.of("controllermanager"),
        context,
    });
    queue
        .drive("disruption", WORKERS, cancel, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
}

/// The budgets of an object's namespace that are measured by what is asked for.
fn beside<K: Resource>(context: &Context) -> impl Fn(&K) -> Vec<Key> + Send + Sync + 'static {
    let budgets = context.informers.disruption_budgets.store().clone();
    move |object| {
        let namespace = &object.meta().namespace;
        let budgets = budgets
            .state_filter(|budget| budget.metadata.namespace == *namespace && needs_scales(budget));
        budgets.iter().map(|b| Key::from_obj(&**b)).collect()
    }
}

struct Controller {
    context: Context,
    events: Events,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let informers = &self.context.informers;
        let Some(budget) = informers.disruption_budgets.store().get(key) else {
            return Ok(None);
        };
        if budget.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods = informers.pods.store();
        let pods = pods.state_filter(|pod| covers(&budget, pod));
        if pods.is_empty() {
            self.events
                .normal(&*budget, "NoPods", "No matching pods found".to_owned());
        }
        match self.decide(&budget, &pods).await {
            Ok(plan) => {
                self.tell(&budget, &plan);
                self.write(&budget, plan.status).await?;
                Ok(plan.recheck.map(|left| left.unsigned_abs()))
            }
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.events
                    .warning(&*budget, "CalculateExpectedPodCountFailed", message);
                let status = fail_safe(&budget, error.to_string(), Timestamp::now());
                self.write(&budget, status).await?;
                Err(error)
            }
        }
    }

    async fn decide(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<Plan, Error> {
        let namespace = budget.namespace().unwrap_or_default();
        let scales = if needs_scales(budget) {
            scale::scales(&self.context, &namespace, pods).await?
        } else {
            Scales::new()
        };
        let observed = Observed {
            budget,
            pods,
            scales: &scales,
            now: Timestamp::now(),
        };
        plan(&observed).map_err(Error::Object)
    }

    /// Records what somebody should look at.
    fn tell(&self, budget: &PodDisruptionBudget, plan: &Plan) {
        if !plan.unmanaged.is_empty() {
            let message = format!(
                "The pods {} have no controller that says how many there should be, so they do \
                 not count; to have them counted set \".spec.minAvailable\" to a number",
                plan.unmanaged.join(", ")
            );
            self.events.warning(budget, "UnmanagedPods", message);
        }
        let namespace = budget.namespace().unwrap_or_default();
        for pod in &plan.overdue {
            let name = budget.name_any();
            let message =
                format!("Pod was expected by PDB {namespace}/{name} to be deleted but it wasn't");
            self.events.warning(&**pod, "NotDeleted", message);
        }
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        if budget.status.as_ref().is_some_and(|old| same(old, &status)) {
            return Ok(());
        }
        let mut update = budget.clone();
        update.status = Some(status);
        let namespace = budget.namespace().unwrap_or_default();
        let api: Api<PodDisruptionBudget> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let written = api
            .replace_status(&budget.name_any(), &PostParams::default(), &update)
            .await;
        ignore_not_found(written)
            .map_err(Error::api("update the status of a PodDisruptionBudget"))?;
        Ok(())
    }
}

/// Whether the budget is about the Pod: an empty selector selects all of the namespace, none
/// selects nothing.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    budget.metadata.namespace == pod.metadata.namespace
        && selector.is_some_and(|selector| {
            Selector::from_label_selector(selector)
                .is_ok_and(|selector| selector.matches(pod.labels()))
        })
}
