//! Events, as users read them in `kubectl describe`.
//!
//! [`Recorder`] takes them without waiting; one task counts repetitions, keeps a noisy object
//! within bounds and writes. The rules are those of client-go's event recorder: equal events
//! become one with a count, and an object may send 25 at once and then one in five minutes. An
//! event may be amended: what then is said of it is counted as a repetition.
//! An event that finds the queue full is dropped: the log has it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pod;

/// Events that wait to be written at most; 500 Pods at once make three each.
const QUEUE: usize = 4096;
/// Distinct events that are remembered for counting.
const REMEMBERED: usize = 4096;
/// After this an equal event is a new one.
const FORGET: Duration = Duration::from_secs(600);
/// Events that an object may send at once, and the time in which it earns another.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Of those at once, what is kept from events that only amend others: how something ends is told.
const RESERVED: f64 = 10.0;

/// Whether users should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Record {
    object: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    /// The message of the event that it amends.
    amends: Option<String>,
}

/// Takes events; clones share the queue.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Record>,
}

/// Writes events; made with its [`Recorder`].
pub(crate) struct Writer {
    queue: mpsc::Receiver<Record>,
    client: kube::Client,
    host: String,
    memory: Memory,
}

/// A recorder and its writer, which sends as the kubelet of that node.
pub(crate) fn recorder(client: kube::Client, node_name: &str) -> (Recorder, Writer) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = Writer {
        queue,
        client,
        host: node_name.to_owned(),
        memory: Memory::default(),
    };
    (Recorder { queue: sender }, writer)
}

impl Recorder {
    /// An event of a Pod, or of one of its containers.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        let object = Self::reference(pod, container);
        self.record(object, severity, reason, None, message.into());
    }

    /// Says more of what an event of a Pod has said, which then says that. Events that amend are the
    /// first to be dropped.
    pub(crate) fn amend(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        amends: &str,
        message: String,
    ) {
        let object = Self::reference(pod, container);
        self.record(object, severity, reason, Some(amends), message);
    }

    fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
        let init = |name: &str| pod::init_containers(pod).iter().any(|c| c.name == name);
        let path = |name: &str| {
            let list = match (init(name), pod::ephemeral::named(pod, name)) {
                (true, _) => "initContainers",
                (false, Some(_)) => "ephemeralContainers",
                (false, None) => "containers",
            };
            format!("spec.{list}{{{name}}}")
        };
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod::namespace(pod).to_owned()),
            name: Some(pod::name(pod).to_owned()),
            uid: Some(pod::uid(pod).to_owned()),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(path),
        }
    }

    /// An event of the node.
    pub(crate) fn node(&self, name: &str, severity: Severity, reason: &str, message: String) {
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.record(object, severity, reason, None, message);
    }

    fn record(
        &self,
        object: ObjectReference,
        severity: Severity,
        reason: &str,
        amends: Option<&str>,
        message: String,
    ) {
        let message = bounded(message);
        tracing::debug!(
            kind = object.kind,
            namespace = object.namespace,
            name = object.name,
            reason,
            message,
            "event"
        );
        let reason = reason.to_owned();
        let record = Record {
            object,
            severity,
            reason,
            message,
            amends: amends.map(|of| bounded(of.to_owned())),
        };
        if self.queue.try_send(record).is_err() {
            tracing::warn!("an event was dropped: too many wait to be written");
        }
    }
}

