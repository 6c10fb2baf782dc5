//! HorizontalPodAutoscalers, in the terms of v2.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricTarget,
};

use super::references::validate_segment;
use super::resources::{parse_quantity, validate_container_resource};
use super::{NEGATIVE, NOT_POSITIVE, faults, items, text};

/// Longest period of a policy, in seconds.
const MAX_PERIOD: i32 = 1800;
/// Longest time that is looked back, in seconds.
const MAX_WINDOW: i32 = 3600;
const TYPES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];

/// Everything that is wrong with a spec; `old` is what it replaces.
pub(crate) fn validate_autoscaler(
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscalerSpec>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (min, max) = (spec.min_replicas, spec.max_replicas);
    if let Some(min) = min.filter(|min| *min < 0) {
        errors.push(Error::invalid(&at.child("minReplicas"), min, NEGATIVE));
    }
    let max_at = at.child("maxReplicas");
    if max == 0 {
        errors.push(Error::required(&max_at, ""));
    } else if max < 0 {
        let detail = "must be greater than or equal to 1";
        errors.push(Error::invalid(&max_at, max, detail));
    }
    if min.is_some_and(|min| max < min) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(Error::invalid(&max_at, max, detail));
    }
    validate_scaled(spec, old, &at.child("scaleTargetRef"), errors);
    let metrics = items(&spec.metrics);
    let metrics_at = at.child("metrics");
    let was_invalid = old.is_some_and(|old| {
        items(&old.metrics)
            .iter()
            .filter_map(|metric| metric.object.as_ref())
            .any(|object| version_fault(&object.described_object, true).is_some())
    });
    for (i, metric) in metrics.iter().enumerate() {
        validate_metric(metric, was_invalid, &metrics_at.index(i), errors);
    }
    // None are measured where no Pod runs but by what is counted elsewhere.
    let elsewhere = |metric: &MetricSpec| matches!(metric.type_.as_str(), "Object" | "External");
    if min == Some(0) && !metrics.iter().any(elsewhere) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(&metrics_at, detail));
    }
    if let Some(behavior) = &spec.behavior {
        let at = at.child("behavior");
        let rules = [
            ("scaleUp", &behavior.scale_up),
            ("scaleDown", &behavior.scale_down),
        ];
        for (field, rules) in rules {
            if let Some(rules) = rules {
                validate_rules(rules, &at.child(field), errors);
            }
        }
    }
}

/// What is scaled. Of a version that has stayed what it was nothing is said anew.
fn validate_scaled(
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscalerSpec>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let target = &spec.scale_target_ref;
    validate_reference(target, at, errors);
    let same = old.is_some_and(|old| {
        let old = &old.scale_target_ref;
        text(&old.api_version) == text(&target.api_version) && old.kind == target.kind
    });
    if !same {
        // The one kind of the core group that has a scale.
        let may_be_core = target.kind == "ReplicationController";
        validate_version(target, may_be_core, at, errors);
    }
}

fn validate_reference(reference: &CrossVersionObjectReference, at: &Path, errors: &mut ErrorList) {
    validate_segment(&reference.kind, &at.child("kind"), errors);
    validate_segment(&reference.name, &at.child("name"), errors);
}

fn validate_version(
    reference: &CrossVersionObjectReference,
    may_be_core: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(fault) = version_fault(reference, may_be_core) {
        let version = text(&reference.api_version);
        errors.push(Error::invalid(&at.child("apiVersion"), version, fault));
    }
}

/// What is wrong with the version of a reference, which names a group unless it may be the core's.
fn version_fault(reference: &CrossVersionObjectReference, may_be_core: bool) -> Option<String> {
    let version = text(&reference.api_version);
    match version.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            Some(format!("unexpected GroupVersion string: {version}"))
        }
        Some((group, _)) if !group.is_empty() => None,
        _ if may_be_core => None,
        _ => Some("apiVersion must specify API group".to_owned()),
    }
}

