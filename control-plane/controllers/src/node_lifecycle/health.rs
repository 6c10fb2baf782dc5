//! How a node is: what it shows, for how long it has shown nothing new, and what follows.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::NodeTimes;

/// Conditions that a node reports of itself, and that nobody knows when it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What a node last showed, and when that was first seen here.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heartbeat {
    renewed: Option<MicroTime>,
    reported: Option<Time>,
    heard: Timestamp,
}

impl Heartbeat {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            renewed: None,
            reported: None,
            heard: now,
        }
    }

    /// Takes note of what the node shows now, and says how long it has been silent.
    pub(super) fn hear(&mut self, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Duration {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let reported = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.clone());
        if renewed != self.renewed || reported != self.reported {
            *self = Self {
                renewed,
                reported,
                heard: now,
            };
        }
        Duration::try_from(now.duration_since(self.heard)).unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// Conditions that become Unknown.
    pub(super) unknown: Option<Vec<NodeCondition>>,
    /// When to look again.
    pub(super) next_look: Duration,
}

/// Whether a node that has been silent for this long still counts as alive.
pub(super) fn judge(node: &Node, silence: Duration, times: NodeTimes, now: Timestamp) -> Verdict {
    let grace = if condition(node, "Ready").is_some() {
        times.monitor_grace_period
    } else {
        times.startup_grace_period
    };
    if silence < grace {
        let next_look = (grace - silence).min(times.monitor_period);
        return Verdict {
            unknown: None,
            next_look,
        };
    }
    let unknown: Vec<_> = REPORTED
        .iter()
        .filter_map(|kind| unknown(node, kind, now))
        .collect();
    Verdict {
        unknown: (!unknown.is_empty()).then_some(unknown),
        next_look: times.monitor_period,
    }
}

/// The status of the node's condition Ready.
pub(super) fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|c| c.status.as_str())
}

/// Whether nobody says any more how the node's Pods are. A node that says itself that it is not ready
/// says that of its Pods too.
pub(super) fn is_silent(node: &Node) -> bool {
    ready(node) == Some("Unknown")
}

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

fn unknown(node: &Node, kind: &str, now: Timestamp) -> Option<NodeCondition> {
    let (heartbeat, reason, message) = match condition(node, kind) {
        Some(c) if c.status == "Unknown" => return None,
        Some(c) => {
            let heartbeat = c.last_heartbeat_time.clone();
            (
                heartbeat,
                "NodeStatusUnknown",
                "Kubelet stopped posting node status.",
            )
        }
        None => {
            let created = node.metadata.creation_timestamp.clone();
            (
                created,
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            )
        }
    };
    Some(NodeCondition {
        type_: kind.to_owned(),
        status: "Unknown".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: heartbeat,
        last_transition_time: Some(Time(now)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use serde_json::json;

    fn node(ready: Option<&str>) -> Node {
        let conditions: Vec<_> = ready
            .map(|r| json!({"type": "Ready", "status": r}))
            .into_iter()
            .collect();
        serde_json::from_value(
            json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    }

    #[test]
    fn only_a_node_that_was_given_up_is_silent() {
        for (status, silent) in [
            (None, false),
            (Some("True"), false),
            (Some("False"), false),
            (Some("Unknown"), true),
        ] {
            assert_eq!(is_silent(&node(status)), silent, "{status:?}");
        }
    }

    fn lease(second: i64) -> Lease {
        let renewed = MicroTime(Timestamp::from_second(second).unwrap());
        serde_json::from_value(json!({"metadata": {}, "spec": {"renewTime": renewed}})).unwrap()
    }

    #[test]
    fn silence_is_measured_by_our_clock() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| start + SignedDuration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(start);
        let node = node(Some("True"));
        // The node's clock is far off; that it goes on is what counts.
        assert_eq!(
            heartbeat
                .hear(&node, Some(&lease(9000)), after(5))
                .as_secs(),
            0
        );
        assert_eq!(
            heartbeat
                .hear(&node, Some(&lease(9000)), after(15))
                .as_secs(),
            10
        );
        assert_eq!(
            heartbeat
                .hear(&node, Some(&lease(9010)), after(16))
                .as_secs(),
            0
        );
    }

    #[test]
    fn after_the_grace_period_nothing_is_known() {
        let times = NodeTimes::default();
        let says = |ready, seconds| {
            let verdict = judge(
                &node(ready),
                Duration::from_secs(seconds),
                times,
                Timestamp::UNIX_EPOCH,
            );
            let unknown = verdict.unknown.unwrap_or_default();
            let reasons = unknown.into_iter().map(|c| (c.type_, c.reason.unwrap()));
            (reasons.collect::<Vec<_>>(), verdict.next_look.as_secs())
        };
        assert_eq!(says(Some("True"), 10), (vec![], 5));
        assert_eq!(says(Some("True"), 38), (vec![], 2));
        let (reasons, _) = says(Some("True"), 40);
        assert_eq!(reasons.len(), 4);
        assert_eq!(reasons[0], ("Ready".into(), "NodeStatusUnknown".into()));
        assert_eq!(
            reasons[1],
            ("MemoryPressure".into(), "NodeStatusNeverUpdated".into())
        );
        assert!(says(None, 50).0.is_empty());
        assert_eq!(says(None, 60).0[0].1, "NodeStatusNeverUpdated");
        assert!(
            says(Some("Unknown"), 100)
                .0
                .iter()
                .all(|(kind, _)| kind != "Ready")
        );
    }
}
