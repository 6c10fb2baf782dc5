//! The conditions of a Pod that the kubelet owns.

use std::time::SystemTime;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::pod::{self, Role};
use crate::worker::resize::Unfinished;

/// A resize was not allocated.
pub(crate) const RESIZE_PENDING: &str = "PodResizePending";
/// A resize was allocated and is not done.
pub(crate) const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// All containers begin anew.
const ANEW: &str = "AllContainersRestarting";

/// What the conditions follow from.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    /// The status before, for times of transition.
    pub(crate) old: &'a PodStatus,
    pub(crate) inits: &'a [ContainerStatus],
    pub(crate) apps: &'a [ContainerStatus],
    pub(crate) phase: &'a str,
    pub(crate) initialized: bool,
    /// All containers are about to begin anew.
    pub(crate) anew: bool,
    pub(crate) ready_to_start: bool,
    /// Why containers do not have what the spec wants.
    pub(crate) resize: &'a Unfinished,
    /// Whether containers run that do not have what is allocated to them.
    pub(crate) resizes: bool,
    /// Why the node has ended the Pod, if it had to.
    pub(crate) disrupted: Option<&'a str>,
    pub(crate) now: SystemTime,
}

struct Finding {
    type_: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Finding {
    fn holds(type_: &'static str) -> Self {
        Self {
            type_,
            holds: true,
            reason: None,
            message: None,
        }
    }

    fn fails(type_: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self {
            type_,
            holds: false,
            reason: Some(reason),
            message,
        }
    }
}

/// The conditions; their times of transition are kept from the Pod's status where nothing has
/// changed.
pub(crate) fn conditions(facts: &Facts<'_>) -> Vec<PodCondition> {
    let containers_ready = containers_ready(facts, "ContainersReady");
    let ready = ready(facts, &containers_ready);
    let scheduled = Finding::holds("PodScheduled");
    let start = Finding {
        holds: facts.ready_to_start,
        ..Finding::holds("PodReadyToStartContainers")
    };
    let findings = [
        start,
        initialized(facts),
        ready,
        containers_ready,
        scheduled,
    ];
    let disrupted = facts.disrupted.map(|message| Finding {
        reason: Some("TerminationByKubelet"),
        message: Some(message.to_owned()),
        ..Finding::holds("DisruptionTarget")
    });
    let findings = findings.into_iter().chain(resize(facts));
    let findings = findings.chain(disrupted).chain(anew(facts));
    findings.map(|finding| condition(facts, finding)).collect()
}

/// What there is to say of resources that containers do not have yet: nothing of a Pod that has
/// them, or has ended.
fn resize(facts: &Facts<'_>) -> impl Iterator<Item = Finding> {
    let over = matches!(facts.phase, "Succeeded" | "Failed");
    let pending = facts.resize.pending.as_ref().map(|no_room| Finding {
        reason: Some(no_room.reason),
        message: Some(no_room.message.clone()),
        ..Finding::holds(RESIZE_PENDING)
    });
    let error = facts.resize.error.as_ref();
    let in_progress = (facts.resizes || error.is_some()).then(|| Finding {
        reason: error.map(|_| "Error"),
        message: error.cloned(),
        ..Finding::holds(RESIZE_IN_PROGRESS)
    });
    pending
        .into_iter()
        .chain(in_progress)
        .filter(move |_| !over)
}

/// Whether all containers begin anew (KEP-5532), of Pods of which that has been said before.
fn anew(facts: &Facts<'_>) -> Option<Finding> {
    let said = is_known(facts, ANEW, |_| true);
    (facts.anew || said).then(|| Finding {
        type_: ANEW,
        holds: facts.anew,
        reason: facts.anew.then_some("RestartAllContainersStarted"),
        message: facts
            .anew
            .then(|| "container exited with restart policy rule".to_owned()),
    })
}

/// Whether such a condition was there before.
fn is_known(facts: &Facts<'_>, type_: &str, is: impl Fn(&PodCondition) -> bool) -> bool {
    let mut old = facts.old.conditions.iter().flatten();
    old.any(|condition| condition.type_ == type_ && is(condition))
}

fn condition(facts: &Facts<'_>, finding: Finding) -> PodCondition {
    let status = if finding.holds { "True" } else { "False" };
    let mut old = facts.old.conditions.iter().flatten();
    let old = old.find(|c| c.type_ == finding.type_ && c.status == status);
    let since = old.and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: finding.type_.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.map(str::to_owned),
        message: finding.message,
        last_probe_time: None,
        last_transition_time: since.or(Some(pod::api_time(facts.now))),
        observed_generation: facts.pod.metadata.generation,
    }
}

fn initialized(facts: &Facts<'_>) -> Finding {
    if facts.phase == "Succeeded" {
        return Finding {
            reason: Some("PodCompleted"),
            ..Finding::holds("Initialized")
        };
    }
    let before = || is_known(facts, "Initialized", |condition| condition.status == "True");
    if facts.initialized || (pod::may_begin_anew(facts.pod) && before()) {
        return Finding::holds("Initialized");
    }
    let incomplete = pod::containers(facts.pod).filter_map(|(container, role)| {
        let status = facts.inits.iter().find(|s| s.name == container.name);
        let complete = match role {
            Role::App | Role::Ephemeral => return None,
            Role::Init => status.is_some_and(|s| s.ready),
            Role::Sidecar => status.is_some_and(|s| s.started == Some(true)),
        };
        (!complete).then(|| container.name.clone())
    });
    let names: Vec<String> = incomplete.collect();
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    Finding::fails("Initialized", "ContainersNotInitialized", Some(message))
}

fn containers_ready(facts: &Facts<'_>, type_: &'static str) -> Finding {
    match facts.phase {
        "Succeeded" => return Finding::fails(type_, "PodCompleted", None),
        "Failed" => return Finding::fails(type_, "PodFailed", None),
        _ => {}
    }
    let unready = pod::containers(facts.pod).filter_map(|(container, role)| {
        let of = match role {
            Role::Init | Role::Ephemeral => return None,
            Role::Sidecar => facts.inits,
            Role::App => facts.apps,
        };
        let status = of.iter().find(|s| s.name == container.name);
        let ready = status.is_some_and(|s| s.ready);
        (!ready).then(|| container.name.clone())
    });
    let names: Vec<String> = unready.collect();
    if names.is_empty() {
        return Finding::holds(type_);
    }
    let message = format!("containers with unready status: [{}]", names.join(" "));
    Finding::fails(type_, "ContainersNotReady", Some(message))
}

fn ready(facts: &Facts<'_>, containers: &Finding) -> Finding {
    if !containers.holds {
        return Finding::fails(
            "Ready",
            containers.reason.unwrap_or("ContainersNotReady"),
            containers.message.clone(),
        );
    }
    let gates = pod::spec(facts.pod).readiness_gates.iter().flatten();
    let mut closed = Vec::new();
    for gate in gates {
        let mut present = pod::status(facts.pod).conditions.iter().flatten();
        match present.find(|c| c.type_ == gate.condition_type) {
            None => closed.push(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(condition) if condition.status != "True" => closed.push(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            Some(_) => {}
        }
    }
    match closed.is_empty() {
        true => Finding::holds("Ready"),
        false => Finding::fails("Ready", "ReadinessGatesNotReady", Some(closed.join(", "))),
    }
}
