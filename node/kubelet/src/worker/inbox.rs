//! What a worker is told: the latest update wins, and nothing queues up.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::state::Cause;
use crate::pod;
use crate::status::Verdict;

/// The latest of everything.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    /// The Pod as the API had it last.
    pub(crate) pod: Arc<Pod>,
    /// The API has it no more.
    pub(crate) removed: bool,
    /// The node ends the Pod, within that time: it is too much for it.
    pub(crate) evicted: Option<(Verdict, Duration)>,
    /// The node needs the room of what has ended.
    pub(crate) reclaimed: bool,
    /// The node stops all Pods, within that time.
    pub(crate) shutdown: Option<Duration>,
    /// Counts hints to look again: a container or a probe has changed.
    pub(crate) hints: u64,
}

impl Inbox {
    /// Whether, why and within which time the Pod is to end, as far as others say.
    pub(crate) fn end(&self) -> Option<(Cause, Duration)> {
        if let Some(grace) = self.shutdown {
            return Some((Cause::Shutdown, grace.min(pod::grace(&self.pod))));
        }
        let grace = pod::grace(&self.pod);
        if pod::is_deleted(&self.pod) {
            let within = self.evicted.as_ref().map_or(grace, |(_, within)| *within);
            return Some((Cause::Deleted, grace.min(within)));
        }
        if let Some((verdict, within)) = &self.evicted {
            return Some((Cause::Failed(verdict.clone()), *within));
        }
        self.removed.then_some((Cause::Removed, grace))
    }
}

/// The sending side, which the kubelet holds.
#[derive(Debug)]
pub(crate) struct Handle {
    inbox: watch::Sender<Inbox>,
    /// Nothing of the Pod runs, and that was told.
    over: watch::Sender<bool>,
}

impl Handle {
    pub(crate) fn new(pod: Arc<Pod>) -> (Self, watch::Receiver<Inbox>) {
        let (inbox, receiver) = watch::channel(Inbox {
            pod,
            removed: false,
            evicted: None,
            reclaimed: false,
            shutdown: None,
            hints: 0,
        });
        let over = watch::Sender::new(false);
        (Self { inbox, over }, receiver)
    }

    pub(crate) fn update(&self, pod: Arc<Pod>) {
        self.inbox.send_modify(|inbox| inbox.pod = pod);
    }

    pub(crate) fn removed(&self) {
        self.inbox.send_modify(|inbox| inbox.removed = true);
    }

    pub(crate) fn shutdown(&self, grace: Duration) {
        self.inbox.send_modify(|inbox| inbox.shutdown = Some(grace));
    }

    /// Ends the Pod with that verdict; true unless it ends already.
    pub(crate) fn evict(&self, verdict: Verdict, grace: Duration) -> bool {
        self.inbox.send_if_modified(|inbox| {
            let lives = inbox.end().is_none() && !pod::is_terminal(&inbox.pod);
            if lives {
                inbox.evicted = Some((verdict, grace));
            }
            lives
        })
    }

    /// Ends the Pod within that time, with that verdict unless it ends already.
    pub(crate) fn end_within(&self, verdict: Verdict, grace: Duration) {
        self.inbox.send_modify(|inbox| {
            let evicted = inbox.evicted.take();
            inbox.evicted = Some(match evicted {
                Some((first, within)) => (first, within.min(grace)),
                None => (verdict, grace),
            });
        });
    }

    /// The Pod has ended, and that was told.
    pub(crate) fn set_over(&self) {
        self.over.send_replace(true);
    }

    /// Sees when it has.
    pub(crate) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Has what is left of a Pod removed that has ended; true if it has.
    pub(crate) fn reclaim(&self) -> bool {
        let ended = pod::is_terminal(&self.inbox.borrow().pod);
        if ended {
            self.inbox.send_modify(|inbox| inbox.reclaimed = true);
        }
        ended
    }

    /// Whether nothing has asked the Pod to end, and it has not ended.
    pub(crate) fn lives(&self) -> bool {
        let inbox = self.inbox.borrow();
        inbox.end().is_none() && !pod::is_terminal(&inbox.pod)
    }

    pub(crate) fn hint(&self) {
        self.inbox
            .send_modify(|inbox| inbox.hints = inbox.hints.wrapping_add(1));
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.inbox.borrow().pod.clone()
    }
}
