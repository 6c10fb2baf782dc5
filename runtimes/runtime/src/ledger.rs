//! What a runtime's agent side keeps of sandboxes and containers, in memory and on disk.
//!
//! A container's life is `Created → Running → Exited`, or `Created → Exited` if it could not be
//! started; [`Ledger::exited`] is the only way into the last. State in memory follows the records
//! on disk, so that the next agent finds what this one knew.
//!
//! Deliberately absent: processes. A ledger remembers which one runs a container (`P`) and never
//! touches it.

mod entry;
mod records;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures::stream::BoxStream;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::broadcast;

use crate::{
    Container, ContainerConfig, ContainerId, ContainerState, Error, Exit, PodSandbox,
    PodSandboxConfig, Resources, Result, RuntimeEvent, SandboxId, SandboxState,
};

pub use entry::Entry;
pub use records::{ContainerRecord, EXIT, Records, names};

/// Events kept for a subscriber that lags.
const EVENTS: usize = 4096;

/// Sandboxes and containers of one runtime.
pub struct Ledger<P> {
    runtime: &'static str,
    records: Records,
    sandboxes: Mutex<HashMap<SandboxId, PodSandbox>>,
    containers: Mutex<HashMap<ContainerId, Arc<Entry<P>>>>,
    events: broadcast::Sender<RuntimeEvent>,
}

