//! What controllers ask about a Pod.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

pub(crate) use coracle_apimachinery::pods::{
    get_condition as condition, is_active as active, is_ready as ready, is_terminal as finished,
    node_name as node, phase,
};

/// Since when it has been ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = condition(pod, "Ready").filter(|c| c.status == "True")?;
    condition.last_transition_time.as_ref().map(|t| t.0)
}

/// How long until it has been ready for `min_ready_seconds`: zero when it is available, `None`
/// when it is not ready at all.
pub(crate) fn until_available(
    pod: &Pod,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<SignedDuration> {
    if !ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(SignedDuration::ZERO);
    }
    let wanted = SignedDuration::from_secs(min_ready_seconds.into());
    let left = wanted - now.duration_since(ready_since(pod)?);
    Some(left.max(SignedDuration::ZERO))
}
