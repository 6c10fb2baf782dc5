//! Probes of containers: when they run, what they find, and what follows.
//!
//! A task per probe, owned by the Pod's worker, writes into [`Results`]; the worker is woken
//! when a result changes what it would do. [`threshold`] holds the rule of how many results
//! make a change, [`dial`], [`tls`] and [`grpc`] the I/O.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_runtime::ContainerId;
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) mod dial;
pub(crate) mod grpc;
pub(crate) mod task;
pub(crate) mod threshold;
pub(crate) mod tls;

/// What probes have found, as decisions read it.
pub(crate) trait ProbeView: Send + Sync {
    /// The startup probe has succeeded.
    fn started(&self, id: &ContainerId) -> bool;
    /// The startup probe has failed for good.
    fn startup_failed(&self, id: &ContainerId) -> bool;
    /// The liveness probe has failed for good.
    fn liveness_failed(&self, id: &ContainerId) -> bool;
    /// The readiness probe says that it is ready.
    fn ready(&self, id: &ContainerId) -> bool;
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As messages name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Why a try is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The container does not do what it should.
    Failed(String),
    /// It could not be tried. That says nothing of the container, and is no result.
    Unknown(String),
    /// Its answer broke off, which is no result either.
    Broken(String),
}

impl Fault {
    /// The message of the event.
    pub(crate) fn text(&self, kind: ProbeKind) -> String {
        let kind = kind.title();
        match self {
            Self::Failed(why) => format!("{kind} probe failed: {why}"),
            Self::Unknown(why) => {
                format!("{kind} probe errored and resulted in unknown state: {why}")
            }
            Self::Broken(why) => {
                format!("{kind} probe errored and resulted in failure state: {why}")
            }
        }
    }
}

/// Settled results by container and probe; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    settled: Arc<Mutex<HashMap<(ContainerId, ProbeKind), bool>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Results {
    /// Notes a settled result; true if it changed.
    pub(crate) fn set(&self, id: &ContainerId, kind: ProbeKind, success: bool) -> bool {
        let key = (id.clone(), kind);
        let changed = self.settled.lock().insert(key, success) != Some(success);
        if changed {
            self.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
        changed
    }

    /// Waits until the startup probe of a container has succeeded.
    pub(crate) async fn wait_started(&self, id: &ContainerId) {
        let mut changes = self.changes.subscribe();
        while !self.started(id) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn get(&self, id: &ContainerId, kind: ProbeKind) -> Option<bool> {
        self.settled.lock().get(&(id.clone(), kind)).copied()
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, id: &ContainerId) {
        self.settled.lock().retain(|(of, _), _| of != id);
    }
}

impl ProbeView for Results {
    fn started(&self, id: &ContainerId) -> bool {
        self.get(id, ProbeKind::Startup) == Some(true)
    }

    fn startup_failed(&self, id: &ContainerId) -> bool {
        self.get(id, ProbeKind::Startup) == Some(false)
    }

    fn liveness_failed(&self, id: &ContainerId) -> bool {
        self.get(id, ProbeKind::Liveness) == Some(false)
    }

    fn ready(&self, id: &ContainerId) -> bool {
        self.get(id, ProbeKind::Readiness) == Some(true)
    }
}
