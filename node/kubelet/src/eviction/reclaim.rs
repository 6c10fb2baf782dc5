//! What is done where the node is short of something: what nobody needs goes first, then a Pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{
    EPHEMERAL_STORAGE, ResourceList, container_requests, pod_requests,
};
use k8s_openapi::api::core::v1::Pod;

use super::disk::{self, PodDisk};
use super::rank::{self, Candidate, Consumption};
use super::signals::{Condition, Observations, Signal};
use super::thresholds::Threshold;
use super::{AT_ONCE, Evictor};
use crate::events::Severity;
use crate::pod;

/// How long containers of Pods that have ended may take to be removed.
const REMOVAL: Duration = Duration::from_secs(10);

/// A Pod and what its containers use of what is short.
struct Used {
    pod: Arc<Pod>,
    /// None where it could not be measured.
    total: Option<u64>,
    containers: Vec<(String, u64)>,
}

impl Evictor {
    /// Makes room; the UID of the Pod that was told to end, if one had to.
    pub(super) async fn relieve(
        &mut self,
        threshold: &Threshold,
        observations: &Observations,
    ) -> Option<String> {
        let (signal, resource) = (threshold.signal, threshold.signal.resource());
        let (recorder, name) = (&self.node.recorder, &self.node.node_name);
        let text = format!("Attempting to reclaim {resource}");
        recorder.node(name, Severity::Warning, "EvictionThresholdMet", text);
        if signal.condition() == Condition::DiskPressure {
            self.remove_ended().await;
            self.images.collect_all().await;
            if self.pressure.is_relieved(&self.observe()) {
                return None;
            }
        }
        let seen = observations.get(&signal)?;
        let quantity = threshold.below.quantity(seen.capacity);
        let mut all = self.used(signal).await;
        all.retain(|of| !pod::is_critical(&of.pod));
        all.sort_by_cached_key(|of| Ranked(candidate(of, signal)));
        let grace = |pod: &Pod| match threshold.grace {
            None => AT_ONCE,
            Some(_) => pod::grace(pod).min(self.policy.max_pod_grace),
        };
        let evicted = all.into_iter().find(|of| {
            let containers = consumption(of, resource);
            let message = rank::message(resource, &quantity, seen.available, &containers);
            self.evict(&of.pod, message, grace(&of.pod), true)
        });
        // It is looked at again every few seconds.
        let helpless = std::mem::replace(&mut self.helpless, evicted.is_none());
        if evicted.is_none() && !helpless {
            tracing::warn!(
                resource,
                "the node is short, and there is no Pod that may end"
            );
        }
        evicted.map(|of| pod::uid(&of.pod).to_owned())
    }

    /// Has workers remove containers and logs of Pods that have ended.
    async fn remove_ended(&self) {
        let uids = self.workers.reclaim();
        let mut changes = self.node.cache.changes();
        let removed = async {
            while uids.iter().any(|uid| !self.node.cache.pod(uid).is_empty()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // What goes later makes its room later.
        let _ = tokio::time::timeout(REMOVAL, removed).await;
    }

    /// Pods of which something runs, with what they use.
    async fn used(&self, signal: Signal) -> Vec<Used> {
        let mut living = self.workers.living();
        living.retain(|pod| {
            self.node
                .cache
                .pod(pod::uid(pod))
                .running()
                .next()
                .is_some()
        });
        let mut all = Vec::new();
        let memory = match signal {
            Signal::MemoryAvailable => self.memory().await,
            _ => HashMap::new(),
        };
        for pod in living {
            let used = match signal {
                Signal::MemoryAvailable => of_memory(self, pod, &memory),
                Signal::PidAvailable => Used {
                    pod,
                    total: Some(0),
                    containers: Vec::new(),
                },
                _ => {
                    let disk = disk::measure(&self.node, &pod).await;
                    of_disk(pod, &disk, signal.resource() == EPHEMERAL_STORAGE)
                }
            };
            all.push(used);
        }
        all
    }

    /// Memory of containers, by ID.
    async fn memory(&self) -> HashMap<String, u64> {
        let mut memory = HashMap::new();
        for runtime in self.node.router.all() {
            match runtime.stats().await {
                Ok(all) => memory.extend(all.into_iter().map(|of| (of.id.0, of.memory_bytes))),
                Err(error) => tracing::warn!(%error, "a runtime gives no stats"),
            }
        }
        memory
    }
}

fn of_memory(evictor: &Evictor, pod: Arc<Pod>, memory: &HashMap<String, u64>) -> Used {
    let runtime = evictor.node.cache.pod(pod::uid(&pod));
    let containers = runtime.running().filter_map(|of| {
        let used = memory.get(&of.id().0)?;
        Some((of.name().to_owned(), *used))
    });
    let containers: Vec<(String, u64)> = containers.collect();
    let sum = containers.iter().map(|(_, used)| *used).sum();
    Used {
        pod,
        total: (!containers.is_empty()).then_some(sum),
        containers,
    }
}

fn of_disk(pod: Arc<Pod>, disk: &PodDisk, bytes: bool) -> Used {
    let total = disk.total();
    let containers = disk.containers.iter();
    Used {
        pod,
        total: Some(if bytes { total.bytes } else { total.inodes }),
        containers: match bytes {
            true => containers
                .map(|(name, of)| (name.clone(), of.bytes))
                .collect(),
            false => Vec::new(),
        },
    }
}

fn amount(list: &ResourceList, resource: &str) -> u64 {
    let amount = list.get(resource).map(Quantity::value);
    amount
        .and_then(|amount| u64::try_from(amount).ok())
        .unwrap_or(0)
}

fn candidate(of: &Used, signal: Signal) -> Candidate {
    Candidate {
        uid: pod::uid(&of.pod).to_owned(),
        priority: pod::spec(&of.pod).priority.unwrap_or(0),
        request: amount(&pod_requests(pod::spec(&of.pod)), signal.resource()),
        used: of.total,
    }
}

fn consumption(of: &Used, resource: &str) -> Vec<Consumption> {
    let containers = of.containers.iter().filter_map(|(name, used)| {
        let containers = &pod::spec(&of.pod).containers;
        let container = containers
            .iter()
            .find(|container| container.name == *name)?;
        Some(Consumption {
            container: name.clone(),
            used: *used,
            request: container_requests(container)
                .get(resource)
                .copied()
                .unwrap_or_default(),
        })
    });
    containers.collect()
}

/// Sorts by [`rank::order`].
#[derive(PartialEq, Eq)]
struct Ranked(Candidate);

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        rank::order(&self.0, &other.0)
    }
}
