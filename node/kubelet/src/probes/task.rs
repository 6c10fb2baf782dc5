//! One probe of one container, from the container's start to its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_runtime::ContainerId;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio_util::sync::CancellationToken;

use super::dial::Target;
use super::threshold::Threshold;
use super::{Fault, ProbeKind, ProbeView};
use crate::containers::observed::ObservedContainer;
use crate::events::Severity;
use crate::node_context::NodeContext;
use crate::worker::inbox::Handle;

/// How often a container is tried that nothing is found out of, before that is told.
const TRIES: usize = 3;

/// A probe that runs.
pub(crate) struct ProbeTask {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) worker: Arc<Handle>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) of: ObservedContainer,
    pub(crate) started_at: SystemTime,
    pub(crate) kind: ProbeKind,
    pub(crate) target: Target,
}

/// The probe of that kind, if the container has it.
pub(crate) fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

impl ProbeTask {
    /// Probes until cancelled, or until there is nothing more to find.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.probe() => {}
        }
    }

    async fn probe(&self) {
        let Some(probe) = probe_of(&self.container, self.kind) else {
            return;
        };
        if self.kind == ProbeKind::Startup && self.node.probes.started(self.of.id()) {
            return;
        }
        let seconds = |value: Option<i32>, default: u64, least: u64| {
            let value = value.and_then(|value| u64::try_from(value).ok());
            Duration::from_secs(value.unwrap_or(default).max(least))
        };
        let delay = seconds(probe.initial_delay_seconds, 0, 0);
        let period = seconds(probe.period_seconds, 10, 1);
        let timeout = seconds(probe.timeout_seconds, 1, 1);
        let waits = self.kind != ProbeKind::Startup && self.container.startup_probe.is_some();
        if waits {
            self.node.probes.wait_started(self.of.id()).await;
        }
        let due = self.started_at + delay;
        let left = due.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::time::sleep(left).await;

        let mut threshold = Threshold::new(probe.success_threshold, probe.failure_threshold);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result = self.try_out(timeout).await;
            let told = match &result {
                Ok(None) => None,
                Ok(Some(warning)) => {
                    let text = format!("{} probe warning: {warning}", self.kind.title());
                    Some(("ProbeWarning", text))
                }
                Err(fault) => Some(("Unhealthy", fault.text(self.kind))),
            };
            if let Some((reason, text)) = told {
                let name = Some(self.container.name.as_str());
                let recorder = &self.node.recorder;
                recorder.pod(&self.pod, name, Severity::Warning, reason, text);
            }
            if says_nothing(&result) {
                continue;
            }
            let Some(settled) = threshold.settle(result.is_ok()) else {
                continue;
            };
            if self.node.probes.set(self.of.id(), self.kind, settled) {
                self.worker.hint();
            }
            let done = match self.kind {
                ProbeKind::Startup => true,
                // The container is being killed.
                ProbeKind::Liveness => !settled,
                ProbeKind::Readiness => false,
            };
            if done {
                return;
            }
        }
    }

    /// Tries the container, and at once again where nothing is found out by it.
    async fn try_out(&self, timeout: Duration) -> Result<Option<String>, Fault> {
        let once = || self.target.probe(&self.node, &self.of, timeout);
        let mut result = once().await;
        for _ in 1..TRIES {
            if !says_nothing(&result) {
                break;
            }
            result = once().await;
        }
        result
    }
}

/// Whether a try is no result.
fn says_nothing<T>(result: &Result<T, Fault>) -> bool {
    matches!(result, Err(Fault::Unknown(_) | Fault::Broken(_)))
}

/// Takes over what an earlier agent had found of a container that still runs.
pub(crate) fn adopt(node: &NodeContext, pod: &Pod, name: &str, id: &ContainerId, api_id: &str) {
    let status = crate::pod::status(pod);
    let apps = status.container_statuses.iter().flatten();
    let inits = status.init_container_statuses.iter().flatten();
    let same = |id: &Option<String>| id.as_deref() == Some(api_id);
    let Some(old) = apps
        .chain(inits)
        .find(|s| s.name == name && same(&s.container_id))
    else {
        return;
    };
    if old.started == Some(true) && !node.probes.started(id) {
        node.probes.set(id, ProbeKind::Startup, true);
    }
    if old.ready && node.probes.get(id, ProbeKind::Readiness).is_none() {
        node.probes.set(id, ProbeKind::Readiness, true);
    }
}
