//! Sends the status of Pods to the API.
//!
//! Workers hand over what they have found; the newest one wins, equal ones are dropped, and a
//! bounded number of senders patch what differs from what the API has acknowledged. The map
//! of Pods is the only state; it is bounded by the number of Pods of the node, because its
//! queue holds a Pod at most once.
//!
//! The status of a static Pod is its mirror's: it waits until there is one, and another mirror gets
//! the whole of it ([`StatusPublisher::show_by`]).
//!
//! Invariant: conditions and fields that others own are never written.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING};
use crate::pod;

/// Patches that are on their way at the same time.
const SENDERS: usize = 8;
/// First and longest wait after a failed patch.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Fields of a status that the kubelet writes.
const FIELDS: [&str; 16] = [
    "phase",
    "reason",
    "message",
    "conditions",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "qosClass",
    "resources",
    "allocatedResources",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "observedGeneration",
];

struct Entry {
    namespace: String,
    name: String,
    /// The UID of the object that has the status; none while a static Pod has no mirror.
    object: Option<String>,
    is_static: bool,
    /// What the API has acknowledged.
    base: Map<String, Value>,
    wanted: PodStatus,
    queued: bool,
    sending: bool,
    retry: Duration,
}

#[derive(Default)]
struct State {
    /// Mirrors of static Pods by the Pods' UIDs: their own UIDs, and the statuses that they had.
    mirrors: HashMap<String, (String, PodStatus)>,
    entries: HashMap<String, Entry>,
    queue: VecDeque<String>,
}

/// The sender; clones share it.
#[derive(Clone)]
pub(crate) struct StatusPublisher {
    client: kube::Client,
    state: Arc<Mutex<State>>,
    work: Arc<Semaphore>,
    sent: Arc<Notify>,
}