impl<P> Ledger<P> {
    /// Opens the folder of the runtime of that name, and reads its sandboxes. The containers are
    /// [`Self::recorded`]: whoever runs them knows what became of them.
    pub fn open(runtime: &'static str, folder: &Path) -> io::Result<Self> {
        let records = Records::open(folder)?;
        let sandboxes = records.sandboxes()?;
        let sandboxes = sandboxes.into_iter().map(|s| (s.id.clone(), s)).collect();
        Ok(Self {
            runtime,
            records,
            sandboxes: Mutex::new(sandboxes),
            containers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    /// The records on disk.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The error that there is no such object.
    pub fn not_found(&self, kind: &'static str, id: &str) -> Error {
        Error::NotFound {
            kind,
            id: id.to_owned(),
            runtime: self.runtime,
        }
    }

    /// Tells whoever listens.
    pub fn tell(&self, event: RuntimeEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Events from now on.
    pub fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        stream(&self.events)
    }

    /// One sandbox.
    pub fn sandbox(&self, id: &SandboxId) -> Result<PodSandbox> {
        self.with_sandbox(id, Clone::clone)
    }

    /// What is asked of one sandbox, which is locked meanwhile with all others.
    pub fn with_sandbox<T>(
        &self,
        id: &SandboxId,
        read: impl FnOnce(&PodSandbox) -> T,
    ) -> Result<T> {
        let sandboxes = self.sandboxes.lock();
        let sandbox = sandboxes.get(id).map(read);
        sandbox.ok_or_else(|| self.not_found("sandbox", &id.0))
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Vec<PodSandbox> {
        self.sandboxes.lock().values().cloned().collect()
    }

    /// One container.
    pub fn entry(&self, id: &ContainerId) -> Result<Arc<Entry<P>>> {
        let containers = self.containers.lock();
        let entry = containers.get(id).cloned();
        entry.ok_or_else(|| self.not_found("container", &id.0))
    }

    /// All containers.
    pub fn entries(&self) -> Vec<Arc<Entry<P>>> {
        self.containers.lock().values().cloned().collect()
    }

    /// The containers of a sandbox.
    pub fn entries_of(&self, sandbox: &SandboxId) -> Vec<Arc<Entry<P>>> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.record.sandbox == *sandbox);
        entries
    }

    /// All containers, as a runtime reports them.
    pub fn containers(&self) -> Vec<Container> {
        let entries = self.entries();
        entries.iter().map(|entry| entry.container()).collect()
    }

    /// Records a new sandbox. It is for `make` to do what belongs to it; should that fail, nothing
    /// stays.
    pub fn add_sandbox(
        &self,
        config: PodSandboxConfig,
        make: impl FnOnce(&PodSandbox) -> Result<()>,
    ) -> Result<SandboxId> {
        let id = SandboxId(new_id());
        let sandbox = PodSandbox {
            id: id.clone(),
            state: SandboxState::Ready,
            created_at: SystemTime::now(),
            config,
        };
        self.write_sandbox(&sandbox)?;
        if let Err(error) = make(&sandbox) {
            if let Err(error) = self.records.remove_sandbox(&id) {
                tracing::warn!(sandbox = id.0, %error, "removing a sandbox that was not made");
            }
            return Err(error);
        }
        self.sandboxes.lock().insert(id.clone(), sandbox.clone());
        self.tell_sandbox(&sandbox);
        Ok(id)
    }

    /// Records that nothing is created in a sandbox any more; says what it was if it was ready.
    pub fn close_sandbox(&self, id: &SandboxId) -> Result<Option<PodSandbox>> {
        // Written under the lock, or else it might be written after the sandbox was removed.
        let mut sandboxes = self.sandboxes.lock();
        match sandboxes.get_mut(id) {
            Some(sandbox) if sandbox.state == SandboxState::Ready => {
                sandbox.state = SandboxState::NotReady;
                self.write_sandbox(sandbox)?;
                Ok(Some(sandbox.clone()))
            }
            _ => Ok(None),
        }
    }

    /// Records that the containers of a sandbox may use something else together.
    pub fn resize_sandbox(&self, id: &SandboxId, resources: Resources) -> Result<()> {
        let mut sandboxes = self.sandboxes.lock();
        let Some(sandbox) = sandboxes.get_mut(id) else {
            return Err(self.not_found("sandbox", &id.0));
        };
        sandbox.config.resources = resources;
        self.write_sandbox(sandbox)
    }

    fn write_sandbox(&self, sandbox: &PodSandbox) -> Result<()> {
        let written = self.records.write_sandbox(sandbox);
        written.map_err(|error| Error::io("recording a sandbox", error))
    }

    /// Tells that a sandbox has changed.
    pub fn tell_sandbox(&self, sandbox: &PodSandbox) {
        self.tell(RuntimeEvent::Sandbox {
            pod_uid: sandbox.config.pod.uid.clone(),
            id: sandbox.id.clone(),
        });
    }

    /// Forgets a sandbox; its containers must have been.
    pub fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let removed = {
            let mut sandboxes = self.sandboxes.lock();
            self.records
                .remove_sandbox(id)
                .map_err(|error| Error::io("removing a sandbox's record", error))?;
            sandboxes.remove(id)
        };
        if let Some(sandbox) = removed {
            self.tell_sandbox(&sandbox);
        }
        Ok(())
    }

    /// Records a new container in a sandbox that is ready. It is for `make` to do what belongs to
    /// it, in the container's folder; should that fail, nothing stays.
    pub fn add_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
        make: impl FnOnce(&ContainerRecord, &PodSandbox) -> Result<()>,
    ) -> Result<ContainerId> {
        let of = self.sandbox(sandbox)?;
        Self::check_ready(&of)?;
        let id = ContainerId(new_id());
        let record = ContainerRecord {
            id: id.clone(),
            sandbox: sandbox.clone(),
            pod: of.config.pod.clone(),
            config,
            created_at: SystemTime::now(),
        };
        self.records
            .write_container(&record)
            .map_err(|error| Error::io("recording a container", error))?;
        let made = make(&record, &of).and_then(|()| {
            let entry = Arc::new(Entry::new(record, ContainerState::Created));
            let event = entry.event();
            // Whoever has stopped the sandbox meanwhile has not found it, and will not look again. The
            // other lock is taken within: this one may be held while the disk is written.
            self.with_sandbox(sandbox, |of| {
                Self::check_ready(of).map(|()| {
                    self.containers.lock().insert(id.clone(), entry);
                    event
                })
            })?
        });
        match made {
            Ok(event) => {
                // Whoever hears of it finds it.
                self.tell(event);
                Ok(id)
            }
            Err(error) => {
                if let Err(error) = self.records.remove_container(&id) {
                    tracing::warn!(container = id.0, %error, "removing what was not made");
                }
                Err(error)
            }
        }
    }

