//! How `kubectl get pods` shows a Pod. Its STATUS is no field: it is what a person should know
//! first, from the phase, the reason, and the states of the containers.

use std::collections::BTreeSet;

use coracle_apimachinery::table;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column};
use crate::validation::pod::container::is_sidecar;
use crate::validation::{items, text};

/// The reason of a Pod whose node does not answer.
const NODE_LOST: &str = "NodeLost";

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text(
            "Ready",
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        Column::text(
            "Status",
            "The aggregate status of the containers in this pod.",
        ),
        Column::text(
            "Restarts",
            "How often the containers in this pod have been restarted, and when last.",
        ),
        Column::age(),
        Column::text("IP", "The IP address of the pod.").wide(),
        Column::text("Node", "The node that the pod is bound to.").wide(),
        Column::text(
            "Nominated Node",
            "The node on which preemption makes room for the pod.",
        )
        .wide(),
        Column::text(
            "Readiness Gates",
            "How many of the pod's readiness gates are passed.",
        )
        .wide(),
    ]
}

pub(super) fn row(pod: &Pod, now: jiff::Timestamp) -> Vec<Cell> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let summary = summarize(pod, spec, status);
    let restarts = match &summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, table::age(Some(at), now))
        }
        _ => summary.restarts.to_string(),
    };
    let or_none = |value: &str| Cell::from(if value.is_empty() { "<none>" } else { value });
    vec![
        printing::name(&pod.metadata),
        Cell::from(format!("{}/{}", summary.ready, summary.total)),
        Cell::from(summary.status),
        Cell::from(restarts),
        printing::age(&pod.metadata, now),
        or_none(
            items(&status.pod_ips)
                .first()
                .map_or(text(&status.pod_ip), |ip| &ip.ip),
        ),
        or_none(text(&spec.node_name)),
        or_none(text(&status.nominated_node_name)),
        Cell::from(readiness_gates(spec, status)),
    ]
}

/// What the containers of a Pod say together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

impl Summary {
    fn count_restarts(&mut self, container: &ContainerStatus) {
        self.restarts = self.restarts.saturating_add(container.restart_count);
        let ended = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        if let Some(at) = ended.and_then(|ended| ended.finished_at.as_ref())
            && self.last_restart.as_ref().is_none_or(|last| last.0 < at.0)
        {
            self.last_restart = Some(at.clone());
        }
    }
}

