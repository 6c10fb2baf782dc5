//! Events that controllers record, as `kubectl describe` and `kubectl get events` show them.
//!
//! Recording never waits: an event goes to a bounded queue, and one task writes. As in
//! client-go, an event equal to an earlier one raises that one's count, more than ten similar
//! ones are combined into one, and each object has a budget, so that a controller in a loop
//! cannot flood the store. The decisions are [`Correlator::plan`]; it reads no clock.
//!
//! Deliberately absent: delivery is best effort; an event is never retried for long.

use std::collections::HashMap;
use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that may wait for the writer before further ones are dropped.
const QUEUE: usize = 1024;
/// Similar events within [`SIMILAR_WINDOW`] before they are combined into one.
const SIMILAR: u32 = 10;
/// In seconds.
const SIMILAR_WINDOW: i64 = 600;
/// Events that one source may record about one object at once; a token comes back every
/// [`REFILL`] seconds.
const BURST: f64 = 25.0;
const REFILL: f64 = 300.0;
/// Correlations remembered.
const REMEMBERED: usize = 4096;

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    about: ObjectReference,
    source: &'static str,
    severity: Severity,
    reason: &'static str,
    message: String,
}

/// Where controllers put their events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<Record>,
    source: &'static str,
}

impl Events {
    /// The recorder, and the task that writes what it records until `cancel`.
    pub(crate) fn new(
        client: Client,
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let source = "controllers";
        (Self { queue, source }, write(client, records, cancel))
    }

    /// The same recorder speaking as `source`, for example `deployment-controller`.
    pub(crate) fn of(&self, source: &'static str) -> Self {
        let queue = self.queue.clone();
        Self { queue, source }
    }

    pub(crate) fn normal<K>(&self, about: &K, reason: &'static str, message: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(about.object_ref(&()), Severity::Normal, reason, message);
    }

    pub(crate) fn warning<K>(&self, about: &K, reason: &'static str, message: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(about.object_ref(&()), Severity::Warning, reason, message);
    }

    pub(crate) fn record(
        &self,
        about: ObjectReference,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let source = self.source;
        let record = Record {
            about,
            source,
            severity,
            reason,
            message,
        };
        if let Err(error) = self.queue.try_send(record) {
            tracing::debug!(%error, "an event was dropped");
        }
    }
}

async fn write(client: Client, mut records: mpsc::Receiver<Record>, cancel: CancellationToken) {
    let mut correlator = Correlator::default();
    loop {
        let record = tokio::select! {
            () = cancel.cancelled() => return,
            record = records.recv() => record,
        };
        let Some(record) = record else { return };
        let now = Timestamp::now();
        let namespace = record
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let written = match correlator.plan(&record, now) {
            Write::Nothing => continue,
            Write::Create(event) => api.create(&PostParams::default(), &event).await,
            Write::Count {
                name,
                count,
                message,
            } => {
                let patch = json!({"count": count, "lastTimestamp": Time(now), "message": message});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
            }
        };
        if let Err(error) = written {
            correlator.forget(&record);
            tracing::debug!(%error, reason = record.reason, "an event could not be written");
        }
    }
}

/// What to write for a record.
#[derive(Debug, PartialEq)]
enum Write {
    Nothing,
    Create(Box<Event>),
    Count {
        name: String,
        count: i32,
        message: String,
    },
}

/// What was recorded lately.
#[derive(Debug, Default)]
struct Correlator {
    budgets: HashMap<String, (f64, Timestamp)>,
    similar: HashMap<String, (u32, Timestamp)>,
    written: HashMap<String, (String, i32)>,
}

impl Correlator {
    fn plan(&mut self, record: &Record, now: Timestamp) -> Write {
        if !self.spend(record, now) {
            return Write::Nothing;
        }
        let message = if self.count_similar(record, now) > SIMILAR {
            format!("(combined from similar events): {}", record.message)
        } else {
            record.message.clone()
        };
        let combined = message.len() != record.message.len();
        let key = key(record, (!combined).then_some(message.as_str()));
        if let Some((name, count)) = self.written.get_mut(&key) {
            *count += 1;
            let (name, count) = (name.clone(), *count);
            return Write::Count {
                name,
                count,
                message,
            };
        }
        let event = event(record, message, now);
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(key, (event.name_any(), 1));
        Write::Create(Box::new(event))
    }

