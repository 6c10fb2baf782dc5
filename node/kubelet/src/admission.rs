//! Which Pods the node takes.
//!
//! The scheduler decides where a Pod runs; the node refuses what it cannot run, with the
//! reasons of the kubelet, because a Pod may be bound without the scheduler, or on stale
//! knowledge. A refused Pod fails for good.

use std::collections::{HashMap, HashSet};
use std::fmt;

use coracle_apimachinery::host_ports::{self, HostPort, TAKEN};
use coracle_apimachinery::quantity::{Format, Quantity};
use coracle_apimachinery::resources::{self, PODS, ResourceList};
use coracle_apimachinery::taints::{MEMORY_PRESSURE, NO_SCHEDULE, any_tolerates};
use k8s_openapi::api::core::v1::{Pod, Taint};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::eviction::pressure::Conditions;
use crate::eviction::signals::Condition;
use crate::pod;
use crate::preemption::{self, Candidate};
use crate::resize_queue::Queue;
use crate::status::Verdict;

/// What a Pod asks for.
struct Asked {
    requests: ResourceList,
    ports: Vec<HostPort>,
    qos: resources::Qos,
    critical: bool,
    priority: Option<i32>,
}

impl Asked {
    /// What a Pod asks a node for that has as much. Resources that others have given a name and a node
    /// does not know it does not count: they are the scheduler's to give.
    fn of(pod: &Pod, allocatable: &ResourceList) -> Self {
        let mut requests = resources::pod_requests(pod::spec(pod));
        let known = |name: &str| !is_extended(name) || allocatable.contains_key(name);
        requests.retain(|name, quantity| !quantity.is_zero() && known(name));
        Self {
            requests,
            ports: host_ports::of(pod::spec(pod)),
            qos: resources::qos(pod::spec(pod)),
            critical: pod::is_critical(pod),
            priority: pod::spec(pod).priority,
        }
    }

    /// Whether it goes for a critical Pod.
    fn yields_to(&self, other: &Self) -> bool {
        !self.critical || (self.priority.is_some() && self.priority < other.priority)
    }
}

/// What the Pods of the node ask for, and how much there is.
pub(crate) struct Admission {
    allocatable: ResourceList,
    max_pods: usize,
    admitted: Mutex<HashMap<String, Asked>>,
    /// Those of them that wait for more; locked after them.
    queue: Mutex<Queue>,
    /// Counts how often room was left.
    freed: watch::Sender<u64>,
}

