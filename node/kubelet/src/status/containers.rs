//! The status of one container.

use coracle_runtime::ContainerState as Runs;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus,
    VolumeMount, VolumeMountStatus,
};

use super::StatusInput;
use super::termination::share;
use crate::containers::actions::has_app_container;
use crate::containers::lost::UNSEEN;
use crate::containers::observed::ObservedContainer;
use crate::containers::start::RESOLVED_LABEL;
use crate::pod::{self, Role};

/// What is said of a container that no runtime has any more, and of an init container where others show
/// that it was through.
const VANISHED: &str = "The container could not be located when the pod was deleted.  The container \
                        used to be Running";
const GONE: &str = "The container could not be located when the pod was terminated";
const INITIALIZED: &str = "Unable to get init container status from container runtime and pod has \
                           been initialized, treat it as exited normally";

/// The reason of a container that was removed so that all of its Pod begin anew.
pub(crate) const RESTARTING_ALL: &str = "RestartingAllContainers";

/// The status of a container of the spec, whether or not a runtime has it.
pub(crate) fn status(
    input: &StatusInput<'_>,
    container: &Container,
    role: Role,
) -> ContainerStatus {
    let name = container.name.as_str();
    let latest = input.runtime.latest(name);
    let old = old_status(input, name);
    let mut status = ContainerStatus {
        name: name.to_owned(),
        image: container.image.clone().unwrap_or_default(),
        ..ContainerStatus::default()
    };
    if role != Role::Ephemeral {
        let allocated = container.resources.clone().unwrap_or_default();
        let runs = latest.is_some_and(|of| of.running_since().is_some());
        let actual = input.allocation.filter(|_| runs);
        let actual = actual.and_then(|allocation| allocation.actual(name));
        status.allocated_resources = allocated.requests.clone();
        status.resources = Some(actual.cloned().unwrap_or(allocated));
    }
    match latest {
        None => {
            unseen(input, &mut status, old, container, role);
            return status;
        }
        Some(latest) => {
            seen(input, &mut status, latest, container, role);
            if status.last_state.is_none() && status.restart_count > 0 {
                status.last_state = old.and_then(|old| ended_before(old, status.restart_count));
            }
        }
    }
    status
}

fn old_status<'a>(input: &StatusInput<'a>, name: &str) -> Option<&'a ContainerStatus> {
    let status = input.old;
    let apps = status.container_statuses.iter().flatten();
    let inits = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    let mut all = apps.chain(inits).chain(ephemeral);
    all.find(|s| s.name == name)
}

/// No runtime has it: it was not started yet, or a runtime has lost it.
fn unseen(
    input: &StatusInput<'_>,
    status: &mut ContainerStatus,
    old: Option<&ContainerStatus>,
    container: &Container,
    role: Role,
) {
    status.started = (role != Role::Ephemeral).then_some(false);
    let again = |code: i32| pod::restarts(input.pod, container, role, code);
    if let Some(old) = old {
        status.restart_count = old.restart_count;
        let ended = |state: &&ContainerState| state.terminated.is_some();
        let last = old.state.as_ref().filter(ended);
        status.last_state = last.or(old.last_state.as_ref()).cloned();
        // An ephemeral container is made once.
        let over = input.terminated || pod::is_terminal(input.pod) || role == Role::Ephemeral;
        let begins = role == Role::Init && input.actions.reborn;
        let stays = end_code(old).is_some_and(|code| !begins && !again(code));
        if stays || (over && last.is_some()) {
            // The record is gone, what was reported stays.
            *status = old.clone();
            return;
        }
    }
    if input.terminated || role == Role::Ephemeral {
        // Nothing of it will ever run: clients wait for a terminated state.
        if old.is_some_and(|old| old.container_id.is_some()) {
            status.state = Some(lost(GONE));
            status.container_id = old.and_then(|old| old.container_id.clone());
            return;
        }
    }
    if role == Role::Init && has_app_container(input.pod, input.runtime) {
        // Or no other would have been made.
        match old.filter(|old| end_code(old).is_some()) {
            Some(old) => *status = old.clone(),
            None => {
                status.ready = true;
                status.state = Some(ended_unseen(0, "Completed", INITIALIZED));
            }
        }
        return;
    }
    if let Some(old) = old.filter(|old| runs(old) && !again(UNSEEN)) {
        // It does not run twice.
        status.state = Some(lost(GONE));
        status.container_id = old.container_id.clone();
        return;
    }
    if old.is_some_and(vanished) {
        // Without an end the Pod would be pending, which it is not any more.
        status.last_state = Some(lost(VANISHED));
        if input.pod.metadata.deletion_timestamp.is_none() {
            status.restart_count = status.restart_count.saturating_add(1);
        }
    }
    let waiting = match input.failures.get(&status.name) {
        Some(failure) => waiting(failure.reason, Some(failure.message.clone())),
        // As the kubelet says it, of a Pod that has been initialized too.
        None if has_inits(input) => waiting("PodInitializing", None),
        None => waiting("ContainerCreating", None),
    };
    status.state = Some(waiting);
}

/// How a container ended before it was started so often, as it was reported: no runtime knows that one
/// any more.
fn ended_before(old: &ContainerStatus, restarts: i32) -> Option<ContainerState> {
    let ended = |state: &&ContainerState| state.terminated.is_some();
    let own = old.state.as_ref().filter(|_| old.restart_count < restarts);
    let last = own.filter(ended).or(old.last_state.as_ref());
    let unknown = || (old.restart_count < restarts && vanished(old)).then(|| lost(VANISHED));
    last.filter(ended).cloned().or_else(unknown)
}

