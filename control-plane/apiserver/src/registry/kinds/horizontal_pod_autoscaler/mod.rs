//! HorizontalPodAutoscaler: as many Pods as metrics ask for. It is stored in v2; v1 is a view.

mod columns;
mod v1;

use coracle_apimachinery::field::Path;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricStatus,
    MetricTarget, ResourceMetricSource,
};

pub(super) use self::v1::AutoscalerView;
use super::workload::spec_and_status;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::autoscaling::validate_autoscaler;
use crate::validation::resources::canonicalize_quantity;
use crate::validation::{items, non_negative};

/// What is aimed at where nothing is said: percents of the processor time that Pods request.
const UTILIZATION: i32 = 80;
/// Seconds in which a change is counted, where nothing is said.
const PERIOD: i32 = 15;

pub(super) struct AutoscalerStrategy;

impl Strategy for AutoscalerStrategy {
    type Object = HorizontalPodAutoscaler;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<HorizontalPodAutoscaler>()
            .short_names(&["hpa"])
            .categories(&["all"])
            .subresources(&[Subresource::Status])
            .generation()
    }

    fn set_defaults(&self, object: &mut HorizontalPodAutoscaler) {
        v1::drop_carried(&mut object.metadata);
        let spec = &mut object.spec;
        spec.min_replicas.get_or_insert(1);
        if items(&spec.metrics).is_empty() {
            spec.metrics = Some(vec![cpu_metric(UTILIZATION)]);
        }
        for metric in spec.metrics.iter_mut().flatten() {
            canonicalize_targets(metric);
        }
        if let Some(behavior) = &mut spec.behavior {
            let (pods, all) = (policy("Pods", 4), policy("Percent", 100));
            let up = behavior.scale_up.get_or_insert_default();
            set_rule_defaults(up, &[pods, all.clone()]);
            up.stabilization_window_seconds.get_or_insert(0);
            set_rule_defaults(behavior.scale_down.get_or_insert_default(), &[all]);
        }
        let status = object.status.get_or_insert_default();
        for metric in status.current_metrics.iter_mut().flatten() {
            canonicalize_values(metric);
        }
    }

    spec_and_status!(HorizontalPodAutoscaler);

    fn validate(&self, object: &HorizontalPodAutoscaler) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_autoscaler(&object.spec, None, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_update(
        &self,
        new: &HorizontalPodAutoscaler,
        old: &HorizontalPodAutoscaler,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        validate_autoscaler(&new.spec, Some(&old.spec), &at, &mut errors);
        errors
    }

    fn validate_status_update(
        &self,
        new: &HorizontalPodAutoscaler,
        _old: &HorizontalPodAutoscaler,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("status");
        let status = new.status.clone().unwrap_or_default();
        for (i, condition) in items(&status.conditions).iter().enumerate() {
            let at = at.child("conditions").index(i).child("observedGeneration");
            non_negative(condition.observed_generation.unwrap_or(0), &at, &mut errors);
        }
        let current = status.current_replicas.unwrap_or(0);
        non_negative(current, &at.child("currentReplicas"), &mut errors);
        let desired = status.desired_replicas;
        non_negative(desired, &at.child("desiredReplicas"), &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        columns::columns()
    }

    fn row(&self, object: &HorizontalPodAutoscaler, now: jiff::Timestamp) -> Vec<Cell> {
        columns::row(object, now)
    }
}

/// The metric that v1 has a field for.
fn cpu_metric(utilization: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(utilization),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy {
        type_: kind.to_owned(),
        value,
        period_seconds: PERIOD,
    }
}

fn set_rule_defaults(rules: &mut HPAScalingRules, policies: &[HPAScalingPolicy]) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(|| policies.to_vec());
    rules.tolerance.iter_mut().for_each(canonicalize_quantity);
}

/// Writes the quantities of a metric that is wished for in their usual form.
fn canonicalize_targets(metric: &mut MetricSpec) {
    let targets = [
        metric.container_resource.as_mut().map(|of| &mut of.target),
        metric.external.as_mut().map(|of| &mut of.target),
        metric.object.as_mut().map(|of| &mut of.target),
        metric.pods.as_mut().map(|of| &mut of.target),
        metric.resource.as_mut().map(|of| &mut of.target),
    ];
    for target in targets.into_iter().flatten() {
        target.value.iter_mut().for_each(canonicalize_quantity);
        let average = &mut target.average_value;
        average.iter_mut().for_each(canonicalize_quantity);
    }
}

/// The same of one that is measured.
fn canonicalize_values(metric: &mut MetricStatus) {
    let values = [
        metric.container_resource.as_mut().map(|of| &mut of.current),
        metric.external.as_mut().map(|of| &mut of.current),
        metric.object.as_mut().map(|of| &mut of.current),
        metric.pods.as_mut().map(|of| &mut of.current),
        metric.resource.as_mut().map(|of| &mut of.current),
    ];
    for current in values.into_iter().flatten() {
        current.value.iter_mut().for_each(canonicalize_quantity);
        let average = &mut current.average_value;
        average.iter_mut().for_each(canonicalize_quantity);
    }
}

#[cfg(test)]
mod tests;
