//! Sends the status of Pods to the API.
//!
//! Workers hand over what they have found; the newest one wins, equal ones are dropped, and a
//! bounded number of senders patch what differs from what the API has acknowledged. The map
//! of Pods is the only state; it is bounded by the number of Pods of the node, because its
//! queues hold a Pod at most once.
//!
//! ```text
//!            publish            a sender          acknowledged
//!   Settled ─────────▶ Queued ───────────▶ Sending ───────────▶ Settled
//!                        ▲                    │ failed
//!                        └────── Waiting ◀────┘
//!                     when it is time
//! ```
//!
//! A status that could not be sent waits without a sender, and is tried again by senders that have
//! nothing else to do: those of other Pods are not held up by it.
//!
//! Others may say something else of a Pod: that nobody knows how it is, since its node was silent. The
//! kubelet says then again what it has said ([`StatusPublisher::seen`]), also where the API shows that
//! only in its answer. An API may put what it was told in its own way: that is not told again.
//!
//! The status of a static Pod is its mirror's: it waits until there is one, and another mirror gets
//! the whole of it ([`StatusPublisher::show_by`]).
//!
//! Invariant: conditions and fields that others own are never written.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Sent, Step, revision};
use super::patch::{difference, owned_fields};
use crate::pod::{self, CONFIG_MIRROR};

/// Patches that are on their way at the same time, and those that have failed before.
const SENDERS: [(Lane, usize); 2] = [(Lane::Fresh, 8), (Lane::Failed, 2)];

/// How long things take.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// First and longest wait after a failed patch.
    pub(crate) retry: (Duration, Duration),
    /// How long an answer is waited for.
    pub(crate) patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry: (Duration::from_millis(100), Duration::from_secs(10)),
            patience: Duration::from_secs(30),
        }
    }
}

/// Who sends a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Fresh,
    /// It could not be sent the last time.
    Failed,
}

#[derive(Default)]
struct State {
    /// Mirrors of static Pods by the Pods' UIDs: their own UIDs, and the statuses that they had.
    mirrors: HashMap<String, (String, PodStatus)>,
    entries: HashMap<String, Entry>,
    fresh: VecDeque<String>,
    failed: VecDeque<String>,
    /// Who waits until when. Those that do no more are left in it until then.
    waiting: BTreeSet<(Instant, String)>,
}

impl State {
    fn queue(&mut self, lane: Lane) -> &mut VecDeque<String> {
        match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Failed => &mut self.failed,
        }
    }
}

/// The sender; clones share it.
#[derive(Clone)]
pub(crate) struct StatusPublisher {
    client: kube::Client,
    pace: Pace,
    state: Arc<Mutex<State>>,
    fresh: Arc<Semaphore>,
    failed: Arc<Semaphore>,
    /// Somebody waits who did not before.
    delayed: Arc<Notify>,
    sent: Arc<Notify>,
}

impl StatusPublisher {
    pub(crate) fn new(client: kube::Client, pace: Pace) -> Self {
        Self {
            client,
            pace,
            state: Arc::default(),
            fresh: Arc::new(Semaphore::new(0)),
            failed: Arc::new(Semaphore::new(0)),
            delayed: Arc::new(Notify::new()),
            sent: Arc::new(Notify::new()),
        }
    }