fn summarize(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Summary {
    let init = items(&spec.init_containers);
    let sidecars = init
        .iter()
        .filter(|container| is_sidecar(container))
        .count();
    let phase = text(&status.phase);
    let reason = text(&status.reason);
    let mut summary = Summary {
        status: if reason.is_empty() { phase } else { reason }.to_owned(),
        total: spec.containers.len() + sidecars,
        ..Summary::default()
    };
    let gated = items(&status.conditions)
        .iter()
        .any(|c| c.type_ == "PodScheduled" && text(&c.reason) == "SchedulingGated");
    if gated {
        summary.status = "SchedulingGated".to_owned();
    }
    // Restarts of sidecars count all along; those of other init containers, while they run.
    let mut later = Summary::default();
    let initializing = summarize_init(init, status, &mut summary, &mut later);
    if !initializing || has_condition(status, "Initialized") {
        summary.restarts = later.restarts;
        summary.last_restart = later.last_restart;
        summarize_containers(status, &mut summary);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if reason == NODE_LOST {
            summary.status = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

/// Sums up the init containers, up to the one that has not done its part. Returns whether there
/// is one.
fn summarize_init(
    init: &[Container],
    status: &PodStatus,
    summary: &mut Summary,
    later: &mut Summary,
) -> bool {
    let sidecars = init.iter().filter(|container| is_sidecar(container));
    let sidecars: BTreeSet<&str> = sidecars.map(|container| &*container.name).collect();
    for (i, container) in items(&status.init_container_statuses).iter().enumerate() {
        let sidecar = sidecars.contains(&*container.name);
        summary.count_restarts(container);
        if sidecar {
            later.count_restarts(container);
        }
        let state = container.state.clone().unwrap_or_default();
        match (state.terminated, state.waiting) {
            (Some(ended), _) if ended.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => {
                summary.ready += usize::from(container.ready);
                continue;
            }
            (Some(ended), _) => {
                let reason = text(&ended.reason);
                summary.status = match (reason, ended.signal.unwrap_or(0)) {
                    ("", 0) => format!("Init:ExitCode:{}", ended.exit_code),
                    ("", signal) => format!("Init:Signal:{signal}"),
                    (reason, _) => format!("Init:{reason}"),
                };
            }
            (None, Some(waiting)) if !matches!(text(&waiting.reason), "" | "PodInitializing") => {
                summary.status = format!("Init:{}", text(&waiting.reason));
            }
            _ => summary.status = format!("Init:{i}/{}", init.len()),
        }
        return true;
    }
    false
}

fn summarize_containers(status: &PodStatus, summary: &mut Summary) {
    let mut running = false;
    for container in items(&status.container_statuses).iter().rev() {
        summary.count_restarts(container);
        let state = container.state.clone().unwrap_or_default();
        let waiting = state
            .waiting
            .map(|waiting| text(&waiting.reason).to_owned())
            .unwrap_or_default();
        if !waiting.is_empty() {
            summary.status = waiting;
        } else if let Some(ended) = state.terminated {
            summary.status = match (text(&ended.reason), ended.signal.unwrap_or(0)) {
                ("", 0) => format!("ExitCode:{}", ended.exit_code),
                ("", signal) => format!("Signal:{signal}"),
                (reason, _) => reason.to_owned(),
            };
        } else if container.ready && state.running.is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        summary.status = if has_condition(status, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
}

fn has_condition(status: &PodStatus, kind: &str) -> bool {
    items(&status.conditions)
        .iter()
        .any(|c| c.type_ == kind && c.status == "True")
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = items(&spec.readiness_gates);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let holding = items(&status.conditions).iter();
    let holding = holding.filter(|condition| condition.status == "True");
    let holding: BTreeSet<&str> = holding.map(|condition| &*condition.type_).collect();
    let passed = gates
        .iter()
        .filter(|gate| holding.contains(&*gate.condition_type));
    format!("{}/{}", passed.count(), gates.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodReadinessGate};
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::{COUNT, many};

    fn cells(pod: Value) -> Vec<String> {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let row = row(&pod, now);
        assert_eq!(row.len(), columns().len());
        let shown = row[1..4].iter().map(|cell| match cell {
            Cell::Text(text) => text.clone(),
            other => format!("{other:?}"),
        });
        shown.collect()
    }

    #[test]
    fn statuses() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let ended =
            |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let running = json!({"running": {}});
        let container = |name: &str, state: &Value, ready: bool| json!({"name": name, "state": state, "ready": ready, "restartCount": 0, "image": "", "imageID": ""});
        let one = json!({"containers": [{"name": "a"}]});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let with_init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let with_sidecar = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let table = vec![
            (
                json!({"spec": one, "status": {"phase": "Pending"}}),
                ["0/1", "Pending", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}}),
                ["0/1", "SchedulingGated", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Pending", "containerStatuses": [container("a", &waiting("ImagePullBackOff"), false)]}}),
                ["0/1", "ImagePullBackOff", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Running", "containerStatuses": [container("a", &running, true)]}}),
                ["1/1", "Running", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Succeeded", "containerStatuses": [container("a", &ended(0, "Completed"), false)]}}),
                ["0/1", "Completed", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Failed", "containerStatuses": [container("a", &ended(3, ""), false)]}}),
                ["0/1", "ExitCode:3", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Failed", "reason": "Evicted"}}),
                ["0/1", "Evicted", "0"],
            ),
            (
                json!({"spec": two, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [container("a", &ended(0, "Completed"), false), container("b", &running, true)]}}),
                ["1/2", "Running", "0"],
            ),
            (
                json!({"spec": two, "status": {"phase": "Running",
                    "containerStatuses": [container("a", &ended(0, "Completed"), false), container("b", &running, true)]}}),
                ["1/2", "NotReady", "0"],
            ),
            (
                json!({"spec": with_init, "status": {"phase": "Pending", "initContainerStatuses": [
                    container("i", &ended(0, "Completed"), true), container("j", &running, false)],
                    "containerStatuses": [container("a", &waiting("PodInitializing"), false)]}}),
                ["0/1", "Init:1/2", "0"],
            ),
            (
                json!({"spec": with_init, "status": {"phase": "Pending", "initContainerStatuses": [
                    container("i", &ended(1, "Error"), false), container("j", &waiting("PodInitializing"), false)]}}),
                ["0/1", "Init:Error", "0"],
            ),
            (
                json!({"spec": with_init, "status": {"phase": "Pending", "initContainerStatuses": [
                    container("i", &waiting("CrashLoopBackOff"), false)]}}),
                ["0/1", "Init:CrashLoopBackOff", "0"],
            ),
            (
                json!({"spec": with_sidecar, "status": {"phase": "Running", "initContainerStatuses": [
                    {"name": "s", "state": running, "ready": true, "started": true, "restartCount": 2, "image": "", "imageID": ""}],
                    "containerStatuses": [container("a", &running, true)]}}),
                ["2/2", "Running", "2"],
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": one,
                    "status": {"phase": "Running", "containerStatuses": [container("a", &running, true)]}}),
                ["1/1", "Terminating", "0"],
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": one,
                    "status": {"phase": "Running", "reason": "NodeLost"}}),
                ["0/1", "Unknown", "0"],
            ),
            (
                json!({"spec": one, "status": {"phase": "Running", "containerStatuses": [
                    {"name": "a", "state": waiting("CrashLoopBackOff"), "ready": false, "restartCount": 3, "image": "", "imageID": "",
                     "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:30:00Z"}}}]}}),
                ["0/1", "CrashLoopBackOff", "3 (30m ago)"],
            ),
        ];
        for (pod, want) in table {
            assert_eq!(cells(pod.clone()), want, "{pod}");
        }
    }

    #[test]
    fn wide() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}], "nodeName": "n", "readinessGates": [{"conditionType": "x/y"}, {"conditionType": "z"}]},
            "status": {"phase": "Running", "podIP": "10.42.0.2", "podIPs": [{"ip": "10.42.0.2"}],
                "conditions": [{"type": "x/y", "status": "True"}]},
        }))
        .unwrap();
        let row = row(&pod, "2026-01-01T00:05:00Z".parse().unwrap());
        let want = [
            "a",
            "0/1",
            "Running",
            "0",
            "5m",
            "10.42.0.2",
            "n",
            "<none>",
            "1/2",
        ];
        assert_eq!(row, want.map(Cell::from));
    }

    /// What is looked for in a list is in a set: a loop within a loop is minutes here.
    #[test]
    fn a_row_costs_what_the_pod_is() {
        let init_containers = many(|name| Container {
            name,
            restart_policy: Some("Always".to_owned()),
            ..Container::default()
        });
        let statuses = many(|name| ContainerStatus {
            name,
            ready: true,
            started: Some(true),
            ..ContainerStatus::default()
        });
        let pod = Pod {
            spec: Some(PodSpec {
                init_containers: Some(init_containers),
                readiness_gates: Some(many(|condition_type| PodReadinessGate { condition_type })),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                init_container_statuses: Some(statuses),
                conditions: Some(many(|type_| PodCondition {
                    type_,
                    status: "True".to_owned(),
                    ..PodCondition::default()
                })),
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        let row = row(&pod, jiff::Timestamp::UNIX_EPOCH);
        let all = format!("{COUNT}/{COUNT}");
        assert_eq!([&row[1], &row[8]], [&Cell::from(all.as_str()); 2]);
    }
}
