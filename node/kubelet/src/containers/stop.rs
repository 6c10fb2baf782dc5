//! Stopping containers within a grace period that may shrink meanwhile.

use std::time::Duration;

use coracle_runtime::ContainerId;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Probe};
use tokio::sync::watch;
use tokio::time::Instant;

use super::actions::{Kill, KillCause};
use super::handler::Hooked;
use super::observed::{ObservedContainer, PodRuntime};
use crate::events::Severity;
use crate::node_context::NodeContext;
use crate::pod::{self, Role};

/// Pause before a runtime that failed to stop a container is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Least time that a container has to end, whatever has used up its grace period, as in Kubernetes.
const LEAST: Duration = Duration::from_secs(2);

/// Stops everything that runs in the Pod: its own containers first and together, then its
/// sidecars one after another in reverse order, as KEP-753 says. What each wants done before, all do
/// at once, and who has waited for longer than there is time waits no more. `deadline` only comes
/// nearer.
pub(crate) async fn stop_pod(
    node: &NodeContext,
    pod: &Pod,
    runtime: &PodRuntime,
    deadline: watch::Receiver<Instant>,
) {
    let turns = |of: &ObservedContainer| turn(pod, of.name());
    let left = watch::Sender::new(runtime.running().filter_map(turns).collect::<Vec<usize>>());
    let stops: FuturesUnordered<_> = runtime
        .running()
        .map(|of| {
            let (own, deadline, left) = (turns(of), deadline.clone(), &left);
            async move {
                let mut others = left.subscribe();
                let turn = async {
                    // The sender is here.
                    let _ = others.wait_for(|left| is_turn(own, left)).await;
                };
                stop_in_turn(node, pod, of, deadline, turn).await;
                left.send_modify(|left| {
                    if let Some(at) = left.iter().position(|other| Some(*other) == own) {
                        left.swap_remove(at);
                    }
                });
            }
        })
        .collect();
    stops.collect::<Vec<()>>().await;
}

/// When a container is stopped: the Pod's own are first, and then its sidecars, the last one first.
/// None of one that waits for nobody, and for which nobody waits.
fn turn(pod: &Pod, name: &str) -> Option<usize> {
    match pod::own_container(pod, name)?.1 {
        Role::App => Some(0),
        Role::Sidecar => {
            let mut after = pod::init_containers(pod).iter().rev();
            after.position(|of| of.name == name).map(|after| after + 1)
        }
        Role::Init | Role::Ephemeral => None,
    }
}

/// Whether nobody is left who goes before.
fn is_turn(own: Option<usize>, left: &[usize]) -> bool {
    own.is_none_or(|own| left.iter().all(|other| *other >= own))
}

/// Returns when the deadline is over.
async fn over(mut deadline: watch::Receiver<Instant>) {
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            changed = deadline.changed() => {
                if changed.is_err() {
                    // Whoever could shorten it is gone: it stays as it is.
                    return tokio::time::sleep_until(until).await;
                }
            }
        }
    }
}

/// Does what a container wants done before it is stopped, within its grace period.
async fn pre_stop(
    node: &NodeContext,
    pod: &Pod,
    of: &ObservedContainer,
    deadline: watch::Receiver<Instant>,
) {
    let container = pod::container(pod, of.name()).map(|(container, _)| container);
    let hook = container.as_ref();
    let hook = hook.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
    let runtime = node.router.by_name(of.runtime);
    let (Some(container), Some(hook), Some(runtime)) = (&container, hook, runtime) else {
        return;
    };
    // Without grace there is no hook either.
    if *deadline.borrow() <= Instant::now() {
        return;
    }
    // What the API knows of the Pod may be older than the container.
    let known = node.cache.pod(pod::uid(pod));
    let hooked = Hooked {
        node,
        runtime: runtime.as_ref(),
        pod,
        ips: known.ips_of(of),
        container,
        id: of.id(),
    };
    let ended = tokio::select! {
        ended = hooked.run(hook) => ended,
        // One that is not through has not failed.
        () = over(deadline) => Ok(()),
    };
    if let Err(error) = ended {
        let (uid, name) = (pod::uid(pod), of.name());
        tracing::warn!(
            uid,
            container = name,
            error,
            "a hook has failed before a stop"
        );
        // What its command has printed may be secret, and events are not.
        let text = "PreStopHook failed";
        let (severity, reason) = (Severity::Warning, "FailedPreStopHook");
        node.recorder.pod(pod, Some(name), severity, reason, text);
    }
}

/// Stops one container; returns when it has ended. A runtime that fails is asked again.
pub(crate) async fn stop_one(
    node: &NodeContext,
    pod: &Pod,
    of: &ObservedContainer,
    deadline: watch::Receiver<Instant>,
) {
    stop_in_turn(node, pod, of, deadline, std::future::ready(())).await;
}

