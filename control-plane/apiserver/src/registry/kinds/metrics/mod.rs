//! NodeMetrics and PodMetrics: what nodes and Pods use now. Nothing is stored: it is asked of the
//! kubelets when somebody wants it (`handlers/usage`).

mod types;

use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use types::{ContainerMetrics, NodeMetrics, PodMetrics, Usage};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};

pub(super) struct NodeMetricsStrategy;
pub(super) struct PodMetricsStrategy;

/// The columns of metrics-server.
fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("cpu", "CPU that is used, in cores"),
        Column::text("memory", "Memory that is used, in bytes"),
        Column::text("Window", "The interval from which rates were taken"),
    ]
}

fn row<'a>(
    metadata: &ObjectMeta,
    window: &str,
    usages: impl Iterator<Item = &'a Usage> + Clone,
) -> Vec<Cell> {
    let sum = |resource: &str| {
        let mut sum: Option<Quantity> = None;
        for usage in usages.clone() {
            let Some(one) = usage.get(resource).and_then(|one| one.0.parse().ok()) else {
                continue;
            };
            match &mut sum {
                Some(sum) => sum.add(&one),
                None => sum = Some(one),
            }
        }
        sum.map_or_else(String::new, |sum| sum.to_string())
    };
    vec![
        printing::name(metadata),
        Cell::from(sum("cpu")),
        Cell::from(sum("memory")),
        Cell::from(window),
    ]
}

macro_rules! strategy {
    ($strategy:ident, $kind:ident) => {
        impl Strategy for $strategy {
            type Object = $kind;

            fn descriptor(&self) -> Descriptor {
                Descriptor::of::<$kind>().computed(&["get", "list"])
            }

            fn validate(&self, _object: &$kind) -> ErrorList {
                ErrorList::default()
            }

            fn validate_update(&self, _new: &$kind, _old: &$kind) -> ErrorList {
                ErrorList::default()
            }

            fn columns(&self) -> Vec<Column> {
                columns()
            }

            fn row(&self, object: &$kind, _now: jiff::Timestamp) -> Vec<Cell> {
                row(&object.metadata, &object.window, object.usages())
            }
        }
    };
}

strategy!(NodeMetricsStrategy, NodeMetrics);
strategy!(PodMetricsStrategy, PodMetrics);
