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

/// The reason of Pods that go for a critical one, and what is said of them.
const PREEMPTING: &str = "Preempting";
const PREEMPTED: &str = "Preempted in order to admit critical pod";

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
        // Before it is asked: whoever goes meanwhile is not missed.
        let freed = self.node.admission.freed();
        let may_be = admitted.is_ok();
        let admitted = admitted.and_then(|()| self.node.admission.admit(pod, runs));
        let Err(verdict) = admitted else {
            self.memory.admitted = true;
            return None;
        };
        let victims = match may_be {
            true => self.node.admission.victims(pod, &self.workers.ending()),
            false => None,
        };
        if let Some(victims) = victims {
            self.preempt(&victims);
            self.freed = Some(freed);
            return Some(Outcome::Wait(None));
        }
        let (reason, message) = (verdict.reason.clone(), verdict.message.clone());
        self.event(pod, None, Severity::Warning, &reason, message);
        Some(Outcome::End(Cause::Failed(verdict), Duration::ZERO))
    }

    /// Ends others so that this Pod is taken in.
    fn preempt(&self, victims: &[String]) {
        for of in self.workers.pods() {
            let uid = pod::uid(&of);
            if !victims.iter().any(|victim| victim == uid) {
                continue;
            }
            let verdict = Verdict {
                reason: PREEMPTING.to_owned(),
                message: PREEMPTED.to_owned(),
                disrupted: true,
            };
            // One that ends already is waited for as well.
            if self.workers.evict(uid, verdict, pod::grace(&of)) {
                let (severity, text) = (Severity::Warning, PREEMPTED.to_owned());
                self.event(&of, None, severity, PREEMPTING, text);
            }
        }
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