fn validate_rules(rules: &HPAScalingRules, at: &Path, errors: &mut ErrorList) {
    if let Some(window) = rules.stabilization_window_seconds {
        let at = at.child("stabilizationWindowSeconds");
        if window < 0 {
            let detail = "must be greater than or equal to zero";
            errors.push(Error::invalid(&at, window, detail));
        }
        if window > MAX_WINDOW {
            let detail = format!("must be less than or equal to {MAX_WINDOW}");
            errors.push(Error::invalid(&at, window, detail));
        }
    }
    if let Some(select) = &rules.select_policy {
        let supported = &["Disabled", "Max", "Min"];
        if !supported.contains(&select.as_str()) {
            let at = at.child("selectPolicy");
            errors.push(Error::not_supported(&at, select.as_str(), supported));
        }
    }
    let policies_at = at.child("policies");
    let policies = items(&rules.policies);
    if policies.is_empty() {
        let detail = "must specify at least one Policy";
        errors.push(Error::required(&policies_at, detail));
    }
    for (i, policy) in policies.iter().enumerate() {
        validate_policy(policy, &policies_at.index(i), errors);
    }
    if let Some(tolerance) = &rules.tolerance {
        let at = at.child("tolerance");
        let parsed = parse_quantity(tolerance, &at, errors);
        if let Some(tolerance) = parsed.filter(Quantity::is_negative) {
            let detail = "must be greater or equal to zero";
            errors.push(Error::invalid(&at, tolerance.to_string(), detail));
        }
    }
}

fn validate_policy(policy: &HPAScalingPolicy, at: &Path, errors: &mut ErrorList) {
    let supported = &["Percent", "Pods"];
    if !supported.contains(&policy.type_.as_str()) {
        let at = at.child("type");
        errors.push(Error::not_supported(&at, policy.type_.as_str(), supported));
    }
    if policy.value <= 0 {
        errors.push(Error::invalid(
            &at.child("value"),
            policy.value,
            NOT_POSITIVE,
        ));
    }
    let (period, at) = (policy.period_seconds, at.child("periodSeconds"));
    if period <= 0 {
        errors.push(Error::invalid(&at, period, NOT_POSITIVE));
    }
    if period > MAX_PERIOD {
        let detail = format!("must be less than or equal to {MAX_PERIOD}");
        errors.push(Error::invalid(&at, period, detail));
    }
}

/// A metric: one source, that of its type.
fn validate_metric(metric: &MetricSpec, any_version: bool, at: &Path, errors: &mut ErrorList) {
    let kind = metric.type_.as_str();
    let type_at = at.child("type");
    if kind.is_empty() {
        let detail = "must specify a metric source type";
        errors.push(Error::required(&type_at, detail));
    }
    if !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&type_at, kind, TYPES));
    }
    let present: Vec<&str> = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ]
    .into_iter()
    .filter_map(|(source, present)| present.then_some(source))
    .collect();
    if let Some(first) = present.first() {
        let at = at.child(first);
        validate_source(metric, first, &at, errors);
        if let Some(object) = &metric.object
            && *first == "object"
            && !any_version
        {
            let at = at.child("describedObject");
            validate_version(&object.described_object, true, &at, errors);
        }
    }
    // Where the type is none, no source is the one to have.
    let mut expected = String::new();
    if TYPES.contains(&kind) {
        expected = kind.to_owned();
        if let Some(first) = expected.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        if !present.contains(&expected.as_str()) {
            let detail = "must populate information for the given metric source";
            errors.push(Error::required(&at.child(&expected), detail));
        }
    }
    if present.len() < 2 {
        return;
    }
    for other in present.iter().filter(|source| **source != expected) {
        let detail = "must populate the given metric source only";
        errors.push(Error::forbidden(&at.child(other), detail));
    }
}

