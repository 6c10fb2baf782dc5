//! Ends Pods that are too much for the node.
//!
//! [`storage`] says purely which Pods exceed a limit of local storage, [`disk`] measures them.
//! [`thresholds`] are what the node must have of everything, [`signals`] what it has; [`pressure`]
//! says purely when it is short of something, and [`rank`] which Pod then goes first. [`Evictor`]
//! looks every ten seconds (the kubelet's monitoring period) and tells workers, which end their
//! Pods like any that fails; one has ended before the next is judged.
//!
//! **Invariant:** a look asks the system four small questions; it measures nothing where no Pod has
//! a limit and the node is not short of anything. Pods with limits are measured so seldom that it
//! takes at most a fiftieth of the time.
//!
//! Deliberately absent: processes by Pod, which no runtime counts: where they run short, priority
//! alone says who goes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::Severity;
use crate::images::collector::Collector;
use crate::node_context::NodeContext;
use crate::pod;
use crate::status::Verdict;
use crate::worker::Workers;
use pressure::{Conditions, Pressure};
use signals::Observations;

pub(crate) mod disk;
pub(crate) mod pressure;
mod rank;
mod reclaim;
pub(crate) mod signals;
mod storage;
mod thresholds;

pub use signals::Signal;
pub use thresholds::{Amount, EvictionPolicy, parse_amounts, parse_periods, parse_thresholds};

/// Measuring waits that many times as long as it took.
const REST: u32 = 50;
/// What a Pod gets that must go at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long the end of a Pod is waited for.
const CLEAN_UP: Duration = Duration::from_secs(30);
/// The reason of whatever ends here.
const EVICTED: &str = "Evicted";

/// Looks after the node's resources.
pub(crate) struct Evictor {
    node: Arc<NodeContext>,
    workers: Workers,
    images: Arc<Collector>,
    policy: EvictionPolicy,
    pressure: Pressure,
    /// When Pods with limits may be measured again.
    measure_at: Instant,
    /// The node is short, and nobody may end: that was told.
    helpless: bool,
}

impl Evictor {
    pub(crate) fn new(
        node: Arc<NodeContext>,
        workers: Workers,
        images: Arc<Collector>,
        policy: EvictionPolicy,
    ) -> Self {
        Self {
            node,
            workers,
            images,
            pressure: Pressure::new(&policy),
            policy,
            measure_at: Instant::now(),
            helpless: false,
        }
    }

    /// Looks again and again until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let work = async {
            loop {
                match self.look().await {
                    // What is left is judged by what is left.
                    Some(evicted) => self.cleaned_up(&evicted).await,
                    None => tokio::time::sleep(self.policy.period).await,
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    }

    /// One look; the UIDs of Pods that were told to end.
    async fn look(&mut self) -> Option<Vec<String>> {
        let observations = self.observe();
        let finding = self.pressure.look(&observations, Instant::now());
        self.announce(finding.conditions);
        let evicted = self.keep_limits().await;
        if !evicted.is_empty() {
            return Some(evicted);
        }
        let Some(threshold) = finding.reclaim else {
            self.helpless = false;
            return None;
        };
        let uid = self.relieve(&threshold, &observations).await?;
        Some(vec![uid])
    }

    fn observe(&self) -> Observations {
        match self.pressure.is_watched() {
            true => signals::observe(&self.node.root, &self.images.folder()),
            false => Observations::new(),
        }
    }

    /// Tells everybody which conditions hold.
    fn announce(&self, conditions: Conditions) {
        let before = self.node.pressure.borrow().clone();
        if before == conditions {
            // Whoever waits for a change is not woken.
            return;
        }
        self.node.pressure.send_replace(conditions.clone());
        let name = &self.node.node_name;
        for condition in before.symmetric_difference(&conditions) {
            let event = condition.event(conditions.contains(condition));
            let text = format!("Node {name} status is now: {event}");
            self.node.recorder.node(name, Severity::Normal, event, text);
        }
    }

    /// Ends Pods that exceed a limit of local storage.
    async fn keep_limits(&mut self) -> Vec<String> {
        let mut evicted = Vec::new();
        let began = Instant::now();
        if began < self.measure_at {
            return evicted;
        }
        let mut living = self.workers.living();
        living.retain(|pod| storage::is_limited(pod) && !pod::is_critical(pod));
        if living.is_empty() {
            return evicted;
        }
        for pod in living {
            let used = disk::measure(&self.node, &pod).await;
            if let Some(message) = storage::violation(&pod, &used)
                && self.evict(&pod, message, AT_ONCE, false)
            {
                evicted.push(pod::uid(&pod).to_owned());
            }
        }
        let now = Instant::now();
        self.measure_at = now + (now - began).saturating_mul(REST);
        evicted
    }

    /// Ends a Pod; `disrupted` where it is not its own fault.
    fn evict(&self, pod: &Pod, message: String, grace: Duration, disrupted: bool) -> bool {
        let verdict = Verdict {
            reason: EVICTED.to_owned(),
            message: message.clone(),
            disrupted,
        };
        let told = self.workers.evict(pod::uid(pod), verdict, grace);
        if told {
            let (namespace, name) = (pod::namespace(pod), pod::name(pod));
            tracing::warn!(namespace, name, message, "evicting a Pod");
            let recorder = &self.node.recorder;
            recorder.pod(pod, None, Severity::Warning, EVICTED, message);
        }
        told
    }

    /// Waits until nothing of these Pods runs, for a while.
    async fn cleaned_up(&self, uids: &[String]) {
        let mut changes = self.node.cache.changes();
        let ended = async {
            while uids
                .iter()
                .any(|uid| self.node.cache.pod(uid).running().next().is_some())
            {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // What does not end in time is no reason to let others be.
        let _ = tokio::time::timeout(CLEAN_UP, ended).await;
    }
}
