//! Which Pods of a ReplicaSet go first when there are too many.
//!
//! The order is that of the Kubernetes documentation of ReplicaSet ("Scaling down"): what is
//! worth least goes first. Times are compared by the order of magnitude of their age, so that
//! it is not always the youngest zone or node that loses its Pods.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// The annotation by which users weigh Pods.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Compares two Pods: the lesser one is deleted first. `related` counts Pods of the same
/// family per node.
pub(super) fn compare(
    a: &Pod,
    b: &Pod,
    related: &HashMap<String, usize>,
    now: Timestamp,
) -> Ordering {
    let neighbours = |pod: &Pod| {
        pods::node(pod)
            .and_then(|n| related.get(n))
            .copied()
            .unwrap_or(0)
    };
    by(a, b, |pod| pods::node(pod).is_some())
        .then_with(|| by(a, b, phase_order))
        .then_with(|| by(a, b, pods::ready))
        .then_with(|| by(a, b, deletion_cost))
        .then_with(|| by(a, b, |pod| Reverse(neighbours(pod))))
        .then_with(|| {
            by(a, b, |pod| {
                pods::ready_since(pod).map(|at| magnitude(at, now))
            })
        })
        .then_with(|| by(a, b, |pod| Reverse(restarts(pod))))
        .then_with(|| by(a, b, |pod| created(pod).map(|at| magnitude(at, now))))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn by<T: Ord>(a: &Pod, b: &Pod, value: impl Fn(&Pod) -> T) -> Ordering {
    value(a).cmp(&value(b))
}

fn phase_order(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|a| a.get(DELETION_COST));
    cost.and_then(|c| c.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    statuses
        .into_iter()
        .map(|c| c.restart_count)
        .max()
        .unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// The order of magnitude of an age: a greater one is worth keeping.
fn magnitude(at: Timestamp, now: Timestamp) -> i64 {
    let age = now.as_nanosecond() - at.as_nanosecond();
    if age <= 0 { -1 } else { i64::from(age.ilog2()) }
}
