//! Whose processes go first where the machine runs out of memory (`oom_score_adj` in proc(5)).
//!
//! Source of the rule: "Node out of memory behavior" of Kubernetes, and KEP-2837 for requests of a Pod
//! as a whole: by the class of quality of service, and within `Burstable` who has asked for less.

use coracle_apimachinery::resources::{MEMORY, Qos, container_requests, parse, pod_requests, qos};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::Role;

/// Of whom has its requests as limits.
const GUARANTEED: i64 = -997;
/// Of whom has asked for nothing.
const BEST_EFFORT: i64 = 1000;
/// The class of Pods without which a node is none.
const NODE_CRITICAL: &str = "system-node-critical";

/// The score of a container's processes on a machine with that much memory, bytes.
pub(crate) fn score(pod: &Pod, container: &Container, capacity: u64) -> i32 {
    let spec = super::spec(pod);
    let critical = spec.priority_class_name.as_deref() == Some(NODE_CRITICAL);
    let score = match qos(spec) {
        _ if critical => GUARANTEED,
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => BEST_EFFORT,
        Qos::Burstable => burstable(pod, container, capacity),
    };
    i32::try_from(score).unwrap_or_default()
}

fn burstable(pod: &Pod, container: &Container, capacity: u64) -> i64 {
    let spec = super::spec(pod);
    let capacity = i64::try_from(capacity).unwrap_or(i64::MAX).max(1);
    let shared = shared(spec);
    let score = |asked: i64| {
        let asked = i128::from(asked.saturating_add(shared));
        i64::try_from(1000 - 1000 * asked / i128::from(capacity)).unwrap_or(0)
    };
    let mut found = score(memory(container));
    let role = super::own_container(pod, &container.name).map(|(_, role)| role);
    if role == Some(Role::Sidecar) {
        // It does not go before those whom it serves.
        let least = spec.containers.iter().map(memory).min();
        found = found.min(score(least.unwrap_or(0)));
    }
    found.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
}

/// What a container asks for itself, bytes.
fn memory(container: &Container) -> i64 {
    let requests = container_requests(container);
    requests.get(MEMORY).map_or(0, |memory| memory.value())
}

/// What of the Pod's request as a whole is no container's, for each container.
fn shared(spec: &PodSpec) -> i64 {
    let whole = spec.resources.as_ref();
    let whole = parse(whole.and_then(|whole| whole.requests.as_ref()));
    let Some(whole) = whole.get(MEMORY).filter(|whole| !whole.is_zero()) else {
        return 0;
    };
    let each = PodSpec {
        resources: None,
        overhead: None,
        ..spec.clone()
    };
    let each = pod_requests(&each);
    let each = each.get(MEMORY).map_or(0, |memory| memory.value());
    let containers = spec.containers.len() + spec.init_containers.iter().flatten().count();
    let containers = i64::try_from(containers).unwrap_or(i64::MAX).max(1);
    whole.value().saturating_sub(each).max(0) / containers
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(mut spec: Value, name: &str, expected: i32) {
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let (container, _) = super::super::container(&pod, name).unwrap();
        assert_eq!(score(&pod, &container, 1000 << 20), expected, "{spec}");
    }

    fn asks(name: &str, memory: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"memory": memory}}})
    }

    #[test]
    fn who_asked_for_more_goes_later() {
        check(json!({}), "c", 1000);
        let critical = json!({"priorityClassName": "system-node-critical"});
        check(critical, "c", -997);
        let all = json!({"cpu": "1", "memory": "1Mi"});
        let all = json!({"name": "c", "resources": {"requests": all, "limits": all}});
        check(json!({"containers": [all]}), "c", -997);
        check(json!({"containers": [asks("c", "100Mi")]}), "c", 900);
        check(json!({"containers": [asks("c", "2000Mi")]}), "c", 3);
        let two = json!([asks("a", "100Mi"), {"name": "c"}]);
        check(json!({"containers": two}), "c", 999);
        let whole = json!({"requests": {"memory": "300Mi"}});
        check(json!({"containers": two, "resources": whole}), "c", 900);
        check(json!({"containers": two, "resources": whole}), "a", 800);
        let sidecar = json!([{"name": "s", "restartPolicy": "Always"}]);
        let served = json!({"containers": [asks("a", "100Mi")], "initContainers": sidecar});
        check(served, "s", 900);
    }
}
