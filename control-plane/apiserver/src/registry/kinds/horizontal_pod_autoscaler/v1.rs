//! HorizontalPodAutoscaler in v1, which knows one metric: utilization of the processor.
//!
//! All else is carried in annotations, in the form that Kubernetes gives them: metrics and their
//! status in the terms of v1 (`targetAverageUtilization`), conditions as v2 has them, and the
//! behavior with the names of its fields in upper case.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::autoscaling::v1;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
    MetricSpec, MetricStatus, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{AutoscalerStrategy, cpu_metric};
use crate::registry::kinds::versions::View;
use crate::registry::strategy::{ErrorList, Strategy};
use crate::validation::items;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const ALL: [&str; 4] = [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS];

/// HorizontalPodAutoscaler as v1 has it.
pub(in crate::registry::kinds) struct AutoscalerView;

impl View for AutoscalerView {
    type Stored = AutoscalerStrategy;
    type Served = v1::HorizontalPodAutoscaler;

    fn stored(&self) -> &AutoscalerStrategy {
        &AutoscalerStrategy
    }

    fn to_stored(served: v1::HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
        to_v2(served)
    }

    fn from_stored(stored: HorizontalPodAutoscaler) -> v1::HorizontalPodAutoscaler {
        from_v2(stored)
    }

    fn validate(&self, served: &v1::HorizontalPodAutoscaler) -> ErrorList {
        let mut errors = annotation_faults(served);
        errors.extend(AutoscalerStrategy.validate(&to_v2(served.clone())));
        errors
    }

    fn validate_update(
        &self,
        new: &v1::HorizontalPodAutoscaler,
        old: &v1::HorizontalPodAutoscaler,
    ) -> ErrorList {
        let mut errors = annotation_faults(new);
        let (new, old) = (to_v2(new.clone()), to_v2(old.clone()));
        errors.extend(AutoscalerStrategy.validate_update(&new, &old));
        errors
    }
}

/// The object in v2. An annotation that cannot be read counts as absent: validation tells of it.
fn to_v2(object: v1::HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    let mut metadata = object.metadata;
    let [others, behavior, current, conditions] = drop_carried(&mut metadata);
    let spec = object.spec;
    let mut metrics: Vec<MetricSpec> = Vec::new();
    metrics.extend(spec.target_cpu_utilization_percentage.map(cpu_metric));
    metrics.extend(
        others
            .and_then(|text| read_metrics(&text, true))
            .into_iter()
            .flatten(),
    );
    let status = object.status.map(|status| {
        let cpu = status.current_cpu_utilization_percentage.map(cpu_status);
        let current = current.and_then(|text| read_metrics(&text, false));
        HorizontalPodAutoscalerStatus {
            observed_generation: status.observed_generation,
            last_scale_time: status.last_scale_time,
            current_replicas: Some(status.current_replicas).filter(|current| *current != 0),
            desired_replicas: status.desired_replicas,
            // What is carried says more than the field.
            current_metrics: current.or_else(|| cpu.map(|cpu| vec![cpu])),
            conditions: conditions.and_then(|text| serde_json::from_str(&text).ok()),
        }
    });
    HorizontalPodAutoscaler {
        metadata,
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: spec.scale_target_ref.api_version,
                kind: spec.scale_target_ref.kind,
                name: spec.scale_target_ref.name,
            },
            min_replicas: spec.min_replicas,
            max_replicas: spec.max_replicas,
            metrics: (!metrics.is_empty()).then_some(metrics),
            behavior: behavior.and_then(|text| read_behavior(&text)),
        },
        status,
    }
}

/// Takes away what v1 carries in annotations, which no object of v2 has: it would be taken for
/// the object's own where v1 is served.
pub(super) fn drop_carried(metadata: &mut ObjectMeta) -> [Option<String>; 4] {
    let mut carried: [Option<String>; 4] = Default::default();
    if let Some(annotations) = &mut metadata.annotations {
        carried = ALL.map(|name| annotations.remove(name));
        if annotations.is_empty() && carried.iter().any(Option::is_some) {
            metadata.annotations = None;
        }
    }
    carried
}

