//! A container in the agent's memory.

use std::sync::Arc;

use coracle_runtime::{Container, ContainerState, Exit, RuntimeEvent};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::process::Process;
use super::records::ContainerRecord;

/// A container: its record, its state, and the process that runs it.
pub(super) struct Entry {
    pub record: ContainerRecord,
    pub state: watch::Sender<ContainerState>,
    /// Held while the container is started.
    pub starting: tokio::sync::Mutex<()>,
    process: Mutex<Option<Arc<Process>>>,
}

impl Entry {
    pub(super) fn new(record: ContainerRecord, state: ContainerState) -> Self {
        Self {
            record,
            state: watch::Sender::new(state),
            starting: tokio::sync::Mutex::new(()),
            process: Mutex::new(None),
        }
    }

    pub(super) fn container(&self) -> Container {
        self.record.with_state(self.state.borrow().clone())
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Running { .. })
    }

    pub(super) fn event(&self) -> RuntimeEvent {
        RuntimeEvent::Container {
            pod_uid: self.record.pod.uid.clone(),
            id: self.record.id.clone(),
        }
    }

    pub(super) fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().clone()
    }

    pub(super) fn set_process(&self, process: Option<Arc<Process>>) {
        *self.process.lock() = process;
    }

    pub(super) fn runs_in(&self, process: &Arc<Process>) -> bool {
        let own = self.process.lock();
        own.as_ref().is_some_and(|own| Arc::ptr_eq(own, process))
    }

    /// The container has ended. Only the first call counts; says whether this was it. `record` is
    /// called before anybody hears of it: who does may remove the container's folder.
    pub(super) fn exited(&self, exit: Exit, record: impl FnOnce(&Exit)) -> bool {
        self.set_process(None);
        self.state.send_if_modified(|state| {
            let first = !matches!(state, ContainerState::Exited(_));
            if first {
                record(&exit);
                *state = ContainerState::Exited(exit);
            }
            first
        })
    }

    /// Waits until the container has ended.
    pub(super) async fn ended(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state
            .wait_for(|state| matches!(state, ContainerState::Exited(_)))
            .await;
    }
}
