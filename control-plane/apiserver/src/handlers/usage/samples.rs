//! Rates from two answers of a kubelet, and the answers that the next ones are compared with.
//!
//! Pure: time comes with the calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

/// The shortest interval from which a rate is taken: what is shorter shows how busy a moment was.
pub(super) const LEAST: Duration = Duration::from_secs(1);
/// The longest: what is longer does not show what is used now.
pub(super) const MOST: Duration = Duration::from_secs(120);
/// An answer as old as that is replaced by the next.
const FRESH: Duration = Duration::from_secs(10);

/// What is read of a kubelet's summary.
#[derive(Debug, Deserialize)]
pub(super) struct Summary {
    node: Stats,
    #[serde(default)]
    pods: Vec<PodStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Debug, Deserialize)]
struct PodRef {
    uid: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStats {
    name: String,
    start_time: Option<Timestamp>,
    #[serde(flatten)]
    stats: Stats,
}

#[derive(Debug, Deserialize)]
struct Stats {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_core_nano_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: u64,
}

/// What was used on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) window: Duration,
    pub(super) nanocores: u64,
    pub(super) memory_bytes: u64,
}

impl Rate {
    /// From a counter at a time to what is now; none where no time has passed, or the counter
    /// has begun anew.
    fn of((since, before): (Timestamp, u64), now: &Stats) -> Option<Self> {
        let (cpu, memory) = (now.cpu.as_ref()?, now.memory.as_ref()?);
        let window = Duration::try_from(cpu.time.duration_since(since)).ok()?;
        let used = cpu.usage_core_nano_seconds.checked_sub(before)?;
        let nanos = Some(window.as_nanos()).filter(|nanos| *nanos > 0)?;
        let rate = u128::from(used) * 1_000_000_000 / nanos;
        Some(Self {
            window,
            nanocores: u64::try_from(rate).unwrap_or(u64::MAX),
            memory_bytes: memory.working_set_bytes,
        })
    }
}

/// The rates of a node.
#[derive(Debug)]
pub(super) struct Rates {
    until: Timestamp,
    node: Option<Rate>,
    /// By the UID of the Pod, in the order of its containers' names.
    pods: HashMap<String, Vec<(String, Rate)>>,
}

impl Rates {
    /// What was used from one answer to another.
    pub(super) fn between(before: &Summary, now: &Summary) -> Self {
        let mut known = HashMap::new();
        for pod in &before.pods {
            for of in &pod.containers {
                if let Some(cpu) = &of.stats.cpu {
                    let key = (&*pod.pod_ref.uid, &*of.name, of.start_time);
                    known.insert(key, (cpu.time, cpu.usage_core_nano_seconds));
                }
            }
        }
        let mut pods: HashMap<String, Vec<(String, Rate)>> = HashMap::new();
        for pod in &now.pods {
            let mut containers: Vec<_> = pod
                .containers
                .iter()
                .filter_map(|of| {
                    let key = (&*pod.pod_ref.uid, &*of.name, of.start_time);
                    // What was not there has used nothing before its start.
                    let since = known.get(&key).copied();
                    let since = since.or_else(|| Some((of.start_time?, 0)))?;
                    Some((of.name.clone(), Rate::of(since, &of.stats)?))
                })
                .collect();
            containers.sort_by(|a, b| a.0.cmp(&b.0));
            pods.insert(pod.pod_ref.uid.clone(), containers);
        }
        let point = |stats: &Stats| {
            let cpu = stats.cpu.as_ref()?;
            Some((cpu.time, cpu.usage_core_nano_seconds))
        };
        Self {
            until: point(&now.node).map_or_else(Timestamp::now, |(time, _)| time),
            node: point(&before.node).and_then(|since| Rate::of(since, &now.node)),
            pods,
        }
    }

    /// The end of the interval.
    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    pub(super) fn node(&self) -> Option<Rate> {
        self.node
    }

    /// The containers of a Pod that have a rate.
    pub(super) fn pod(&self, uid: &str) -> Vec<(&str, Rate)> {
        let containers = self.pods.get(uid).into_iter().flatten();
        containers.map(|(name, rate)| (&**name, *rate)).collect()
    }
}

/// An answer to compare with.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) at: Instant,
    pub(super) summary: Arc<Summary>,
}