    /// After a failed write the next equal event starts anew.
    fn forget(&mut self, record: &Record) {
        self.written.remove(&key(record, Some(&record.message)));
        self.written.remove(&key(record, None));
    }

    fn spend(&mut self, record: &Record, now: Timestamp) -> bool {
        if self.budgets.len() >= REMEMBERED {
            self.budgets
                .retain(|_, (_, at)| seconds(*at, now) < BURST * REFILL);
        }
        let about = format!("{}/{:?}", record.source, record.about.uid);
        let (tokens, at) = self.budgets.entry(about).or_insert((BURST, now));
        *tokens = (*tokens + seconds(*at, now) / REFILL).min(BURST);
        *at = now;
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }

    fn count_similar(&mut self, record: &Record, now: Timestamp) -> u32 {
        let window = SIMILAR_WINDOW as f64;
        if self.similar.len() >= REMEMBERED {
            self.similar.retain(|_, (_, at)| seconds(*at, now) < window);
        }
        let (count, at) = self.similar.entry(key(record, None)).or_insert((0, now));
        if seconds(*at, now) > window {
            *count = 0;
        }
        *count += 1;
        *at = now;
        *count
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn key(record: &Record, message: Option<&str>) -> String {
    let Record {
        about,
        source,
        severity,
        reason,
        ..
    } = record;
    let (uid, name) = (&about.uid, &about.name);
    format!("{source}|{severity:?}|{reason}|{uid:?}|{name:?}|{message:?}")
}

fn event(record: &Record, message: String, now: Timestamp) -> Event {
    let Record {
        about,
        source,
        severity,
        reason,
        ..
    } = record;
    let name = about.name.as_deref().unwrap_or("unknown");
    let mut event = Event {
        involved_object: about.clone(),
        reason: Some((*reason).to_owned()),
        message: Some(message),
        type_: Some(format!("{severity:?}")),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some((*source).to_owned()),
            host: None,
        }),
        reporting_component: Some((*source).to_owned()),
        ..Event::default()
    };
    event.metadata.name = Some(format!("{name}.{:x}", now.as_nanosecond()));
    event.metadata.namespace = Some(
        about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
    );
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str) -> Record {
        Record {
            about: ObjectReference {
                name: Some("web".to_owned()),
                uid: Some("u".to_owned()),
                namespace: Some("ns".to_owned()),
                ..ObjectReference::default()
            },
            source: "test",
            severity: Severity::Normal,
            reason: "Created",
            message: message.to_owned(),
        }
    }

    #[test]
    fn equal_events_are_counted() {
        let mut correlator = Correlator::default();
        let now = Timestamp::UNIX_EPOCH;
        let Write::Create(first) = correlator.plan(&record("a"), now) else {
            panic!("the first is created");
        };
        assert_eq!(first.name_any(), "web.0");
        assert_eq!(first.type_.as_deref(), Some("Normal"));
        let second = correlator.plan(&record("a"), now);
        assert!(matches!(second, Write::Count { count: 2, name, .. } if name == "web.0"));
    }

    #[test]
    fn a_flood_is_combined_and_then_stopped() {
        let mut correlator = Correlator::default();
        let now = Timestamp::UNIX_EPOCH;
        let mut created = 0;
        let mut counted = 0;
        for n in 0..100 {
            match correlator.plan(&record(&n.to_string()), now) {
                Write::Create(_) => created += 1,
                Write::Count { message, .. } => {
                    assert!(message.starts_with("(combined from similar events): "));
                    counted += 1;
                }
                Write::Nothing => {}
            }
        }
        assert_eq!(
            (created, counted),
            (11, 14),
            "ten, their combination, and a budget of 25"
        );
    }
}