/// The same, when it is its turn.
async fn stop_in_turn(
    node: &NodeContext,
    pod: &Pod,
    of: &ObservedContainer,
    mut deadline: watch::Receiver<Instant>,
    turn: impl Future<Output = ()>,
) {
    let Some(runtime) = node.router.by_name(of.runtime) else {
        return;
    };
    let id: &ContainerId = of.id();
    pre_stop(node, pod, of, deadline.clone()).await;
    tokio::select! {
        () = turn => {}
        () = over(deadline.clone()) => {}
    }
    // What hooks and others have used up is not all that a container gets.
    let least = Instant::now() + LEAST;
    let grace = |until: Instant| until.max(least).saturating_duration_since(Instant::now());
    loop {
        let mut stops = FuturesUnordered::new();
        let until = *deadline.borrow_and_update();
        stops.push(runtime.stop_container(id, grace(until)));
        let stopped = loop {
            tokio::select! {
                stopped = stops.next() => break stopped,
                changed = deadline.changed() => {
                    if changed.is_err() {
                        break stops.next().await;
                    }
                    let until = *deadline.borrow_and_update();
                    stops.push(runtime.stop_container(id, grace(until)));
                }
            }
        };
        match stopped {
            None | Some(Ok(())) => break,
            Some(Err(error)) => {
                tracing::warn!(%error, container = id.0, "cannot stop a container; asking again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    if let Err(error) = node
        .cache
        .refresh(runtime.as_ref(), pod::uid(pod), id)
        .await
    {
        tracing::warn!(%error, container = id.0, "cannot look at a stopped container");
    }
}

/// What is said of a container that is killed while its Pod lives, and how long it may take to end.
pub(crate) fn killing(pod: &Pod, kill: &Kill) -> (String, Duration) {
    let (name, grace) = (&*kill.name, pod::grace(pod));
    let container = pod::container(pod, name);
    let (what, then) = match (container.as_ref().map(|(_, role)| *role), kill.restarts) {
        (Some(Role::Init | Role::Sidecar), _) => ("Init container", ""),
        (_, true) => ("Container", ", will be restarted"),
        (_, false) => ("Container", ""),
    };
    let container = container.map(|(container, _)| container);
    let own = |probe: Option<&Probe>| {
        let seconds = probe.and_then(|probe| probe.termination_grace_period_seconds);
        seconds.map_or(grace, pod::grace_of)
    };
    match kill.cause {
        KillCause::Liveness => (
            format!("{what} {name} failed liveness probe{then}"),
            own(container.as_ref().and_then(|c| c.liveness_probe.as_ref())),
        ),
        KillCause::Startup => (
            format!("{what} {name} failed startup probe{then}"),
            own(container.as_ref().and_then(|c| c.startup_probe.as_ref())),
        ),
        KillCause::Changed => (format!("{what} {name} definition changed{then}"), grace),
        KillCause::Resized => (format!("Container {name} resize requires restart"), grace),
        KillCause::Anew => (
            format!("Container {name} will be restarted with all of its Pod"),
            Duration::ZERO,
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sidecars_wait_for_the_pods_own_containers_and_for_those_after_them() {
        let sidecar = |name: &str| json!({"name": name, "restartPolicy": "Always"});
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "initContainers": [sidecar("one"), {"name": "init"}, sidecar("two")],
            "containers": [{"name": "a"}, {"name": "b"}],
            "ephemeralContainers": [{"name": "debug"}],
        }}))
        .unwrap();
        // Of those that run, whose turn it is.
        let table: &[(&[&str], &[&str])] = &[
            (&["one", "two", "a", "b"], &["a", "b"]),
            (&["one", "two", "b"], &["b"]),
            (&["one", "two"], &["two"]),
            (&["one"], &["one"]),
            // A shell does not hear that it is to end.
            (&["one", "two", "debug"], &["two", "debug"]),
            (&["one", "init"], &["one", "init"]),
        ];
        for (running, now) in table {
            let turns = running.iter().map(|name| (*name, turn(&pod, name)));
            let turns: Vec<(&str, Option<usize>)> = turns.collect();
            let left: Vec<usize> = turns.iter().filter_map(|(_, turn)| *turn).collect();
            let whose = turns.iter().filter(|(_, turn)| is_turn(*turn, &left));
            let whose: Vec<&str> = whose.map(|(name, _)| *name).collect();
            assert_eq!(whose, *now, "{running:?}");
        }
    }

    #[test]
    fn a_probe_may_say_how_long_what_it_fails_may_take() {
        let probe = json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 3});
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "terminationGracePeriodSeconds": 40,
            "containers": [
                {"name": "own", "livenessProbe": probe, "startupProbe": probe},
                {"name": "pods", "livenessProbe": {"tcpSocket": {"port": 1}}},
            ],
        }}))
        .unwrap();
        for (name, cause, seconds) in [
            ("own", KillCause::Liveness, 3),
            ("own", KillCause::Startup, 3),
            ("own", KillCause::Changed, 40),
            ("pods", KillCause::Liveness, 40),
        ] {
            let (_, grace) = killing(&pod, &kill(name, cause, true));
            assert_eq!(grace, Duration::from_secs(seconds), "{name} {cause:?}");
        }
    }

    fn kill(name: &str, cause: KillCause, restarts: bool) -> Kill {
        Kill {
            id: ContainerId(String::new()),
            name: name.to_owned(),
            cause,
            restarts,
        }
    }

    #[test]
    fn a_restart_is_announced_where_there_is_one() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always"});
        let spec = json!({"initContainers": [sidecar], "containers": [{"name": "a"}]});
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let (liveness, changed) = (KillCause::Liveness, KillCause::Changed);
        for (name, cause, restarts, said) in [
            (
                "a",
                liveness,
                true,
                "Container a failed liveness probe, will be restarted",
            ),
            ("a", liveness, false, "Container a failed liveness probe"),
            (
                "a",
                KillCause::Startup,
                false,
                "Container a failed startup probe",
            ),
            (
                "a",
                changed,
                true,
                "Container a definition changed, will be restarted",
            ),
            (
                "s",
                liveness,
                true,
                "Init container s failed liveness probe",
            ),
            ("s", changed, true, "Init container s definition changed"),
        ] {
            let (message, _) = killing(&pod, &kill(name, cause, restarts));
            assert_eq!(message, said);
        }
    }
}
