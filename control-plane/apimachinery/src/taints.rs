//! Taints of nodes and tolerations of pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The node has not been ready, by its own word.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node has not been heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node is cordoned.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is short of memory.
pub const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// The node is short of disk.
pub const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// The node is short of process ids.
pub const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// The node's network is not there yet.
pub const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// Pods that do not tolerate it are not placed on the node.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// The same, where there is another node.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Pods that do not tolerate it are evicted as well.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether a toleration covers a taint. An empty effect or key covers all of them.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let covers = |wanted: Option<&str>, actual: &str| match wanted {
        None | Some("") => true,
        Some(wanted) => wanted == actual,
    };
    if !covers(toleration.effect.as_deref(), &taint.effect)
        || !covers(toleration.key.as_deref(), &taint.key)
    {
        return false;
    }
    let values = (
        toleration.value.as_deref().unwrap_or_default(),
        taint.value.as_deref().unwrap_or_default(),
    );
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => values.0 == values.1,
        Some("Exists") => true,
        // Numeric comparison (KEP-5471): both sides are integers.
        Some(operator @ ("Lt" | "Gt")) => {
            match (values.0.parse::<i64>(), values.1.parse::<i64>()) {
                (Ok(wanted), Ok(actual)) if operator == "Lt" => actual < wanted,
                (Ok(wanted), Ok(actual)) => actual > wanted,
                _ => false,
            }
        }
        Some(_) => false,
    }
}

/// Whether any of the tolerations covers the taint.
pub fn any_tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations
        .iter()
        .any(|toleration| tolerates(toleration, taint))
}

/// The first taint of an effect that `of_effect` picks and that no toleration covers.
pub fn first_untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    of_effect: impl Fn(&str) -> bool,
) -> Option<&'a Taint> {
    taints
        .iter()
        .find(|taint| of_effect(&taint.effect) && !any_tolerates(tolerations, taint))
}

/// After what time a pod must leave a node because of its `NoExecute` taints: at once, after the
/// shortest `tolerationSeconds` of the tolerations in use, or never (`None`).
pub fn eviction_delay(taints: &[Taint], tolerations: &[Toleration]) -> Option<Duration> {
    let taints = taints.iter().filter(|taint| taint.effect == NO_EXECUTE);
    let mut delay = None;
    for taint in taints {
        let mut tolerated = false;
        for toleration in tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint))
        {
            tolerated = true;
            if let Some(seconds) = toleration.toleration_seconds {
                let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                delay = Some(delay.map_or(seconds, |delay: Duration| delay.min(seconds)));
            }
        }
        if !tolerated {
            return Some(Duration::ZERO);
        }
    }
    delay
}

/// Whether two taints are the same one, of whatever value.
pub fn same(a: &Taint, b: &Taint) -> bool {
    a.key == b.key && a.effect == b.effect
}

/// Adds a taint, or replaces the same one of another value; false where nothing changes. The
/// time at which an unchanged taint was added stays.
pub fn add(taints: &mut Vec<Taint>, taint: Taint) -> bool {
    match taints.iter_mut().find(|present| same(present, &taint)) {
        Some(present) if present.value == taint.value => return false,
        Some(present) => *present = taint,
        None => taints.push(taint),
    }
    true
}

/// Removes a taint; false where it was not there.
pub fn remove(taints: &mut Vec<Taint>, key: &str, effect: &str) -> bool {
    let before = taints.len();
    taints.retain(|taint| taint.key != key || taint.effect != effect);
    taints.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint {
            key: key.into(),
            value: Some(value.into()),
            effect: effect.into(),
            time_added: None,
        }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations() {
        let t = taint("a", "v", NO_SCHEDULE);
        let table = [
            (("a", "Equal", "v", NO_SCHEDULE), true),
            (("a", "", "v", ""), true),
            (("a", "Equal", "w", ""), false),
            (("a", "Exists", "", ""), true),
            (("", "Exists", "", ""), true),
            (("", "Exists", "", NO_EXECUTE), false),
            (("b", "Exists", "", ""), false),
            (("a", "Gt", "1", ""), false),
            (("a", "Like", "v", ""), false),
        ];
        for ((key, operator, value, effect), want) in table {
            assert_eq!(
                tolerates(&toleration(key, operator, value, effect), &t),
                want,
                "{key} {operator} {value}"
            );
        }
        assert!(tolerates(
            &toleration("a", "Gt", "1", ""),
            &taint("a", "2", NO_SCHEDULE)
        ));
        assert!(!tolerates(
            &toleration("a", "Lt", "1", ""),
            &taint("a", "2", NO_SCHEDULE)
        ));
        let taints = [taint("b", "", PREFER_NO_SCHEDULE), t.clone()];
        let hard = |effect: &str| effect != PREFER_NO_SCHEDULE;
        assert_eq!(first_untolerated(&taints, &[], hard), Some(&t));
        assert_eq!(
            first_untolerated(&taints, &[toleration("", "Exists", "", "")], hard),
            None
        );
    }

    #[test]
    fn evictions() {
        let taints = [
            taint(NOT_READY, "", NO_EXECUTE),
            taint("other", "", NO_SCHEDULE),
        ];
        let for_seconds = |seconds| Toleration {
            toleration_seconds: seconds,
            ..toleration(NOT_READY, "Exists", "", NO_EXECUTE)
        };
        let delay = |tolerations: &[Toleration]| eviction_delay(&taints, tolerations);
        assert_eq!(delay(&[]), Some(Duration::ZERO));
        assert_eq!(delay(&[for_seconds(None)]), None);
        assert_eq!(
            delay(&[for_seconds(Some(300)), for_seconds(Some(30))]),
            Some(Duration::from_secs(30))
        );
        assert_eq!(delay(&[for_seconds(Some(-1))]), Some(Duration::ZERO));
        assert_eq!(eviction_delay(&taints[1..], &[]), None);
    }

    #[test]
    fn changes() {
        let mut taints = vec![];
        assert!(add(&mut taints, taint("a", "1", NO_SCHEDULE)));
        assert!(!add(&mut taints, taint("a", "1", NO_SCHEDULE)));
        assert!(add(&mut taints, taint("a", "2", NO_SCHEDULE)) && taints.len() == 1);
        assert!(add(&mut taints, taint("a", "2", NO_EXECUTE)) && taints.len() == 2);
        assert!(remove(&mut taints, "a", NO_SCHEDULE) && !remove(&mut taints, "a", NO_SCHEDULE));
    }
}