/// The object in v1.
fn from_v2(object: HorizontalPodAutoscaler) -> v1::HorizontalPodAutoscaler {
    let mut metadata = object.metadata;
    let spec = object.spec;
    let metrics = items(&spec.metrics);
    let cpu = metrics
        .iter()
        .position(|metric| utilization(metric).is_some());
    let others: Vec<Value> = metrics
        .iter()
        .enumerate()
        .filter(|(i, _)| Some(*i) != cpu)
        .filter_map(|(_, metric)| write_metric(metric))
        .collect();
    let mut carried: Vec<(&str, Option<String>)> = vec![
        (METRICS, write_list(others)),
        (
            BEHAVIOR,
            spec.behavior.as_ref().and_then(|behavior| {
                let value = serde_json::to_value(behavior).ok()?;
                Some(rename(value, str::to_uppercase).to_string())
            }),
        ),
    ];
    let status = object.status.map(|status| {
        let current = items(&status.current_metrics);
        carried.push((
            CURRENT_METRICS,
            write_list(current.iter().filter_map(write_metric).collect()),
        ));
        let conditions = items(&status.conditions);
        let conditions = conditions
            .iter()
            .filter_map(|c| serde_json::to_value(c).ok());
        carried.push((CONDITIONS, write_list(conditions.collect())));
        v1::HorizontalPodAutoscalerStatus {
            observed_generation: status.observed_generation,
            last_scale_time: status.last_scale_time,
            current_replicas: status.current_replicas.unwrap_or(0),
            desired_replicas: status.desired_replicas,
            current_cpu_utilization_percentage: current.iter().find_map(|metric| {
                let resource = metric.resource.as_ref()?;
                (resource.name == "cpu")
                    .then_some(resource.current.average_utilization)
                    .flatten()
            }),
        }
    });
    for (name, value) in carried {
        if let Some(value) = value {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(name.to_owned(), value);
        }
    }
    v1::HorizontalPodAutoscaler {
        metadata,
        spec: v1::HorizontalPodAutoscalerSpec {
            target_cpu_utilization_percentage: cpu.and_then(|at| utilization(&metrics[at])),
            scale_target_ref: v1::CrossVersionObjectReference {
                api_version: spec.scale_target_ref.api_version,
                kind: spec.scale_target_ref.kind,
                name: spec.scale_target_ref.name,
            },
            min_replicas: spec.min_replicas,
            max_replicas: spec.max_replicas,
        },
        status,
    }
}

/// The target of the metric that v1 has a field for.
fn utilization(metric: &MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref()?;
    let only = *metric == cpu_metric(resource.target.average_utilization?);
    only.then_some(resource.target.average_utilization)
        .flatten()
}

fn cpu_status(utilization: i32) -> MetricStatus {
    MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: MetricValueStatus {
                average_utilization: Some(utilization),
                ..MetricValueStatus::default()
            },
        }),
        ..MetricStatus::default()
    }
}

fn annotation_faults(object: &v1::HorizontalPodAutoscaler) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("metadata").child("annotations");
    let annotations = object.metadata.annotations.iter().flatten();
    for (name, text) in annotations {
        let readable = match name.as_str() {
            METRICS => read_metrics::<MetricSpec>(text, true).is_some(),
            CURRENT_METRICS => read_metrics::<MetricStatus>(text, false).is_some(),
            BEHAVIOR => read_behavior::<HorizontalPodAutoscalerBehavior>(text).is_some(),
            CONDITIONS => {
                serde_json::from_str::<Vec<HorizontalPodAutoscalerCondition>>(text).is_ok()
            }
            _ => true,
        };
        if !readable {
            let detail =
                "must be JSON as autoscaling/v1 carries it, which can be left to the server";
            errors.push(Error::invalid(&at.key(name), text.as_str(), detail));
        }
    }
    errors
}

fn write_list(list: Vec<Value>) -> Option<String> {
    (!list.is_empty()).then(|| Value::Array(list).to_string())
}

fn read_behavior<T: DeserializeOwned>(text: &str) -> Option<T> {
    let value: Value = serde_json::from_str(text).ok()?;
    serde_json::from_value(rename(value, str::to_lowercase)).ok()
}

