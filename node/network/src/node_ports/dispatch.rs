//! Offering a port to whoever has its endpoints.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{PortBackends, PortDispatcher};
use futures::future::BoxFuture;

use super::Target;

/// A dispatcher asks a process, which answers at once or is not well.
const ANSWER: Duration = Duration::from_secs(5);

/// One port, as a dispatcher sees it.
pub(super) struct Dispatch {
    port: u16,
    dispatcher: Option<Arc<dyn PortDispatcher>>,
    /// Whether it was taken and is to be withdrawn.
    taken: bool,
}

impl Dispatch {
    pub(super) fn new(port: u16, dispatcher: Option<Arc<dyn PortDispatcher>>) -> Self {
        Self {
            port,
            dispatcher,
            taken: false,
        }
    }

    /// Offers the port; the future in the answer ends when whoever took it serves it no longer.
    pub(super) async fn offer(
        &mut self,
        socket: &OwnedFd,
        target: &Target,
    ) -> Option<BoxFuture<'static, ()>> {
        let dispatcher = self.dispatcher.clone()?;
        if target.for_elsewhere.is_some() {
            // A process has one list of endpoints for all who call.
            self.withdraw().await;
            return None;
        }
        let backends = PortBackends {
            port: self.port,
            endpoints: target.endpoints.clone(),
            affinity: target.affinity,
        };
        let answer = tokio::time::timeout(ANSWER, dispatcher.dispatch(socket, backends)).await;
        match answer {
            Ok(Ok(served)) => {
                self.taken = served.is_some();
                served
            }
            Ok(Err(error)) => {
                tracing::warn!(port = self.port, %error, "a NodePort is forwarded, for its Pods' process could not be told to serve it");
                self.withdraw().await;
                None
            }
            Err(_) => {
                tracing::warn!(
                    port = self.port,
                    "a NodePort is forwarded, for its Pods' process does not answer"
                );
                // It may still take it, and is to know that it is not wanted.
                self.taken = true;
                self.withdraw().await;
                None
            }
        }
    }

    /// What was served has ended.
    pub(super) fn ended(&mut self) {
        self.taken = false;
    }

    /// Takes the port back, if it was taken.
    pub(super) async fn withdraw(&mut self) {
        if let Some(dispatcher) = &self.dispatcher
            && std::mem::take(&mut self.taken)
            && tokio::time::timeout(ANSWER, dispatcher.withdraw(self.port))
                .await
                .is_err()
        {
            tracing::warn!(port = self.port, "a NodePort could not be taken back");
        }
    }
}
