//! Stopping containers within a grace period that may shrink meanwhile.

use std::time::Duration;

use coracle_runtime::ContainerId;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Probe};
use tokio::sync::watch;
use tokio::time::Instant;

use super::actions::KillCause;
use super::handler::Hooked;
use super::observed::{ObservedContainer, PodRuntime};
use crate::events::Severity;
use crate::node_context::NodeContext;
use crate::pod::{self, Role};

/// Pause before a runtime that failed to stop a container is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Least time that a container has to end after its hook, as in Kubernetes.
const LEAST: Duration = Duration::from_secs(2);

/// Stops everything that runs in the Pod: its own containers first and together, then its
/// sidecars one after another in reverse order, as KEP-753 says. `deadline` only comes nearer.
pub(crate) async fn stop_pod(
    node: &NodeContext,
    pod: &Pod,
    runtime: &PodRuntime,
    deadline: watch::Receiver<Instant>,
) {
    let sidecars: Vec<&str> = pod::init_containers(pod)
        .iter()
        .filter(|container| pod::init_role(container) == Role::Sidecar)
        .map(|container| container.name.as_str())
        .collect();
    let apps: FuturesUnordered<_> = runtime
        .running()
        .filter(|of| !sidecars.contains(&of.name()))
        .map(|of| stop_one(node, pod, of, deadline.clone()))
        .collect();
    apps.collect::<Vec<()>>().await;
    for name in sidecars.iter().rev() {
        let running = runtime.running().filter(|of| of.name() == *name);
        for of in running {
            stop_one(node, pod, of, deadline.clone()).await;
        }
    }
}

/// Does what a container wants done before it is stopped, within its grace period; says whether
/// there was anything.
async fn pre_stop(
    node: &NodeContext,
    pod: &Pod,
    of: &ObservedContainer,
    mut deadline: watch::Receiver<Instant>,
) -> bool {
    let container = pod::container(pod, of.name()).map(|(container, _)| container);
    let hook = container.as_ref();
    let hook = hook.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
    let runtime = node.router.by_name(of.runtime);
    let (Some(container), Some(hook), Some(runtime)) = (&container, hook, runtime) else {
        return false;
    };
    // Without grace there is no hook either.
    if *deadline.borrow() <= Instant::now() {
        return false;
    }
    let ips = pod::reported_ips(pod);
    let hooked = Hooked {
        node,
        runtime: runtime.as_ref(),
        uid: pod::uid(pod),
        ips: &ips,
        container,
        id: of.id(),
    };
    let mut running = std::pin::pin!(hooked.run(hook));
    let failed = loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            ended = &mut running => break ended.err(),
            () = tokio::time::sleep_until(until) => {
                break Some("it did not end within the grace period".to_owned());
            }
            // Whoever could shorten it is gone: it stays as it is.
            () = async {
                if deadline.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            } => {}
        }
    };
    if let Some(error) = failed {
        let text = format!("PreStopHook failed: {error}");
        let (recorder, name) = (&node.recorder, Some(of.name()));
        recorder.pod(pod, name, Severity::Warning, "FailedPreStopHook", text);
    }
    true
}

/// Stops one container; returns when it has ended. A runtime that fails is asked again.
pub(crate) async fn stop_one(
    node: &NodeContext,
    pod: &Pod,
    of: &ObservedContainer,
    mut deadline: watch::Receiver<Instant>,
) {
    let Some(runtime) = node.router.by_name(of.runtime) else {
        return;
    };
    let id: &ContainerId = of.id();
    let hooked = pre_stop(node, pod, of, deadline.clone()).await;
    // What a hook has used up is not all that its container gets.
    let least = hooked.then(|| Instant::now() + LEAST);
    let grace = |until: Instant| {
        let until = least.map_or(until, |least| until.max(least));
        until.saturating_duration_since(Instant::now())
    };
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
pub(crate) fn killing(pod: &Pod, name: &str, cause: KillCause) -> (String, Duration) {
    let grace = pod::grace(pod);
    let container = pod::container(pod, name).map(|(container, _)| container);
    let own = |probe: Option<&Probe>| {
        let seconds = probe.and_then(|probe| probe.termination_grace_period_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map_or(grace, Duration::from_secs)
    };
    match cause {
        KillCause::Liveness => (
            format!("Container {name} failed liveness probe, will be restarted"),
            own(container.as_ref().and_then(|c| c.liveness_probe.as_ref())),
        ),
        KillCause::Startup => (
            format!("Container {name} failed startup probe, will be restarted"),
            own(container.as_ref().and_then(|c| c.startup_probe.as_ref())),
        ),
        KillCause::Changed => (
            format!("Container {name} definition changed, will be restarted"),
            grace,
        ),
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
            let (_, grace) = killing(&pod, name, cause);
            assert_eq!(grace, Duration::from_secs(seconds), "{name} {cause:?}");
        }
    }
}