/// What the API accepts of a message: 1,024 bytes.
fn bounded(mut message: String) -> String {
    let mut end = message.len().min(1024);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

impl Writer {
    /// Writes until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let record = tokio::select! {
                () = cancel.cancelled() => return,
                record = self.queue.recv() => record,
            };
            let Some(record) = record else { return };
            let write = self.write(record);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = write => {}
            }
        }
    }

    async fn write(&mut self, record: Record) {
        let now = Timestamp::now();
        let namespace = record.object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let key = Key::of(&record);
        let amends = record.amends.is_some();
        match self.memory.decide(&key, amends, Instant::now()) {
            Decision::Drop => {}
            Decision::Count { name, count } => {
                let body = json!({
                    "count": count,
                    "lastTimestamp": Time(now),
                    "message": record.message,
                });
                let params = PatchParams::default();
                let patch = Patch::Strategic(&body);
                match api.patch(&name, &params, &patch).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        self.create(&api, record, &key, now).await;
                    }
                    Err(error) => tracing::debug!(%error, "cannot count an event"),
                }
            }
            Decision::Create => self.create(&api, record, &key, now).await,
        }
    }

    async fn create(&mut self, api: &Api<Event>, record: Record, key: &Key, now: Timestamp) {
        let of = record.object.name.as_deref().unwrap_or_default();
        let name = format!("{of}.{:x}", now.as_nanosecond());
        let namespace = record.object.namespace.clone();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: namespace.or(Some("default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: record.object,
            reason: Some(record.reason),
            message: Some(record.message),
            type_: Some(record.severity.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => self.memory.created(key, name),
            Err(error) => tracing::debug!(%error, "cannot write an event"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    object: String,
    field_path: Option<String>,
    severity: Severity,
    reason: String,
    message: String,
}

impl Key {
    fn of(record: &Record) -> Self {
        Self {
            object: record.object.uid.clone().unwrap_or_default(),
            field_path: record.object.field_path.clone(),
            severity: record.severity,
            reason: record.reason.clone(),
            message: record.amends.as_ref().unwrap_or(&record.message).clone(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Create,
    Count { name: String, count: i32 },
    Drop,
}

struct Seen {
    name: String,
    count: i32,
    at: Instant,
}

/// What was written lately.
#[derive(Default)]
struct Memory {
    seen: HashMap<Key, Seen>,
    budgets: HashMap<String, (f64, Instant)>,
}

impl Memory {
    fn decide(&mut self, key: &Key, amends: bool, now: Instant) -> Decision {
        self.bound(now);
        let (tokens, since) = self
            .budgets
            .entry(key.object.clone())
            .or_insert((BURST, now));
        let earned = now.duration_since(*since).as_secs_f64() / REFILL.as_secs_f64();
        *tokens = (*tokens + earned).min(BURST);
        *since = now;
        let kept = if amends { RESERVED } else { 0.0 };
        if *tokens < 1.0 + kept {
            return Decision::Drop;
        }
        *tokens -= 1.0;
        match self.seen.get_mut(key) {
            Some(seen) => {
                seen.count = seen.count.saturating_add(1);
                seen.at = now;
                let name = seen.name.clone();
                let count = seen.count;
                Decision::Count { name, count }
            }
            None => Decision::Create,
        }
    }

    fn created(&mut self, key: &Key, name: String) {
        let at = Instant::now();
        let count = 1;
        self.seen.insert(key.clone(), Seen { name, count, at });
    }

    /// Forgets what is old, and all if that is not enough: a count begins anew then.
    fn bound(&mut self, now: Instant) {
        if self.seen.len() >= REMEMBERED {
            self.seen
                .retain(|_, seen| now.duration_since(seen.at) < FORGET);
            if self.seen.len() >= REMEMBERED {
                self.seen.clear();
            }
        }
        if self.budgets.len() >= REMEMBERED {
            let full = |since: Instant| now.duration_since(since) < FORGET;
            self.budgets
                .retain(|_, (tokens, since)| *tokens < BURST - 1.0 && full(*since));
            if self.budgets.len() >= REMEMBERED {
                self.budgets.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(message: &str) -> Key {
        Key {
            object: "u".to_owned(),
            field_path: None,
            severity: Severity::Warning,
            reason: "BackOff".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn repetitions_are_counted_and_floods_are_dropped() {
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.decide(&key("a"), false, now), Decision::Create);
        memory.created(&key("a"), "p.1".to_owned());
        for count in 2..=25 {
            let name = "p.1".to_owned();
            assert_eq!(
                memory.decide(&key("a"), false, now),
                Decision::Count { name, count }
            );
        }
        assert_eq!(memory.decide(&key("b"), false, now), Decision::Drop);
        let later = now + REFILL;
        assert_eq!(memory.decide(&key("b"), false, later), Decision::Create);
        assert_eq!(memory.decide(&key("c"), false, later), Decision::Drop);
    }

    #[test]
    fn what_amends_is_the_same_event_and_leaves_room_for_others() {
        let record = |message: &str, amends: Option<&str>| Record {
            object: ObjectReference {
                uid: Some("u".to_owned()),
                ..ObjectReference::default()
            },
            severity: Severity::Normal,
            reason: "Pulling".to_owned(),
            message: message.to_owned(),
            amends: amends.map(str::to_owned),
        };
        let begins = Key::of(&record("begins", None));
        assert!(begins == Key::of(&record("half of it", Some("begins"))));
        assert!(begins != Key::of(&record("half of it", None)));

        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.decide(&begins, false, now), Decision::Create);
        memory.created(&begins, "p.1".to_owned());
        let mut amended = 0;
        while memory.decide(&begins, true, now) != Decision::Drop {
            amended += 1;
        }
        assert_eq!(amended, 14);
        assert_eq!(memory.decide(&key("ends"), false, now), Decision::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        let now = Instant::now();
        for n in 0..3 * REMEMBERED {
            let mut key = key("m");
            key.object = n.to_string();
            if memory.decide(&key, false, now) == Decision::Create {
                memory.created(&key, n.to_string());
            }
        }
        assert!(memory.seen.len() <= REMEMBERED);
        assert!(memory.budgets.len() <= REMEMBERED);
    }
}