fn has_inits(input: &StatusInput<'_>) -> bool {
    !pod::init_containers(input.pod).is_empty()
}

/// What is said of a container that has run, and of whose end nothing is known.
fn lost(message: &str) -> ContainerState {
    ended_unseen(UNSEEN, "ContainerStatusUnknown", message)
}

fn ended_unseen(exit_code: i32, reason: &str, message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code,
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn end_code(status: &ContainerStatus) -> Option<i32> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    Some(ended.exit_code)
}

fn runs(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|state| state.running.is_some())
}

/// It was running when it was last seen, as far as is known for the first time.
fn vanished(old: &ContainerStatus) -> bool {
    let ended = old.last_state.as_ref();
    runs(old) && ended.is_none_or(|state| state.terminated.is_none())
}

/// Says of containers that they were removed, for all of their Pod begin anew (KEP-5532).
pub(crate) fn remove_all(status: &mut PodStatus) {
    let gone = "The container is removed because RestartAllContainers in place";
    let inits = status.init_container_statuses.iter_mut();
    let apps = status.container_statuses.iter_mut();
    for of in inits.chain(apps).flatten() {
        let state = of.state.as_ref();
        if state.is_none_or(|state| state.waiting.is_some()) {
            continue;
        }
        of.state = Some(waiting(RESTARTING_ALL, Some(gone.to_owned())));
        of.last_state = Some(ended_unseen(137, RESTARTING_ALL, gone));
        of.restart_count = of.restart_count.saturating_add(1);
        (of.ready, of.started) = (false, Some(false));
    }
}

/// How the volumes are mounted (KEP-3857).
fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?.iter();
    let of = |mount: &VolumeMount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") => "Enabled",
            _ => "Disabled",
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| recursive.to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(mounts.map(of).collect())
}

/// As whom its first process began (KEP-3619).
fn user(of: &coracle_runtime::ContainerUser) -> ContainerUser {
    let groups = of.supplemental_groups.iter().copied().map(i64::from);
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: of.uid.into(),
            gid: of.gid.into(),
            supplemental_groups: Some(groups.collect()),
        }),
    }
}

fn seen(
    input: &StatusInput<'_>,
    status: &mut ContainerStatus,
    latest: &ObservedContainer,
    container: &Container,
    role: Role,
) {
    let config = &latest.container.config;
    status.restart_count = i32::try_from(config.attempt).unwrap_or(i32::MAX);
    status.volume_mounts = mounts(container);
    status.container_id = Some(latest.api_id());
    status.image_id = match config.labels.get(RESOLVED_LABEL) {
        Some(resolved) => resolved.clone(),
        None => config.image_digest.clone(),
    };
    let began = latest.container.state != Runs::Created;
    let known = latest.container.user.as_ref();
    status.user = known.filter(|_| began).map(user);
    status.stop_signal = config.stop_signal.clone();
    let previous = input.runtime.previous(&status.name);
    status.last_state = previous.and_then(|of| terminated(input, of));
    status.started = (role != Role::Ephemeral).then_some(false);
    match &latest.container.state {
        Runs::Created => {
            status.container_id = None;
            let failure = input.failures.get(&status.name);
            status.state = Some(match failure {
                Some(failure) => waiting(failure.reason, Some(failure.message.clone())),
                None => waiting("ContainerCreating", None),
            });
        }
        Runs::Running { started_at } => {
            let running = ContainerStateRunning {
                started_at: Some(pod::api_time(*started_at)),
            };
            status.state = Some(ContainerState {
                running: Some(running),
                ..ContainerState::default()
            });
            if role == Role::Ephemeral {
                return;
            }
            let has_startup = container.startup_probe.is_some();
            let started = !has_startup || input.probes.started(latest.id());
            status.started = Some(started);
            let has_readiness = container.readiness_probe.is_some();
            let ready = !has_readiness || input.probes.ready(latest.id());
            status.ready = started && ready && role != Role::Init && !input.terminated;
        }
        Runs::Exited(exit) => {
            let ended = terminated(input, latest);
            status.ready = role == Role::Init && exit.code == 0;
            if let Some(waits) = input.actions.crash_loop.get(&status.name) {
                let message = format!(
                    "back-off {} restarting failed container={} pod={}",
                    delay_text(waits.delay),
                    status.name,
                    pod::long_name(input.pod)
                );
                status.state = Some(waiting("CrashLoopBackOff", Some(message)));
                status.last_state = ended;
            } else if let Some(failure) = input.failures.get(&status.name)
                && !input.terminated
                && role != Role::Ephemeral
                && (!failure.has_started() || pod::restarts(input.pod, container, role, exit.code))
            {
                status.state = Some(waiting(failure.reason, Some(failure.message.clone())));
                status.last_state = ended;
            } else {
                status.state = ended;
            }
        }
    }
}

/// As Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn delay_text(delay: std::time::Duration) -> String {
    let seconds = delay.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    }
}

fn terminated(input: &StatusInput<'_>, of: &ObservedContainer) -> Option<ContainerState> {
    let exit = of.exit()?;
    let own = input.messages.get(&of.id().0);
    let mut said = own.into_iter().chain([&exit.message]);
    let message = said.find(|message| !message.is_empty());
    let ephemeral = pod::ephemeral::all(input.pod).len();
    let containers = pod::containers(input.pod).count() + ephemeral;
    let terminated = ContainerStateTerminated {
        container_id: Some(of.api_id()),
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: message.map(|message| share(message, containers).to_owned()),
        signal: None,
        started_at: Some(pod::api_time(exit.started_at.unwrap_or(exit.finished_at))),
        finished_at: Some(pod::api_time(exit.finished_at)),
    };
    Some(ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    })
}
