//! The HTTP hosts of the node: one process per namespace, started with its first guest and
//! closed some time after its last; and one for each Pod with a network namespace of its own that
//! has HTTP guests, which is closed with the Pod.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use coracle_runtime::process::Ended;
use coracle_runtime::{Exit, PodSandbox, RuntimeEvent, disk};
use parking_lot::Mutex;

use super::Inner;
use super::client::Listener;
use super::folders::{self, Started};
use super::home::Home;
use super::process::Process;
use crate::protocol::{Event, Request, Response};

/// How long a host without guests is kept.
const IDLE: Duration = Duration::from_secs(30);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Process>>>>;

/// Hosts by whom they serve. A slot is locked while its host is started or closed.
#[derive(Default)]
pub(super) struct Hosts {
    slots: Mutex<HashMap<Home, Slot>>,
    /// The same processes, for whoever must not wait.
    running: Mutex<Vec<Arc<Process>>>,
}

impl Hosts {
    fn slot(&self, home: &Home) -> Slot {
        let mut slots = self.slots.lock();
        slots.entry(home.clone()).or_default().clone()
    }

    pub(super) fn running(&self) -> Vec<Arc<Process>> {
        self.running.lock().clone()
    }

    pub(super) fn clear(&self) {
        self.slots.lock().clear();
        self.running.lock().clear();
    }
}

/// Hears what happens at a process, on behalf of the runtime.
pub(super) struct Ears(pub Weak<Inner>);

impl Listener for Ears {
    fn event(&self, event: Event) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        match event {
            Event::Bound(_) | Event::Unbound(_) => inner.ledger.tell(RuntimeEvent::Listeners),
            Event::Unserved { port, number } => inner.dispatches.unserved(port, number),
            Event::Exited { container, exit } => {
                if let Ok(entry) = inner.ledger.entry(&container) {
                    inner.ledger.exited(&entry, exit);
                }
            }
        }
    }
}

impl Inner {
    /// The host for guests who live there; starts it if there is none.
    pub(super) async fn host(self: &Arc<Self>, home: &Home) -> io::Result<Arc<Process>> {
        let slot = self.hosts.slot(home);
        let mut slot = slot.lock().await;
        if let Some(host) = &*slot {
            return Ok(host.clone());
        }
        let folder = self.folders.host(&home.folder());
        let host = self.spawn("wasm-http-host", &folder, home, None).await?;
        *slot = Some(host.clone());
        drop(slot);
        self.watch_host(home, host.clone());
        Ok(host)
    }

    /// Records a host that was adopted.
    pub(super) async fn adopt_host(self: &Arc<Self>, home: &Home, host: Arc<Process>) {
        *self.hosts.slot(home).lock().await = Some(host.clone());
        self.watch_host(home, host);
    }

    fn watch_host(self: &Arc<Self>, home: &Home, host: Arc<Process>) {
        self.hosts.running.lock().push(host.clone());
        let inner = self.clone();
        let home = home.clone();
        self.tasks.spawn(async move {
            let detached = inner.detached.clone();
            let watched = detached.run_until_cancelled(inner.end_of(&host)).await;
            if let Some(ended) = watched {
                inner.host_ended(&home, &host, ended).await;
            }
        });
    }

    /// Waits for the end of a process. One that lets go of its agent without ending does not
    /// serve any more, and is killed.
    pub(super) async fn end_of(&self, process: &Process) -> Ended {
        const PATIENCE: Duration = Duration::from_secs(2);
        tokio::select! {
            ended = process.wait() => return ended,
            () = process.disconnected() => {}
        }
        match tokio::time::timeout(PATIENCE, process.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                process.kill();
                process.wait().await
            }
        }
    }

    async fn host_ended(&self, home: &Home, host: &Arc<Process>, ended: Ended) {
        let same = |other: &Arc<Process>| Arc::ptr_eq(other, host);
        self.hosts.running.lock().retain(|other| !same(other));
        self.dispatches.forget(host);
        // There is none any more where the host was closed with its sandbox.
        let slot = self.hosts.slots.lock().get(home).cloned();
        if let Some(slot) = slot {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(same) {
                *slot = None;
            }
        }
        let errors = host.errors();
        for entry in self.ledger.entries() {
            if entry.runs_in(host) {
                let exit = self.exit_after(
                    &entry,
                    format!(
                        "the HTTP host of {home} ended ({}): {errors}",
                        ended.describe()
                    ),
                );
                self.ledger.exited(&entry, exit);
            }
        }
        if let Err(error) = disk::remove_dir(host.folder()) {
            tracing::warn!(%error, "removing the folder of an HTTP host");
        }
        self.ledger.tell(RuntimeEvent::Listeners);
    }

    /// How a container ended whose process is gone: as the process wrote, else as far as is
    /// known.
    pub(super) fn exit_after(&self, entry: &super::Entry, message: String) -> Exit {
        let id = &entry.record.id;
        match folders::exit(self.ledger.records(), id) {
            Ok(Some(exit)) => return exit,
            Ok(None) => {}
            Err(error) => tracing::warn!(container = id.0, %error, "reading an exit record"),
        }
        let started = self.ledger.records().started::<Started>(id);
        let started = started.ok().flatten();
        Exit {
            started_at: started.map(|started| started.at),
            finished_at: SystemTime::now(),
            code: 137,
            reason: "Error".into(),
            message,
        }
    }

    /// Closes the host of a namespace after a while, if it has no guest then.
    pub(super) fn close_idle_host(self: &Arc<Self>, home: Home) {
        if home.is_own() {
            // It goes with its sandbox, and until then its Pod may need it again.
            return;
        }
        let inner = self.clone();
        self.tasks.spawn(async move {
            let wait = tokio::time::sleep(IDLE);
            if inner.detached.run_until_cancelled(wait).await.is_some() {
                inner.close_host(&home).await;
            }
        });
    }

    /// Closes a host unless a container uses it; gives back what was closed.
    pub(super) async fn close_host(&self, home: &Home) -> Option<Arc<Process>> {
        let slot = self.hosts.slot(home);
        let mut slot = slot.lock().await;
        let host = slot.clone()?;
        if self
            .ledger
            .entries()
            .iter()
            .any(|entry| entry.runs_in(&host))
        {
            return None;
        }
        // A host that closes ends before it answers; one that has guests refuses.
        if let Ok(Response::Failed(reason)) = host.request(Request::Close).await {
            tracing::debug!(%home, reason, "an HTTP host stays");
            return None;
        }
        slot.take()
    }

    /// Closes the host of a sandbox that has stopped, if it has one. One that refuses to is killed:
    /// nothing of the sandbox is to go on, and nobody would know of it any more.
    pub(super) async fn close_own_host(&self, sandbox: &PodSandbox) {
        let home = Home::of(sandbox);
        if !home.is_own() || !self.hosts.slots.lock().contains_key(&home) {
            return;
        }
        self.close_host(&home).await;
        let slot = self.hosts.slots.lock().remove(&home);
        let Some(slot) = slot else { return };
        let left = slot.lock().await.take();
        if let Some(host) = left {
            tracing::warn!(%home, "killing an HTTP host that does not close");
            host.kill();
            host.wait().await;
        }
    }

    pub(super) fn homes_with_host(&self) -> Vec<Home> {
        self.hosts.slots.lock().keys().cloned().collect()
    }
}
