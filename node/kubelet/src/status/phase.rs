//! The phase of a Pod, a summary of its containers' states.
//!
//! Source of the rule: the Pod lifecycle page of Kubernetes, "Pod phase".

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::containers::RESTARTING_ALL;
use crate::pod;

/// The phase. `terminated`: nothing of the Pod runs any more, and nothing will.
pub(crate) fn phase(
    pod: &Pod,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
    initialized: bool,
    terminated: bool,
) -> &'static str {
    let restarts = |status: &ContainerStatus, code: i32| {
        let found = pod::own_container(pod, &status.name);
        let own = found.is_some_and(|(container, role)| pod::restarts(pod, container, role, code));
        own || begins_anew(status)
    };
    let failed_init = inits.iter().any(|init| {
        let code = exit_code(init).filter(|code| *code != 0);
        code.is_some_and(|code| !restarts(init, code))
    });
    if !initialized && !terminated {
        return match failed_init {
            true => "Failed",
            false => "Pending",
        };
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut again = false;
    for status in apps {
        match exit_code(status) {
            Some(code) => {
                stopped += 1;
                succeeded += u32::from(code == 0);
                again |= restarts(status, code);
            }
            None if is_running(status) => running += 1,
            None => waiting += 1,
        }
    }
    if terminated {
        let all_well = stopped > 0 && stopped == succeeded && waiting == 0 && initialized;
        return match all_well {
            true => "Succeeded",
            false => "Failed",
        };
    }
    match (waiting, running, stopped) {
        (1.., _, _) => "Pending",
        (0, 1.., _) => "Running",
        (0, 0, 0) => "Pending",
        _ if again => "Running",
        _ if stopped == succeeded => "Succeeded",
        _ => "Failed",
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    let running = |state: &ContainerState| state.running.is_some();
    status.state.as_ref().is_some_and(running)
}

/// Whether it was removed only to be made again with all of its Pod, and is not there yet.
fn begins_anew(status: &ContainerStatus) -> bool {
    let waits = |state: &ContainerState| state.waiting.is_some();
    let last = status.last_state.as_ref();
    let last = last.and_then(|state| state.terminated.as_ref());
    status.state.as_ref().is_some_and(waits)
        && last.is_some_and(|last| last.reason.as_deref() == Some(RESTARTING_ALL))
}

/// How the container ended: now, or before it began to wait for its restart.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    if let Some(terminated) = &state.terminated {
        return Some(terminated.exit_code);
    }
    state.waiting.as_ref()?;
    let last = status.last_state.as_ref()?.terminated.as_ref()?;
    Some(last.exit_code)
}
