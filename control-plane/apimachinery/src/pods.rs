//! What several parts ask of a pod: its conditions, its ports, whether it is done.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Condition: the pod may serve.
pub const READY: &str = "Ready";
/// Condition: all containers are ready.
pub const CONTAINERS_READY: &str = "ContainersReady";
/// Condition: all init containers are done.
pub const INITIALIZED: &str = "Initialized";
/// Condition: a node was found for the pod.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// Condition: the sandbox is there and has its network.
pub const READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
/// Condition: the pod is about to end because of a disruption.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// A condition of a pod.
pub fn get_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// Puts a condition in a status; false where nothing changes. The transition time is kept where
/// the condition's status stays what it was.
pub fn set_condition(status: &mut PodStatus, mut condition: PodCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let Some(present) = conditions
        .iter_mut()
        .find(|present| present.type_ == condition.type_)
    else {
        conditions.push(condition);
        return true;
    };
    if present.status == condition.status && present.last_transition_time.is_some() {
        condition
            .last_transition_time
            .clone_from(&present.last_transition_time);
    }
    let changed = *present != condition;
    *present = condition;
    changed
}

/// Whether the pod may serve.
pub fn is_ready(pod: &Pod) -> bool {
    get_condition(pod, READY).is_some_and(|condition| condition.status == "True")
}

/// Whether the pod has been ready for long enough (`minReadySeconds`).
pub fn is_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> bool {
    available_at(pod, min_ready).is_some_and(|at| at <= now)
}

/// When the pod will have been ready for long enough; `None` while it is not ready.
pub fn available_at(pod: &Pod, min_ready: Duration) -> Option<Timestamp> {
    let ready = get_condition(pod, READY).filter(|condition| condition.status == "True")?;
    if min_ready.is_zero() {
        return Some(Timestamp::UNIX_EPOCH);
    }
    let since = ready.last_transition_time.as_ref()?;
    since.0.checked_add(min_ready).ok()
}

/// The phase; empty before there is one.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod has run to its end, well or not.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as one that runs or will: neither at its end nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The node that the pod was placed on.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// The containers that keep running: the ordinary ones and the sidecars among the init
/// containers.
pub fn long_running_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let sidecars = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    containers.chain(sidecars.filter(|container| crate::resources::is_sidecar(container)))
}

/// The number of a port of a container: as given, or the one of that name.
pub fn container_port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number != 0),
        IntOrString::String(name) => {
            named_port(container.ports.as_deref().unwrap_or_default(), name, None)
        }
    }
}

/// The number of a Service's target port in a pod: as given, or the port of that name and
/// protocol in any of its long-running containers.
pub fn target_port(pod: &Pod, port: &IntOrString, protocol: &str) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number != 0),
        IntOrString::String(name) => long_running_containers(pod).find_map(|container| {
            named_port(
                container.ports.as_deref().unwrap_or_default(),
                name,
                Some(protocol),
            )
        }),
    }
}

fn named_port(ports: &[ContainerPort], name: &str, protocol: Option<&str>) -> Option<u16> {
    let wanted = |port: &&ContainerPort| {
        let of_protocol = |protocol| port.protocol.as_deref().unwrap_or("TCP") == protocol;
        port.name.as_deref() == Some(name) && protocol.is_none_or(of_protocol)
    };
    ports
        .iter()
        .find(wanted)
        .and_then(|port| u16::try_from(port.container_port).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: &str, second: i64) -> PodCondition {
        PodCondition {
            type_: READY.into(),
            status: status.into(),
            last_transition_time: Some(Time(at(second))),
            ..Default::default()
        }
    }

    #[test]
    fn conditions() {
        let mut pod = Pod {
            status: Some(PodStatus::default()),
            ..Default::default()
        };
        assert!(!is_ready(&pod));
        let status = pod.status.as_mut().unwrap();
        assert!(set_condition(status, ready("True", 10)));
        assert!(!set_condition(status, ready("True", 20)));
        assert!(is_ready(&pod));
        assert_eq!(
            get_condition(&pod, READY).unwrap().last_transition_time,
            Some(Time(at(10)))
        );
        assert!(is_available(&pod, Duration::ZERO, at(0)));
        assert!(!is_available(&pod, Duration::from_secs(5), at(14)));
        assert!(is_available(&pod, Duration::from_secs(5), at(15)));
        assert!(set_condition(
            pod.status.as_mut().unwrap(),
            ready("False", 30)
        ));
        assert_eq!(available_at(&pod, Duration::ZERO), None);
        assert_eq!(
            get_condition(&pod, READY).unwrap().last_transition_time,
            Some(Time(at(30)))
        );
    }

    #[test]
    fn ports() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "ports": [
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"name": "http", "containerPort": 80},
            ]}],
            "initContainers": [
                {"name": "i", "ports": [{"name": "init", "containerPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]},
            ],
        }}))
        .unwrap();
        let name = |name: &str| IntOrString::String(name.into());
        let table = [
            (IntOrString::Int(8080), "TCP", Some(8080)),
            (IntOrString::Int(0), "TCP", None),
            (name("http"), "TCP", Some(80)),
            (name("http"), "UDP", None),
            (name("dns"), "UDP", Some(53)),
            (name("side"), "TCP", Some(2)),
            (name("init"), "TCP", None),
        ];
        for (port, protocol, want) in table {
            assert_eq!(target_port(&pod, &port, protocol), want, "{port:?}");
        }
        let first = long_running_containers(&pod).next().unwrap();
        assert_eq!(container_port(first, &name("dns")), Some(53));
    }

    #[test]
    fn phases() {
        let with_phase = |phase: &str| Pod {
            status: Some(PodStatus {
                phase: Some(phase.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(is_active(&with_phase("Running")) && is_active(&Pod::default()));
        assert!(is_terminal(&with_phase("Failed")) && !is_active(&with_phase("Succeeded")));
    }
}
