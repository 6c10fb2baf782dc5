//! Whether the node takes a Pod, asked once and before anything of it is made.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;

use super::run::{Outcome, Worker};
use super::state::Cause;
use super::sync::RETRY;
use crate::admission;
use crate::events::Severity;
use crate::placement;
use crate::pod;
use crate::shutdown;
use crate::status::Verdict;

impl Worker {
    /// Takes the Pod in; what becomes of it where that cannot be done now.
    pub(super) async fn admit(&mut self, pod: &Pod) -> Option<Outcome> {
        if self.memory.admitted {
            return None;
        }
        let runs = !self.node.cache.pod(pod::uid(pod)).is_empty();
        let mut admitted = self.welcome(pod, runs);
        if admitted.is_ok() && !runs {
            let placed = tokio::select! {
                placed = placement::admit(&self.node, pod) => placed,
                () = Self::ends(self.inbox.clone()) => return Some(Outcome::Wait(None)),
            };
            admitted = match placed {
                Ok(placed) => placed.and_then(|()| self.armored(pod)),
                Err(error) => {
                    let uid = pod::uid(pod);
                    tracing::warn!(%error, uid, "cannot read the node's labels");
                    return Some(Outcome::Wait(Some(SystemTime::now() + RETRY)));
                }
            };
        }
        let admitted = admitted.and_then(|()| self.node.admission.admit(pod, runs));
        let Err(verdict) = admitted else {
            self.memory.admitted = true;
            return None;
        };
        let (reason, message) = (verdict.reason.clone(), verdict.message.clone());
        self.event(pod, None, Severity::Warning, &reason, message);
        Some(Outcome::End(Cause::Failed(verdict), Duration::ZERO))
    }

    /// Whether the node takes any such Pod now.
    fn welcome(&self, pod: &Pod, runs: bool) -> Result<(), Verdict> {
        shutdown::admit(*self.node.shutting_down.borrow())?;
        admission::pressed(pod, runs, &self.node.pressure.borrow())
    }

    fn armored(&self, pod: &Pod) -> Result<(), Verdict> {
        pod::app_armor::admit(pod, || self.node.apparmor.profiles())
    }
}