/// Why a Pod that runs does not get more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom {
    /// `Deferred` as long as others have it, `Infeasible` where the node never had as much.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Admission {
    pub(crate) fn new(allocatable: ResourceList, max_pods: usize) -> Self {
        Self {
            allocatable,
            max_pods,
            admitted: Mutex::default(),
            queue: Mutex::default(),
            freed: watch::Sender::new(0),
        }
    }

    pub(crate) fn allocatable(&self) -> &ResourceList {
        &self.allocatable
    }

    /// Takes the Pod in, or says why not. One that runs already is never refused.
    pub(crate) fn admit(&self, pod: &Pod, runs: bool) -> Result<(), Verdict> {
        let asked = Asked::of(pod, &self.allocatable);
        let mut admitted = self.admitted.lock();
        if !runs && !admitted.contains_key(pod::uid(pod)) {
            if admitted.len() >= self.max_pods {
                return Err(refusal(&Lack {
                    resource: "pods".to_owned(),
                    requested: 1,
                    used: admitted.len() as i64,
                    capacity: self.max_pods as i64,
                }));
            }
            are_free(&asked.ports, &admitted)?;
            let fits = self.fits(&asked.requests, &used(&admitted, &Instead::new(), ""));
            fits.map_err(|lack| refusal(&lack))?;
        }
        admitted.insert(pod::uid(pod).to_owned(), asked);
        Ok(())
    }

    /// Who has to go for a critical Pod that was not taken in, beside those that end already, which may
    /// be enough; none where it lacks something else, or would not be taken in all the same.
    pub(crate) fn victims(&self, pod: &Pod, ending: &HashSet<String>) -> Option<Vec<String>> {
        let asked = Asked::of(pod, &self.allocatable);
        let admitted = self.admitted.lock();
        if !asked.critical || are_free(&asked.ports, &admitted).is_err() {
            return None;
        }
        let stays = |(uid, _): &(&String, &Asked)| !ending.contains(*uid);
        let staying: Vec<(&String, &Asked)> = admitted.iter().filter(stays).collect();
        let pods = |count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ResourceList::from([(PODS.to_owned(), Quantity::new(count, Format::DecimalSi))])
        };
        let mut needs = pods(staying.len() + 1);
        resources::add(&mut needs, &asked.requests);
        for (_, of) in &staying {
            resources::add(&mut needs, &of.requests);
        }
        needs.retain(|name, _| name == PODS || asked.requests.contains_key(name));
        let mut has = self.allocatable.clone();
        has.extend(pods(self.max_pods));
        for (name, amount) in &mut needs {
            amount.sub(&has.get(name).copied().unwrap_or_default());
        }
        needs.retain(|_, amount| *amount > Quantity::ZERO);
        let candidates = staying.iter().filter(|(_, of)| of.yields_to(&asked));
        let candidates = candidates.map(|(uid, of)| {
            let mut requests = of.requests.clone();
            requests.extend(pods(1));
            Candidate {
                uid: (*uid).clone(),
                qos: of.qos,
                requests,
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        preemption::victims(&needs, &candidates)
    }

    /// Gives back what an ended Pod had asked for.
    pub(crate) fn release(&self, uid: &str) {
        let held = self.admitted.lock().remove(uid).is_some();
        let waited = self.queue.lock().remove(uid);
        if held || waited {
            self.tell_freed();
        }
    }

    /// A Pod wants no more than it has: who was behind it may have what it waited for.
    pub(crate) fn withdraw(&self, uid: &str) {
        if self.queue.lock().remove(uid) {
            self.tell_freed();
        }
    }

    /// Sees when others leave room.
    pub(crate) fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    /// Gives a Pod that was taken in what it asks for now, or says why it keeps what it has. Who has
    /// to wait is heard again when room is left, in the order of [`Queue`].
    pub(crate) fn resize(&self, pod: &Pod) -> Result<(), NoRoom> {
        let asked = Asked::of(pod, &self.allocatable);
        let uid = pod::uid(pod);
        let mut admitted = self.admitted.lock();
        let mut queue = self.queue.lock();
        let has = admitted.get(uid).map(|has| &has.requests);
        let grown = grown(&asked.requests, has);
        if let Err(lack) = self.fits(&grown, &ResourceList::new()) {
            if queue.remove(uid) {
                self.tell_freed();
            }
            return Err(NoRoom {
                reason: "Infeasible",
                message: format!(
                    "Node didn't have enough capacity: {}, requested: {}, capacity: {}",
                    lack.resource, lack.requested, lack.capacity
                ),
            });
        }
        let ahead = match grown.is_empty() {
            true => Instead::new(),
            false => self.ahead(pod, &queue, &admitted),
        };
        let fits = self.fits(&grown, &used(&admitted, &ahead, uid));
        if let Err(lack) = fits {
            drop(ahead);
            if queue.put(pod, asked.requests) {
                // Who was behind it may have what it waited for before.
                self.tell_freed();
            }
            return Err(NoRoom {
                reason: "Deferred",
                message: lack.to_string(),
            });
        }
        drop(ahead);
        let waited = queue.remove(uid);
        drop(queue);
        let shrinks = has.is_some_and(|has| {
            let mut had = has.iter();
            had.any(|(name, had)| asked.requests.get(name) < Some(had))
        });
        admitted.insert(uid.to_owned(), asked);
        drop(admitted);
        // Who was behind it may get what it leaves.
        if shrinks || waited {
            self.tell_freed();
        }
        Ok(())
    }

    fn tell_freed(&self) {
        self.freed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// What those get who go before a Pod and for whom there is room: they are about to take it.
    fn ahead<'a>(
        &self,
        pod: &Pod,
        queue: &'a Queue,
        admitted: &HashMap<String, Asked>,
    ) -> Instead<'a> {
        let mut ahead = Instead::new();
        for (other, wish) in queue.before(pod) {
            let Some(has) = admitted.get(other) else {
                continue;
            };
            let grown = grown(wish, Some(&has.requests));
            if self.fits(&grown, &used(admitted, &ahead, other)).is_ok() {
                ahead.insert(other, wish);
            }
        }
        ahead
    }

    /// Whether that is there beside what others use.
    fn fits(&self, requests: &ResourceList, used: &ResourceList) -> Result<(), Lack> {
        for (name, wanted) in requests {
            let used = used.get(name).copied().unwrap_or_default();
            let capacity = self.allocatable.get(name).copied().unwrap_or_default();
            if *wanted + used > capacity {
                // Processors are counted in thousandths, everything else in whole units.
                let unit = |quantity: &Quantity| match name.as_str() {
                    "cpu" => quantity.milli_value(),
                    _ => quantity.value(),
                };
                return Err(Lack {
                    resource: name.clone(),
                    requested: unit(wanted),
                    used: unit(&used),
                    capacity: unit(&capacity),
                });
            }
        }
        Ok(())
    }
}