    /// Refuses a sandbox in which no containers may be created.
    fn check_ready(of: &PodSandbox) -> Result<()> {
        match of.state == SandboxState::Ready {
            true => Ok(()),
            false => Err(Error::State(format!(
                "sandbox {} was stopped: containers are created in a new one",
                of.id.0
            ))),
        }
    }

    /// The containers that an earlier agent has recorded.
    pub fn recorded(&self) -> io::Result<Vec<ContainerRecord>> {
        self.records.containers()
    }

    /// Takes a recorded container over, in the state that its records tell.
    pub fn adopt(
        &self,
        record: ContainerRecord,
        started_at: Option<SystemTime>,
        exit: Option<Exit>,
    ) -> Arc<Entry<P>> {
        let state = match (exit, started_at) {
            (Some(exit), _) => ContainerState::Exited(exit),
            (None, None) => ContainerState::Created,
            (None, Some(started_at)) => ContainerState::Running { started_at },
        };
        let id = record.id.clone();
        let entry = Arc::new(Entry::new(record, state));
        self.containers.lock().insert(id, entry.clone());
        entry
    }

    /// The container and its sandbox, if it may be started: it never was, and the sandbox is
    /// ready.
    pub fn startable(&self, entry: &Entry<P>) -> Result<PodSandbox> {
        let id = &entry.record.id.0;
        if *entry.state.borrow() != ContainerState::Created {
            return Err(Error::State(format!(
                "container {id} was started before: a restart is a new container"
            )));
        }
        let sandbox = self.sandbox(&entry.record.sandbox)?;
        if sandbox.state != SandboxState::Ready {
            return Err(Error::State(format!(
                "sandbox {} of container {id} was stopped",
                sandbox.id.0
            )));
        }
        Ok(sandbox)
    }

    /// A container runs. It may have ended before its process could say so.
    pub fn running(&self, entry: &Entry<P>, started_at: SystemTime) {
        entry.running(started_at);
        self.tell(entry.event());
    }

    /// A container has ended: records it, and tells. Only the first call counts.
    pub fn exited(&self, entry: &Entry<P>, exit: Exit) {
        let id = &entry.record.id;
        let first = entry.exited(exit, |exit| {
            if let Err(error) = self.records.write_exit(id, exit) {
                tracing::warn!(container = id.0, %error, "recording an exit");
            }
        });
        if first {
            self.tell(entry.event());
        }
    }

    /// A container could not be started.
    pub fn not_started(&self, entry: &Entry<P>, message: &str) {
        self.exited(entry, Exit::not_started(message));
    }

    /// Forgets a container that has ended; says whether it was known.
    pub fn remove_container(&self, entry: &Entry<P>) -> Result<bool> {
        let id = &entry.record.id;
        self.records
            .remove_container(id)
            .map_err(|error| Error::io(format!("removing container {}", id.0), error))?;
        let known = self.containers.lock().remove(id).is_some();
        if known {
            self.tell(entry.event());
        }
        Ok(known)
    }
}

/// A new identity: 64 hexadecimal digits.
fn new_id() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Events from now on; whoever lags loses some.
pub fn stream(events: &broadcast::Sender<RuntimeEvent>) -> BoxStream<'static, RuntimeEvent> {
    let receiver = events.subscribe();
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((event, receiver)),
                // An event is a hint: whoever lagged hears the next one.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_created_in_a_sandbox_that_is_stopped_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::<()>::open("test", folder.path()).unwrap();
        let sandbox = ledger.add_sandbox(PodSandboxConfig::default(), |_| Ok(()));
        let sandbox = sandbox.unwrap();
        let config = ContainerConfig::default;
        let before = ledger.add_container(&sandbox, config(), |_, _| Ok(()));
        let stopped = ledger.add_container(&sandbox, config(), |_, _| {
            ledger.close_sandbox(&sandbox).map(drop)
        });
        assert!(matches!(stopped, Err(Error::State(_))), "{stopped:?}");
        let recorded = ledger.recorded().unwrap();
        assert!(recorded.len() == 1 && recorded[0].id == before.unwrap());
        assert_eq!(ledger.entries().len(), 1);
    }
}