/// Changes the first letter of each field's name.
fn rename(value: Value, change: fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed = fields.into_iter().map(|(name, value)| {
                let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
                (format!("{}{rest}", change(first)), rename(value, change))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(list) => list.into_iter().map(|item| rename(item, change)).collect(),
        other => other,
    }
}

/// Sources of metrics: the field that has one, whether it is of a resource of containers, the
/// name of the selector in v1, and that of the object.
const SOURCES: [(&str, bool, &str, &str); 5] = [
    ("object", false, "selector", "target"),
    ("pods", false, "selector", ""),
    ("external", false, "metricSelector", ""),
    ("resource", true, "", ""),
    ("containerResource", true, "", ""),
];

/// Names in v1 of the numbers of a source: in a spec they are targets, in a status they are what
/// is. Some have no prefix, by history.
fn number_names(source: &str, is_spec: bool) -> [(&'static str, &'static str); 3] {
    let plain_average = source == "object";
    match (is_spec, plain_average) {
        (true, true) => [
            ("value", "targetValue"),
            ("averageValue", "averageValue"),
            ("averageUtilization", "targetAverageUtilization"),
        ],
        (true, false) => [
            ("value", "targetValue"),
            ("averageValue", "targetAverageValue"),
            ("averageUtilization", "targetAverageUtilization"),
        ],
        (false, true) => [
            ("value", "currentValue"),
            ("averageValue", "averageValue"),
            ("averageUtilization", "currentAverageUtilization"),
        ],
        (false, false) => [
            ("value", "currentValue"),
            ("averageValue", "currentAverageValue"),
            ("averageUtilization", "currentAverageUtilization"),
        ],
    }
}

/// A metric, or the status of one, in the terms of v1.
fn write_metric<T: Serialize>(metric: &T) -> Option<Value> {
    let mut metric = serde_json::to_value(metric).ok()?;
    let mut written = json!({ "type": metric["type"] });
    for (source, of_resource, selector, object) in SOURCES {
        let Some(given) = metric.get_mut(source) else {
            continue;
        };
        let mut out = Map::new();
        if of_resource {
            out.insert("name".to_owned(), given["name"].take());
            if source == "containerResource" {
                out.insert("container".to_owned(), given["container"].take());
            }
        } else {
            let metric = &mut given["metric"];
            out.insert("metricName".to_owned(), metric["name"].take());
            if let Some(labels) = metric.get_mut("selector") {
                out.insert(selector.to_owned(), labels.take());
            }
        }
        if !object.is_empty() {
            out.insert(object.to_owned(), given["describedObject"].take());
        }
        let is_spec = given.get("target").is_some();
        let numbers = &mut given[if is_spec { "target" } else { "current" }];
        for (new, old) in number_names(source, is_spec) {
            if let Some(number) = numbers.get_mut(new) {
                out.insert(old.to_owned(), number.take());
            }
        }
        written[source] = Value::Object(out);
    }
    Some(written)
}

/// Metrics, or their status, from the terms of v1.
fn read_metrics<T: DeserializeOwned>(text: &str, is_spec: bool) -> Option<Vec<T>> {
    let list: Vec<Value> = serde_json::from_str(text).ok()?;
    let read = list
        .into_iter()
        .map(|metric| serde_json::from_value(read_metric(metric, is_spec)?).ok());
    read.collect()
}

fn read_metric(mut metric: Value, is_spec: bool) -> Option<Value> {
    let mut read = json!({ "type": metric.get("type")? });
    for (source, of_resource, selector, object) in SOURCES {
        let Some(given) = metric.get_mut(source).and_then(Value::as_object_mut) else {
            continue;
        };
        let mut out = Map::new();
        let mut take = |from: &str| given.remove(from).filter(|value| !value.is_null());
        if of_resource {
            out.insert("name".to_owned(), take("name")?);
            if source == "containerResource" {
                out.insert("container".to_owned(), take("container")?);
            }
        } else {
            let mut identifier = Map::new();
            identifier.insert("name".to_owned(), take("metricName")?);
            if let Some(labels) = take(selector) {
                identifier.insert("selector".to_owned(), labels);
            }
            out.insert("metric".to_owned(), Value::Object(identifier));
        }
        if !object.is_empty() {
            out.insert("describedObject".to_owned(), take(object)?);
        }
        let mut numbers = Map::new();
        for (new, old) in number_names(source, is_spec) {
            if let Some(number) = given.remove(old) {
                numbers.insert(new.to_owned(), number);
            }
        }
        if is_spec {
            let kind = if numbers.contains_key("averageUtilization") {
                "Utilization"
            } else if numbers.contains_key("averageValue") {
                "AverageValue"
            } else {
                "Value"
            };
            numbers.insert("type".to_owned(), kind.into());
            out.insert("target".to_owned(), Value::Object(numbers));
        } else {
            out.insert("current".to_owned(), Value::Object(numbers));
        }
        read[source] = Value::Object(out);
    }
    Some(read)
}
