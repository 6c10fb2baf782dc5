//! Taints that say what a node's conditions say, so that scheduler and eviction need to know
//! taints alone.

use std::sync::Arc;

use coracle_apimachinery::taints::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY,
    PID_PRESSURE, UNREACHABLE, UNSCHEDULABLE, add, remove,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::ready;

/// Up to this many nodes, none is emptied while most are not ready.
const SMALL_CLUSTER: usize = 50;

/// Which condition and status makes which taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", MEMORY_PRESSURE),
    ("DiskPressure", "True", DISK_PRESSURE),
    ("PIDPressure", "True", PID_PRESSURE),
    ("NetworkUnavailable", "True", NETWORK_UNAVAILABLE),
];

/// Whether nodes may be emptied because they are not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evict {
    /// Yes.
    Yes,
    /// Too many are not ready: no further ones.
    NoMore,
    /// None is ready: it must be us. Nobody is to leave.
    Nobody,
}

/// Judges the cluster as Kubernetes judges a zone.
pub(super) fn may_evict(nodes: &[Arc<Node>]) -> Evict {
    let ready = nodes
        .iter()
        .filter(|node| ready(node) == Some("True"))
        .count();
    let not_ready = nodes.len() - ready;
    if ready == 0 && not_ready > 0 {
        Evict::Nobody
    } else if nodes.len() <= SMALL_CLUSTER && not_ready > 2 && not_ready * 100 >= nodes.len() * 55 {
        Evict::NoMore
    } else {
        Evict::Yes
    }
}

/// The taints that the node should have, unless it has them.
pub(super) fn plan(node: &Node, evict: Evict, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.clone().unwrap_or_default();
    let mut taints = spec.taints.unwrap_or_default();
    let mut changed = false;
    let mut set = |wanted: bool, key: &str, effect: &str| {
        let taint = Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            value: None,
            time_added: Some(Time(now)),
        };
        changed |= if wanted {
            add(&mut taints, taint)
        } else {
            remove(&mut taints, key, effect)
        };
    };
    for (kind, status, key) in BY_CONDITION {
        let says = super::health::condition(node, kind).is_some_and(|c| c.status == status);
        // A node that has said nothing yet is not ready.
        let silent = key == NOT_READY && ready(node).is_none();
        set(says || silent, key, NO_SCHEDULE);
    }
    set(spec.unschedulable == Some(true), UNSCHEDULABLE, NO_SCHEDULE);
    for (status, key) in [("False", NOT_READY), ("Unknown", UNREACHABLE)] {
        let wanted = ready(node) == Some(status);
        match evict {
            Evict::Yes => set(wanted, key, NO_EXECUTE),
            Evict::NoMore if wanted => {}
            Evict::NoMore | Evict::Nobody => set(false, key, NO_EXECUTE),
        }
    }
    changed.then_some(taints)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(ready: &str, spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    fn planned(node: &Node, evict: Evict) -> Option<Vec<String>> {
        let taints = plan(node, evict, Timestamp::UNIX_EPOCH)?;
        let text = |t: Taint| {
            format!(
                "{}:{}",
                t.key.trim_start_matches("node.kubernetes.io/"),
                t.effect
            )
        };
        Some(taints.into_iter().map(text).collect())
    }

    fn of(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn conditions_become_taints() {
        let none = json!({});
        assert_eq!(planned(&node("True", none.clone()), Evict::Yes), None);
        let not_ready = of(&["not-ready:NoSchedule", "not-ready:NoExecute"]);
        assert_eq!(planned(&node("False", none.clone()), Evict::Yes), not_ready);
        let unreachable = of(&["unreachable:NoSchedule", "unreachable:NoExecute"]);
        assert_eq!(
            planned(&node("Unknown", none.clone()), Evict::Yes),
            unreachable
        );
        let careful = of(&["unreachable:NoSchedule"]);
        assert_eq!(
            planned(&node("Unknown", none.clone()), Evict::Nobody),
            careful
        );
        assert_eq!(planned(&node("Unknown", none), Evict::NoMore), careful);
        let cordoned = node("True", json!({"unschedulable": true}));
        assert_eq!(
            planned(&cordoned, Evict::Yes),
            of(&["unschedulable:NoSchedule"])
        );
    }

    #[test]
    fn taints_go_with_their_cause_and_others_stay() {
        let spec = json!({"taints": [
            {"key": "mine", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]});
        assert_eq!(
            planned(&node("True", spec.clone()), Evict::Yes),
            of(&["mine:NoSchedule"])
        );
        assert_eq!(planned(&node("Unknown", spec.clone()), Evict::Yes), None);
        assert_eq!(planned(&node("Unknown", spec.clone()), Evict::NoMore), None);
        let spared = of(&["mine:NoSchedule", "unreachable:NoSchedule"]);
        assert_eq!(planned(&node("Unknown", spec), Evict::Nobody), spared);
    }

    #[test]
    fn when_too_many_are_gone_nobody_leaves() {
        let nodes = |ready: usize, not: usize| -> Vec<_> {
            let all = std::iter::repeat_n("True", ready).chain(std::iter::repeat_n("Unknown", not));
            all.map(|status| Arc::new(node(status, json!({}))))
                .collect()
        };
        assert_eq!(may_evict(&nodes(3, 0)), Evict::Yes);
        assert_eq!(may_evict(&nodes(1, 1)), Evict::Yes);
        assert_eq!(may_evict(&nodes(0, 1)), Evict::Nobody);
        assert_eq!(may_evict(&nodes(2, 3)), Evict::NoMore);
        assert_eq!(may_evict(&nodes(3, 2)), Evict::Yes);
    }
}