fn validate_source(metric: &MetricSpec, source: &str, at: &Path, errors: &mut ErrorList) {
    let target_at = at.child("target");
    let average_at = target_at.child("averageValue");
    match source {
        "object" => {
            let Some(object) = &metric.object else { return };
            validate_reference(
                &object.described_object,
                &at.child("describedObject"),
                errors,
            );
            validate_identifier(&object.metric, &at.child("metric"), errors);
            validate_target(&object.target, &target_at, errors);
            if object.target.value.is_none() && object.target.average_value.is_none() {
                let detail = "must set either a target value or averageValue";
                errors.push(Error::required(&average_at, detail));
            }
        }
        "external" => {
            let Some(external) = &metric.external else {
                return;
            };
            let target = &external.target;
            validate_identifier(&external.metric, &at.child("metric"), errors);
            validate_target(target, &target_at, errors);
            match (target.value.is_some(), target.average_value.is_some()) {
                (false, false) => {
                    let detail = "must set either a target value for metric or a per-pod target";
                    errors.push(Error::required(&average_at, detail));
                }
                (true, true) => {
                    let detail = "may not set both a target value for metric and a per-pod target";
                    errors.push(Error::forbidden(&target_at.child("value"), detail));
                }
                _ => {}
            }
        }
        "pods" => {
            let Some(pods) = &metric.pods else { return };
            validate_identifier(&pods.metric, &at.child("metric"), errors);
            validate_target(&pods.target, &target_at, errors);
            if pods.target.average_value.is_none() {
                let detail = "must specify a positive target averageValue";
                errors.push(Error::required(&average_at, detail));
            }
        }
        "resource" => {
            let Some(resource) = &metric.resource else {
                return;
            };
            validate_resource(&resource.name, &resource.target, at, errors);
        }
        _ => {
            let Some(resource) = &metric.container_resource else {
                return;
            };
            let container_at = at.child("container");
            let container = resource.container.as_str();
            if container.is_empty() {
                errors.push(Error::required(&container_at, "must specify a container"));
            } else {
                faults(
                    container,
                    names::dns_label(container),
                    &container_at,
                    errors,
                );
            }
            if !resource.name.is_empty() {
                validate_container_resource(&resource.name, &at.child("name"), errors);
            }
            validate_resource(&resource.name, &resource.target, at, errors);
        }
    }
}

fn validate_resource(name: &str, target: &MetricTarget, at: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        let detail = "must specify a resource name";
        errors.push(Error::required(&at.child("name"), detail));
    }
    let at = at.child("target");
    validate_target(target, &at, errors);
    let (utilization, value) = (
        target.average_utilization.is_some(),
        target.average_value.is_some(),
    );
    if !utilization && !value {
        let detail = "must set either a target raw value or a target utilization";
        errors.push(Error::required(&at.child("averageUtilization"), detail));
    }
    if utilization && value {
        let detail = "may not set both a target raw value and a target utilization";
        errors.push(Error::forbidden(&at.child("averageValue"), detail));
    }
}

fn validate_target(target: &MetricTarget, at: &Path, errors: &mut ErrorList) {
    let (kind, type_at) = (target.type_.as_str(), at.child("type"));
    if kind.is_empty() {
        let detail = "must specify a metric target type";
        errors.push(Error::required(&type_at, detail));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(&type_at, kind, detail));
    }
    let values = [
        ("value", &target.value),
        ("averageValue", &target.average_value),
    ];
    for (field, value) in values {
        let Some(value) = value else { continue };
        let at = at.child(field);
        if let Some(value) = parse_quantity(value, &at, errors)
            && (value.is_zero() || value.is_negative())
        {
            errors.push(Error::invalid(&at, value.to_string(), "must be positive"));
        }
    }
    if let Some(utilization) = target.average_utilization.filter(|u| *u < 1) {
        let at = at.child("averageUtilization");
        errors.push(Error::invalid(&at, utilization, "must be greater than 0"));
    }
}

fn validate_identifier(metric: &MetricIdentifier, at: &Path, errors: &mut ErrorList) {
    let name_at = at.child("name");
    if metric.name.is_empty() {
        errors.push(Error::required(&name_at, "must specify a metric name"));
    } else {
        faults(
            &metric.name,
            names::path_segment(&metric.name),
            &name_at,
            errors,
        );
    }
}