impl StatusPublisher {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            client,
            state: Arc::default(),
            work: Arc::new(Semaphore::new(0)),
            sent: Arc::new(Notify::new()),
        }
    }

    /// Sends from now on, until cancelled.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let (this, cancel) = (self.clone(), cancel.clone());
            senders.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = this.send_all() => {}
                }
            });
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
                let entry = Entry {
                    namespace: pod::namespace(pod).to_owned(),
                    name: pod::name(pod).to_owned(),
                    object,
                    is_static,
                    base: owned_fields(base),
                    wanted: status,
                    queued: false,
                    sending: false,
                    retry: RETRY.0,
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
                entry.retry = RETRY.0;
                changed.push(uid.clone());
            }
        }
        state.mirrors = mirrors;
        for uid in changed {
            self.enqueue(&mut state, &uid);
        }
    }

    /// Waits until the API has what was published last, or the Pod is gone from it.
    pub(crate) async fn settled(&self, uid: &str) {
        loop {
            let sent = self.sent.notified();
            let busy = match self.state.lock().entries.get(uid) {
                Some(entry) => entry.queued || entry.sending,
                None => false,
            };
            if !busy {
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
        if entry.queued || entry.object.is_none() {
            return;
        }
        entry.queued = true;
        if !entry.sending {
            state.queue.push_back(uid.to_owned());
            self.work.add_permits(1);
        }
    }

    async fn send_all(&self) {
        while let Ok(permit) = self.work.acquire().await {
            permit.forget();
            let Some(uid) = self.state.lock().queue.pop_front() else {
                continue;
            };
            self.send(&uid).await;
            self.sent.notify_waiters();
        }
    }

    async fn send(&self, uid: &str) {
        let (namespace, name, object, patch, wanted) = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(uid) else {
                return;
            };
            entry.queued = false;
            let Some(object) = entry.object.clone() else {
                return;
            };
            let wanted = owned_fields(&entry.wanted);
            let Some(patch) = difference(&entry.base, &wanted) else {
                return;
            };
            entry.sending = true;
            let (namespace, name) = (entry.namespace.clone(), entry.name.clone());
            (namespace, name, object, patch, wanted)
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let body = json!({"metadata": {"uid": object}, "status": patch});
        let params = PatchParams::default();
        let result = api
            .patch_status(&name, &params, &Patch::Strategic(&body))
            .await;
        let answer = match &result {
            Err(kube::Error::Api(status)) => Answer::of(status.code),
            _ => Answer::Again,
        };
        match result {
            Ok(_) => self.acknowledged(uid, &object, Some(wanted)),
            Err(kube::Error::Api(_)) if answer == Answer::Gone => {
                // Gone, or another Pod of that name: the worker hears of it by its watch.
                tracing::debug!(namespace, name, uid, "the Pod of this status is gone");
                self.acknowledged(uid, &object, Some(wanted));
            }
            Err(kube::Error::Api(status)) if answer == Answer::Refused => {
                tracing::error!(namespace, name, uid, error = %status.message,
                    "the API refuses the status of a Pod");
                self.acknowledged(uid, &object, Some(wanted));
            }
            Err(error) => {
                tracing::warn!(namespace, name, uid, %error, "cannot send the status of a Pod");
                let wait = self.state.lock().entries.get(uid).map(|entry| entry.retry);
                tokio::time::sleep(wait.unwrap_or(RETRY.0)).await;
                self.acknowledged(uid, &object, None);
            }
        }
    }

    /// Ends a sending; what was published meanwhile, or could not be sent, is queued again.
    fn acknowledged(&self, uid: &str, object: &str, base: Option<Map<String, Value>>) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        entry.sending = false;
        let again = std::mem::take(&mut entry.queued) || base.is_none();
        match base {
            // What another object has is not known by that.
            _ if entry.object.as_deref() != Some(object) => {}
            Some(base) => {
                entry.base = base;
                entry.retry = RETRY.0;
            }
            None => entry.retry = (entry.retry * 2).min(RETRY.1),
        }
        if again {
            self.enqueue(&mut state, uid);
        }
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

fn owned_fields(status: &PodStatus) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Ok(Value::Object(all)) = serde_json::to_value(status) {
        fields.extend(
            all.into_iter()
                .filter(|(key, _)| FIELDS.contains(&key.as_str())),
        );
    }
    fields
}

/// A strategic merge patch from one status to the other; none if they are equal.
fn difference(
    base: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for field in FIELDS {
        let (old, new) = (base.get(field), wanted.get(field));
        if old == new {
            continue;
        }
        let value = match (field, new) {
            ("conditions", Some(Value::Array(new))) => match conditions(old, new) {
                Some(changed) => changed,
                None => continue,
            },
            (_, Some(new)) => new.clone(),
            (_, None) => Value::Null,
        };
        patch.insert(field.to_owned(), value);
    }
    (!patch.is_empty()).then_some(patch)
}

/// The conditions that changed; merged by type, so that an absent field must be nulled.
fn conditions(old: Option<&Value>, new: &[Value]) -> Option<Value> {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let ended = |type_: &str| {
        let has = |list: &[Value]| list.iter().any(|condition| condition["type"] == *type_);
        has(old) && !has(new)
    };
    // Those that come and go; the others stay once they were there.
    let passing = [RESIZE_PENDING, RESIZE_IN_PROGRESS].into_iter();
    let gone = passing.filter(|type_| ended(type_));
    let gone = gone.map(|type_| json!({"type": type_, "$patch": "delete"}));
    let changed: Vec<Value> = new
        .iter()
        .filter(|condition| !old.contains(condition))
        .map(|condition| {
            let mut condition = condition.clone();
            if let Value::Object(fields) = &mut condition {
                for field in ["reason", "message"] {
                    fields.entry(field).or_insert(Value::Null);
                }
            }
            condition
        })
        .chain(gone)
        .collect();
    (!changed.is_empty()).then_some(Value::Array(changed))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        let status: PodStatus = serde_json::from_value(value).unwrap();
        owned_fields(&status)
    }

    #[test]
    fn only_what_changed_is_sent() {
        let ready = json!({"type": "Ready", "status": "True"});
        let unready = json!({"type": "Ready", "status": "False", "reason": "R", "message": "m"});
        let other = json!({"type": "example.com/gate", "status": "True"});
        let base = fields(json!({
            "phase": "Pending", "nominatedNodeName": "n", "reason": "Old",
            "conditions": [unready, other],
        }));
        assert_eq!(difference(&base, &base), None);
        let wanted = fields(json!({"phase": "Running", "conditions": [ready]}));
        let patch = difference(&base, &wanted).unwrap();
        let expected = json!({
            "phase": "Running",
            "reason": null,
            "conditions":
                [{"type": "Ready", "status": "True", "reason": null, "message": null}],
        });
        assert_eq!(Value::Object(patch), expected);
        let same = fields(json!({"phase": "Running", "conditions": [ready, other]}));
        assert_eq!(difference(&same, &wanted), None, "what others own is left");
        let resize = json!({"type": "PodResizePending", "status": "True"});
        let pending = fields(json!({"phase": "Running", "conditions": [ready, resize]}));
        let patch = difference(&pending, &wanted).unwrap();
        let expected = json!({
            "conditions": [{"type": "PodResizePending", "$patch": "delete"}],
        });
        assert_eq!(
            Value::Object(patch),
            expected,
            "what has passed is taken away"
        );
    }

    #[test]
    fn only_what_stays_wrong_is_given_up() {
        use Answer::{Again, Gone, Refused};

        for (code, expected) in [
            (400, Refused),
            (401, Again),
            (403, Again),
            (404, Gone),
            (409, Gone),
            (422, Refused),
            (429, Again),
            (500, Again),
            (503, Again),
        ] {
            assert_eq!(Answer::of(code), expected, "{code}");
        }
    }
}
