//! A container in the agent's memory.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::ContainerRecord;
use crate::{Container, ContainerState, ContainerUser, Error, Exit, Result, RuntimeEvent};

/// A container: its record, its state, and the process that runs it.
pub struct Entry<P> {
    /// The container as it was made.
    pub record: ContainerRecord,
    /// Where it is in its life.
    pub state: watch::Sender<ContainerState>,
    /// Held while the container is started.
    pub starting: tokio::sync::Mutex<()>,
    /// As whom it began, if it has and that is known.
    pub user: OnceLock<ContainerUser>,
    process: Mutex<Option<Arc<P>>>,
}

impl<P> Entry<P> {
    pub(super) fn new(record: ContainerRecord, state: ContainerState) -> Self {
        Self {
            record,
            state: watch::Sender::new(state),
            starting: tokio::sync::Mutex::new(()),
            user: OnceLock::new(),
            process: Mutex::new(None),
        }
    }

    /// The container as a runtime reports it.
    pub fn container(&self) -> Container {
        Container {
            user: self.user.get().cloned(),
            ..self.record.with_state(self.state.borrow().clone())
        }
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), ContainerState::Running { .. })
    }

    /// The event that it has changed.
    pub fn event(&self) -> RuntimeEvent {
        RuntimeEvent::Container {
            pod_uid: self.record.pod.uid.clone(),
            id: self.record.id.clone(),
        }
    }

    /// The process that runs it, if any does.
    pub fn process(&self) -> Option<Arc<P>> {
        self.process.lock().clone()
    }

    /// Sets the process that runs it.
    pub fn set_process(&self, process: Option<Arc<P>>) {
        *self.process.lock() = process;
    }

    /// Whether that process runs it.
    pub fn runs_in(&self, process: &Arc<P>) -> bool {
        let own = self.process.lock();
        own.as_ref().is_some_and(|own| Arc::ptr_eq(own, process))
    }

    /// The container runs. It may have ended before its process could say so.
    pub(super) fn running(&self, started_at: SystemTime) {
        self.state.send_if_modified(|state| {
            let created = *state == ContainerState::Created;
            if created {
                *state = ContainerState::Running { started_at };
            }
            created
        });
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

    /// The exit code, once the container has ended.
    pub fn exit_code(&self) -> impl Future<Output = Result<i32>> + Send + 'static {
        let mut state = self.state.subscribe();
        async move {
            let ended = state.wait_for(|state| matches!(state, ContainerState::Exited(_)));
            match ended.await.as_deref() {
                Ok(ContainerState::Exited(exit)) => Ok(exit.code),
                _ => Err(Error::State("the container is not kept any more".into())),
            }
        }
    }

    /// Waits until the container has ended.
    pub async fn ended(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state
            .wait_for(|state| matches!(state, ContainerState::Exited(_)))
            .await;
    }
}
