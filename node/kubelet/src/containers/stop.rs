//! Stopping containers within a grace period that may shrink meanwhile.

use std::time::Duration;

use coracle_runtime::ContainerId;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

use super::observed::{ObservedContainer, PodRuntime};
use crate::node_context::NodeContext;
use crate::pod::{self, Role};

/// Pause before a runtime that failed to stop a container is asked again.
const RETRY: Duration = Duration::from_secs(1);

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
        .map(|of| stop_one(node, pod::uid(pod), of, deadline.clone()))
        .collect();
    apps.collect::<Vec<()>>().await;
    for name in sidecars.iter().rev() {
        let running = runtime.running().filter(|of| of.name() == *name);
        for of in running {
            stop_one(node, pod::uid(pod), of, deadline.clone()).await;
        }
    }
}

/// Stops one container; returns when it has ended. A runtime that fails is asked again.
pub(crate) async fn stop_one(
    node: &NodeContext,
    uid: &str,
    of: &ObservedContainer,
    mut deadline: watch::Receiver<Instant>,
) {
    let Some(runtime) = node.router.by_name(of.runtime) else {
        return;
    };
    let id: &ContainerId = of.id();
    loop {
        let mut stops = FuturesUnordered::new();
        let until = *deadline.borrow_and_update();
        stops.push(runtime.stop_container(id, until.saturating_duration_since(Instant::now())));
        let stopped = loop {
            tokio::select! {
                stopped = stops.next() => break stopped,
                changed = deadline.changed() => {
                    if changed.is_err() {
                        break stops.next().await;
                    }
                    let until = *deadline.borrow_and_update();
                    let left = until.saturating_duration_since(Instant::now());
                    stops.push(runtime.stop_container(id, left));
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
    if let Err(error) = node.cache.refresh(runtime.as_ref(), uid, id).await {
        tracing::warn!(%error, container = id.0, "cannot look at a stopped container");
    }
}