/// The answers of nodes, at most one of each that was asked lately.
#[derive(Debug, Default)]
pub(crate) struct Samples(HashMap<String, Base>);

impl Samples {
    /// What to compare the next answer of a node with, if that is not too old.
    pub(super) fn base(&self, node: &str, now: Instant) -> Option<Base> {
        let base = self.0.get(node)?;
        (now.duration_since(base.at) <= MOST).then(|| base.clone())
    }

    /// Keeps the first answer of a node. Of several who ask at once the first one's counts.
    pub(super) fn begin(&mut self, node: &str, now: Instant, summary: Summary) -> Base {
        self.0.retain(|_, base| now.duration_since(base.at) <= MOST);
        let base = Base {
            at: now,
            summary: Arc::new(summary),
        };
        self.0.entry(node.to_owned()).or_insert(base).clone()
    }

    /// Keeps a later one, where the one before is of an age.
    pub(super) fn advance(&mut self, node: &str, now: Instant, summary: Summary) {
        let fresh = |base: &Base| now.duration_since(base.at) < FRESH;
        if !self.0.get(node).is_some_and(fresh) {
            self.0.remove(node);
            self.begin(node, now, summary);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stats(second: u64, millis: u64, bytes: u64) -> Value {
        let time = Timestamp::from_second(second as i64).unwrap().to_string();
        json!({
            "cpu": {"time": time, "usageCoreNanoSeconds": millis * 1_000_000},
            "memory": {"time": time, "workingSetBytes": bytes},
        })
    }

    fn container(name: &str, started: i64, mut stats: Value) -> Value {
        stats["name"] = name.into();
        stats["startTime"] = Timestamp::from_second(started).unwrap().to_string().into();
        stats
    }

    fn summary(node: Value, containers: &[Value]) -> Summary {
        let pod = json!({"podRef": {"uid": "u"}, "containers": containers});
        serde_json::from_value(json!({"node": node, "pods": [pod]})).unwrap()
    }

    fn rate(seconds: u64, millicores: u64, memory_bytes: u64) -> Rate {
        Rate {
            window: Duration::from_secs(seconds),
            nanocores: millicores * 1_000_000,
            memory_bytes,
        }
    }

    #[test]
    fn rates_are_taken_from_counters_of_the_same_life() {
        let before = summary(
            stats(100, 5_000, 1),
            &[
                container("goes-on", 10, stats(100, 1_000, 1)),
                container("again", 10, stats(100, 9_000, 1)),
            ],
        );
        let now = summary(
            stats(110, 8_000, 70),
            &[
                container("new", 105, stats(110, 500, 3)),
                container("goes-on", 10, stats(110, 3_000, 2)),
                container("again", 108, stats(110, 1_000, 4)),
                container("just-now", 110, stats(110, 0, 5)),
            ],
        );
        let rates = Rates::between(&before, &now);
        assert_eq!(rates.until().as_second(), 110);
        assert_eq!(rates.node(), Some(rate(10, 300, 70)));
        let want = [
            ("again", rate(2, 500, 4)),
            ("goes-on", rate(10, 200, 2)),
            ("new", rate(5, 100, 3)),
        ];
        assert_eq!(rates.pod("u"), want);
        assert!(rates.pod("other").is_empty());
    }

    #[test]
    fn what_a_kubelet_does_not_tell_has_no_rate() {
        let nothing = || summary(json!({}), &[json!({"name": "c"})]);
        let rates = Rates::between(&nothing(), &nothing());
        assert_eq!(rates.node(), None);
        assert!(rates.pod("u").is_empty());
    }

    #[test]
    fn answers_are_kept_for_those_who_come_again() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let answer = || summary(json!({}), &[]);
        let mut samples = Samples::default();
        assert!(samples.base("n", start).is_none());
        assert_eq!(samples.begin("n", start, answer()).at, start);
        assert_eq!(samples.begin("n", after(1), answer()).at, start);
        samples.advance("n", after(5), answer());
        assert_eq!(samples.base("n", after(6)).unwrap().at, start);
        samples.advance("n", after(12), answer());
        assert_eq!(samples.base("n", after(13)).unwrap().at, after(12));
        assert!(samples.base("n", after(133)).is_none());
        samples.begin("other", after(140), answer());
        assert_eq!(samples.0.len(), 1);
    }
}
