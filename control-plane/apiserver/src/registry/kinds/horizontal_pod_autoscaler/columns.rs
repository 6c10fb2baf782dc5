//! Columns of HorizontalPodAutoscalers.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column};
use crate::validation::items;

/// Metrics that a row shows.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "Metrics, as they are and as they shall be."),
        Column::text("MinPods", "The fewest pods that there may be."),
        Column::text("MaxPods", "The most pods that there may be."),
        Column::text("Replicas", "How many pods there are."),
        Column::age(),
    ]
}

pub(super) fn row(object: &HorizontalPodAutoscaler, now: jiff::Timestamp) -> Vec<Cell> {
    let (spec, status) = (&object.spec, object.status.clone().unwrap_or_default());
    let target = &spec.scale_target_ref;
    let min = spec.min_replicas.map(|min| min.to_string());
    vec![
        printing::name(&object.metadata),
        Cell::from(format!("{}/{}", target.kind, target.name)),
        Cell::from(targets(
            items(&spec.metrics),
            items(&status.current_metrics),
        )),
        Cell::from(min.unwrap_or_else(|| "<unset>".to_owned())),
        Cell::from(spec.max_replicas),
        Cell::from(status.current_replicas.unwrap_or(0)),
        printing::age(&object.metadata, now),
    ]
}

/// Each metric as it is and as it shall be: `cpu: 20%/80%`.
fn targets(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| metric(spec, statuses.get(i)))
        .collect();
    first_and_more_spaced(&all)
}

fn first_and_more_spaced(all: &[String]) -> String {
    // Rows of metrics put a space after the comma, where other lists have none.
    let first = all[..SHOWN.min(all.len())].join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} + {more} more..."),
    }
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let now = |pick: fn(&MetricStatus) -> Option<&MetricValueStatus>| status.and_then(pick);
    match spec.type_.as_str() {
        "External" => {
            let current = now(|status| status.external.as_ref().map(|source| &source.current));
            let source = spec.external.as_ref();
            value_or_average(source.map(|source| &source.target), current)
        }
        "Object" => {
            let current = now(|status| status.object.as_ref().map(|source| &source.current));
            let source = spec.object.as_ref();
            value_or_average(source.map(|source| &source.target), current)
        }
        "Pods" => {
            let current = now(|status| status.pods.as_ref().map(|source| &source.current));
            let target = spec
                .pods
                .as_ref()
                .and_then(|p| p.target.average_value.as_ref());
            let current = current.and_then(|current| current.average_value.as_ref());
            format!("{}/{}", shown(current), amount(target))
        }
        "Resource" => {
            let current = now(|status| status.resource.as_ref().map(|source| &source.current));
            match &spec.resource {
                Some(source) => resource(&source.name, &source.target, current),
                None => UNKNOWN.to_owned(),
            }
        }
        "ContainerResource" => {
            let current = now(|status| {
                let source = status.container_resource.as_ref();
                source.map(|source| &source.current)
            });
            match &spec.container_resource {
                Some(source) => resource(&source.name, &source.target, current),
                None => UNKNOWN.to_owned(),
            }
        }
        _ => "<unknown type>".to_owned(),
    }
}

fn value_or_average(target: Option<&MetricTarget>, current: Option<&MetricValueStatus>) -> String {
    let Some(target) = target else {
        return UNKNOWN.to_owned();
    };
    if target.average_value.is_some() {
        let current = current.and_then(|current| current.average_value.as_ref());
        let target = target.average_value.as_ref();
        format!("{}/{} (avg)", shown(current), amount(target))
    } else {
        let current = current.and_then(|current| current.value.as_ref());
        format!("{}/{}", shown(current), amount(target.value.as_ref()))
    }
}

fn resource(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if target.average_value.is_some() {
        let current = current.and_then(|current| current.average_value.as_ref());
        let target = target.average_value.as_ref();
        return format!("{name}: {}/{}", shown(current), amount(target));
    }
    let percent = |value: Option<i32>, none: &str| {
        value.map_or_else(|| none.to_owned(), |value| format!("{value}%"))
    };
    let current = percent(current.and_then(|c| c.average_utilization), UNKNOWN);
    let target = percent(target.average_utilization, "<auto>");
    format!("{name}: {current}/{target}")
}

fn shown(quantity: Option<&Quantity>) -> &str {
    quantity.map_or(UNKNOWN, |quantity| &quantity.0)
}

fn amount(quantity: Option<&Quantity>) -> &str {
    quantity.map_or("0", |quantity| &quantity.0)
}