    /// Sends from now on, until cancelled.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let mut senders = tokio::task::JoinSet::new();
        let lanes = SENDERS.into_iter();
        for lane in lanes.flat_map(|(lane, senders)| std::iter::repeat_n(lane, senders)) {
            let (this, cancel) = (self.clone(), cancel.clone());
            senders.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = this.send_all(lane) => {}
                }
            });
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.retry_all() => {}
        }
        senders.join_all().await;
    }

    /// Has the status sent, if the API does not have it.
    pub(crate) fn publish(&self, pod: &Pod, status: PodStatus) {
        let mut state = self.state.lock();
        let uid = pod::uid(pod);
        match state.entries.get_mut(uid) {
            Some(entry) if entry.wanted == status => return,
            Some(entry) => entry.wanted = status,
            None => {
                let is_static = pod::is_static(pod);
                let (object, base) = match (is_static, state.mirrors.get(uid)) {
                    (false, _) => (Some(uid.to_owned()), pod::status(pod)),
                    (true, Some((mirror, status))) => (Some(mirror.clone()), status),
                    (true, None) => (None, pod::status(pod)),
                };
                let base = owned_fields(base);
                let entry = Entry {
                    namespace: pod::namespace(pod).to_owned(),
                    name: pod::name(pod).to_owned(),
                    object,
                    is_static,
                    shown: base.clone(),
                    base,
                    revision: if is_static { 0 } else { revision(pod) },
                    wanted: status,
                    step: Step::Settled,
                    retry: None,
                };
                state.entries.insert(uid.to_owned(), entry);
            }
        }
        self.enqueue(&mut state, uid);
    }

    /// What was published last of a Pod.
    pub(crate) fn wanted(&self, uid: &str) -> Option<PodStatus> {
        let state = self.state.lock();
        state.entries.get(uid).map(|entry| entry.wanted.clone())
    }

    /// These are the mirrors of static Pods now, by the Pods' UIDs: their own UIDs and statuses.
    pub(crate) fn show_by(&self, mirrors: HashMap<String, (String, PodStatus)>) {
        let mut state = self.state.lock();
        let mut changed = Vec::new();
        for (uid, entry) in state.entries.iter_mut().filter(|(_, of)| of.is_static) {
            let mirror = mirrors.get(uid);
            let object = mirror.map(|(object, _)| object.clone());
            if entry.object == object {
                continue;
            }
            entry.object = object;
            if let Some((_, status)) = mirror {
                entry.base = owned_fields(status);
                entry.shown = entry.base.clone();
                entry.revision = 0;
                entry.retry = None;
                if matches!(entry.step, Step::Waiting { .. }) {
                    // It was another that did not take it.
                    entry.step = Step::Settled;
                }
                changed.push(uid.clone());
            }
        }
        state.mirrors = mirrors;
        for uid in changed {
            self.enqueue(&mut state, &uid);
        }
    }

    /// The API has this state of a Pod, or of a mirror.
    pub(crate) fn seen(&self, pod: &Pod) {
        let uid = pod::annotation(pod, CONFIG_MIRROR).unwrap_or(pod::uid(pod));
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        if entry.see(pod) {
            self.enqueue(&mut state, uid);
        }
    }

    /// Waits until the API has what was published last, or the Pod is gone from it.
    pub(crate) async fn settled(&self, uid: &str) {
        loop {
            let sent = self.sent.notified();
            let step = self.state.lock().entries.get(uid).map(|entry| entry.step);
            if step.is_none_or(|step| step == Step::Settled) {
                return;
            }
            sent.await;
        }
    }

    /// Forgets a Pod that the API no longer has.
    pub(crate) fn forget(&self, uid: &str) {
        self.state.lock().entries.remove(uid);
        self.sent.notify_waiters();
    }

    fn enqueue(&self, state: &mut State, uid: &str) {
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        match entry.step {
            Step::Sending { .. } => entry.step = Step::Sending { again: true },
            Step::Settled if entry.object.is_some() => {
                entry.step = Step::Queued;
                let (lane, work) = match entry.retry {
                    None => (Lane::Fresh, &self.fresh),
                    Some(_) => (Lane::Failed, &self.failed),
                };
                state.queue(lane).push_back(uid.to_owned());
                work.add_permits(1);
            }
            Step::Settled | Step::Queued | Step::Waiting { .. } => {}
        }
    }

    async fn send_all(&self, lane: Lane) {
        let work = match lane {
            Lane::Fresh => &self.fresh,
            Lane::Failed => &self.failed,
        };
        while let Ok(permit) = work.acquire().await {
            permit.forget();
            let Some(uid) = self.state.lock().queue(lane).pop_front() else {
                continue;
            };
            self.send(&uid).await;
            self.sent.notify_waiters();
        }
    }

    /// Queues again what could not be sent, when it is time.
    async fn retry_all(&self) {
        loop {
            let next = self.retry_due(Instant::now());
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.delayed.notified() => {}
            }
        }
    }

    /// Queues again what has waited; when the next has.
    fn retry_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        while let Some((until, uid)) = state.waiting.pop_first() {
            if until > now {
                state.waiting.insert((until, uid));
                return Some(until);
            }
            let entry = state.entries.get_mut(&uid);
            let Some(entry) = entry.filter(|of| of.step == Step::Waiting { until }) else {
                continue;
            };
            entry.step = Step::Settled;
            self.enqueue(&mut state, &uid);
        }
        None
    }

    async fn send(&self, uid: &str) {
        let (namespace, name, sent) = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(uid) else {
                return;
            };
            if entry.step != Step::Queued {
                return;
            }
            entry.step = Step::Settled;
            let Some(object) = entry.object.clone() else {
                return;
            };
            let wanted = owned_fields(&entry.wanted);
            let Some(patch) = difference(&entry.base, &wanted) else {
                entry.retry = None;
                return;
            };
            entry.step = Step::Sending { again: false };
            let sent = Sent {
                object,
                patch,
                wanted,
                had: entry.shown.clone(),
                revision: entry.revision,
            };
            (entry.namespace.clone(), entry.name.clone(), sent)
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let body = json!({"metadata": {"uid": sent.object}, "status": sent.patch});
        let params = PatchParams::default();
        let patch = Patch::Strategic(&body);
        let answer = api.patch_status(&name, &params, &patch);
        let problem = match tokio::time::timeout(self.pace.patience, answer).await {
            Ok(Ok(pod)) => return self.acknowledged(uid, sent, Some(&pod)),
            Ok(Err(kube::Error::Api(status))) if Answer::of(status.code) == Answer::Gone => {
                // Gone, or another Pod of that name: the worker hears of it by its watch.
                tracing::debug!(namespace, name, uid, "the Pod of this status is gone");
                None
            }
            Ok(Err(kube::Error::Api(status))) if Answer::of(status.code) == Answer::Refused => {
                tracing::error!(namespace, name, uid, error = %status.message,
                    "the API refuses the status of a Pod");
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the API does not answer".to_owned()),
        };
        match problem {
            None => self.acknowledged(uid, sent, None),
            Some(error) => {
                tracing::warn!(namespace, name, uid, %error, "cannot send the status of a Pod");
                self.wait(uid, &sent.object);
            }
        }
    }

    /// Ends a sending; what was published meanwhile is queued again, and what others have said
    /// otherwise.
    fn acknowledged(&self, uid: &str, sent: Sent, answer: Option<&Pod>) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        let Step::Sending { mut again } = entry.step else {
            return;
        };
        entry.step = Step::Settled;
        // What another object has is not known by that.
        if entry.object.as_deref() == Some(&*sent.object) {
            entry.retry = None;
            again |= entry.learn(sent, answer);
        }
        if again {
            self.enqueue(&mut state, uid);
        }
    }

    /// Ends a sending that has failed.
    fn wait(&self, uid: &str, object: &str) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        if !matches!(entry.step, Step::Sending { .. }) {
            return;
        }
        if entry.object.as_deref() != Some(object) {
            // There is another by now, which may take it.
            entry.step = Step::Settled;
            return self.enqueue(&mut state, uid);
        }
        let (first, longest) = self.pace.retry;
        let wait = entry.retry.unwrap_or(first);
        entry.retry = Some((wait * 2).min(longest));
        let until = Instant::now() + wait;
        entry.step = Step::Waiting { until };
        state.waiting.insert((until, uid.to_owned()));
        self.delayed.notify_one();
    }
}

/// What an error of the API means for a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The object is not there any more.
    Gone,
    /// It is wrong, and stays so.
    Refused,
    /// It may be taken later: who has too much to do, or does not know the node yet, says nothing of
    /// the status.
    Again,
}

impl Answer {
    fn of(code: u16) -> Self {
        match code {
            404 | 409 => Self::Gone,
            400 | 413 | 415 | 422 => Self::Refused,
            _ => Self::Again,
        }
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