/// What Pods are counted with in place of what they have.
type Instead<'a> = HashMap<&'a str, &'a ResourceList>;

/// What all Pods but one use.
fn used(admitted: &HashMap<String, Asked>, instead: &Instead<'_>, but: &str) -> ResourceList {
    let mut sum = ResourceList::new();
    for (uid, of) in admitted.iter().filter(|(uid, _)| *uid != but) {
        let counted = instead.get(uid.as_str()).copied();
        resources::add(&mut sum, counted.unwrap_or(&of.requests));
    }
    sum
}

/// What is more than a Pod has. What it has already is not asked for again, though there be less of it
/// by now.
fn grown(asked: &ResourceList, has: Option<&ResourceList>) -> ResourceList {
    let mut grown = asked.clone();
    grown.retain(|name, wanted| has.and_then(|has| has.get(name)) < Some(&*wanted));
    grown
}

/// Whether a resource is one that others than Kubernetes have given a name.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// What there is not enough of.
struct Lack {
    resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
            self.resource, self.requested, self.used, self.capacity
        )
    }
}

fn are_free(ports: &[HostPort], admitted: &HashMap<String, Asked>) -> Result<(), Verdict> {
    let mut held = admitted.values().flat_map(|of| &of.ports);
    if held.any(|held| ports.iter().any(|port| port.conflicts(held))) {
        return Err(Verdict {
            reason: "NodePorts".to_owned(),
            message: format!("Pod was rejected: Predicate NodePorts failed: {TAKEN}"),
            disrupted: false,
        });
    }
    Ok(())
}

/// Refuses a Pod that does not run yet while the node is short of something, as the kubelet's
/// eviction manager does: under memory pressure alone those that ask for something are taken.
pub(crate) fn pressed(pod: &Pod, runs: bool, conditions: &Conditions) -> Result<(), Verdict> {
    if runs || conditions.is_empty() || pod::is_critical(pod) {
        return Ok(());
    }
    if conditions.iter().all(|of| *of == Condition::MemoryPressure) {
        let taint = Taint {
            key: MEMORY_PRESSURE.to_owned(),
            effect: NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        let tolerations = pod::spec(pod).tolerations.as_deref().unwrap_or_default();
        let best_effort = resources::qos(pod::spec(pod)) == resources::Qos::BestEffort;
        if !best_effort || any_tolerates(tolerations, &taint) {
            return Ok(());
        }
    }
    let names: Vec<&str> = conditions.iter().map(|of| of.name()).collect();
    Err(Verdict {
        reason: "Evicted".to_owned(),
        message: format!(
            "Pod was rejected: The node had condition: [{}]. ",
            names.join(" ")
        ),
        disrupted: false,
    })
}

fn refusal(lack: &Lack) -> Verdict {
    Verdict {
        reason: format!("OutOf{}", lack.resource),
        message: format!("Pod was rejected: {lack}"),
        disrupted: false,
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
