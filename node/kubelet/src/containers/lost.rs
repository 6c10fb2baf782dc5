//! Containers that have begun and that no runtime knows any more: the machine was booted, the node was
//! reset, an agent has ended its Pods, or somebody has removed them.
//!
//! What a runtime has said of them, or else what the API was told, stands in for their records: what
//! runs once does not run twice.

use std::collections::BTreeMap;

use coracle_runtime::ContainerState as Runs;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod,
};

use super::actions::Observed;
use super::observed::PodRuntime;
use crate::pod::{self, RestartPolicy, Role};
use crate::status::containers::RESTARTING_ALL;

/// The code with which a container is said to have ended whose end nobody has seen.
pub(crate) const UNSEEN: i32 = 137;

/// What is known of such a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) attempt: u32,
    /// The code with which it has ended, [`UNSEEN`] if it ran when it was last heard of; none if it is
    /// to begin again whatever that was.
    pub(crate) code: Option<i32>,
}

/// What the API was told of a Pod's containers that no runtime has.
pub(crate) fn reported(pod: &Pod, runtime: &PodRuntime) -> BTreeMap<String, Lost> {
    let status = pod::status(pod);
    let apps = status.container_statuses.iter().flatten();
    let inits = status.init_container_statuses.iter().flatten();
    let gone = apps
        .chain(inits)
        .filter(|status| runtime.latest(&status.name).is_none());
    gone.filter_map(|status| Some((status.name.clone(), told(status)?)))
        .collect()
}

/// What a status tells of its container; none if that has not begun.
fn told(status: &ContainerStatus) -> Option<Lost> {
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    let last = ended(status.last_state.as_ref());
    let restarts_all = last.is_some_and(|last| last.reason.as_deref() == Some(RESTARTING_ALL));
    let state = status.state.as_ref();
    if let Some(own) = ended(state) {
        let code = Some(own.exit_code);
        return Some(Lost {
            attempt: count,
            code,
        });
    }
    if state.is_some_and(|state| state.running.is_some()) {
        let code = Some(UNSEEN);
        return Some(Lost {
            attempt: count,
            code,
        });
    }
    let id = status.container_id.as_deref().unwrap_or_default();
    // What waits is counted before it is there, but where it waits for its back-off.
    let counted = id.is_empty() || restarts_all;
    Some(Lost {
        attempt: count.checked_sub(u32::from(counted))?,
        code: last.filter(|_| !restarts_all).map(|last| last.exit_code),
    })
}

fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state.and_then(|state| state.terminated.as_ref())
}

/// Notes what the runtimes say of a Pod's containers, should they lose them.
pub(crate) fn note(lost: &mut BTreeMap<String, Lost>, pod: &Pod, runtime: &PodRuntime) {
    for (container, _) in pod::containers(pod) {
        let Some(of) = runtime.latest(&container.name) else {
            continue;
        };
        let code = match &of.container.state {
            // One that never ran is made again as what it was.
            Runs::Created => continue,
            Runs::Running { .. } => UNSEEN,
            Runs::Exited(exit) => exit.code,
        };
        let known = Lost {
            attempt: of.container.config.attempt,
            code: Some(code),
        };
        lost.insert(container.name.clone(), known);
    }
}

/// Whether a container is to run again that is lost, or has died with its sandbox. Its Pod begins with
/// its init containers then, as it did in the sandbox before.
pub(super) fn is_reborn(observed: &Observed<'_>) -> bool {
    let (pod, runtime) = (observed.pod, observed.runtime);
    let code = |name: &str| match runtime.latest(name) {
        Some(of) if runtime.has_lost_sandbox(of) => of.exit().map(|exit| exit.code),
        Some(_) => None,
        None => observed.lost.get(name).and_then(|lost| lost.code),
    };
    let begun = |name: &str| runtime.latest(name).is_some() || observed.lost.contains_key(name);
    let mut apps = pod::spec(pod).containers.iter();
    let initialized = apps.any(|app| begun(&app.name));
    let again = |(container, role): (&Container, Role)| {
        let Some(code) = code(&container.name) else {
            return false;
        };
        // What an init container has made may be gone before others have used it.
        let once = pod::restart_policy(pod, container, role) == RestartPolicy::Never;
        let needed = role == Role::Init && !initialized && !once;
        needed || pod::restarts(pod, container, role, code)
    };
    let mut all = pod::containers(pod).filter(|(_, role)| *role != Role::Sidecar);
    observed.lives && all.any(again)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_was_told_stands_in_for_a_record() {
        type Case = (Value, Option<(u32, Option<i32>)>);

        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let anew = json!({"terminated": {"exitCode": 137, "reason": RESTARTING_ALL}});
        let (id, none) = (json!("wasm://x"), json!({}));
        let waits = json!({"waiting": {}});
        let table: Vec<Case> = vec![
            // ID, state, state before, restarts; attempt and code.
            (json!([none, waits, none, 0]), None),
            (json!([id, {"running": {}}, none, 2]), Some((2, Some(137)))),
            (
                json!([id, {"running": {}}, ended(7), 2]),
                Some((2, Some(137))),
            ),
            (json!([id, ended(0), none, 0]), Some((0, Some(0)))),
            (json!([none, ended(0), none, 0]), Some((0, Some(0)))),
            // It waits for its back-off.
            (json!([id, waits, ended(1), 3]), Some((3, Some(1)))),
            // Its next one could not be made, or was not made yet.
            (json!([none, waits, ended(1), 3]), Some((2, Some(1)))),
            (json!([id, waits, anew, 3]), Some((2, None))),
        ];
        for (told, expected) in table {
            let mut status = json!({
                "name": "a", "image": "", "imageID": "", "ready": false,
                "state": told[1], "lastState": told[2], "restartCount": told[3],
            });
            if told[0].is_string() {
                status["containerID"] = told[0].clone();
            }
            let pod = json!({"metadata": {}, "status": {"containerStatuses": [status]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let found = reported(&pod, &PodRuntime::default());
            let found = found.get("a").map(|lost| (lost.attempt, lost.code));
            assert_eq!(found, expected, "{told}");
        }
    }
}
