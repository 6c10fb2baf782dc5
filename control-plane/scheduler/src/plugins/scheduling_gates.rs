//! SchedulingGates: a Pod with gates is not even considered.

use k8s_openapi::api::core::v1::Pod;

/// Whether gates keep the Pod out of the queue; an update that removes the last lets it in.
pub(crate) fn gated(pod: &Pod) -> bool {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}
