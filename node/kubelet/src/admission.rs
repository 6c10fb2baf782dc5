//! Which Pods the node takes.
//!
//! The scheduler decides where a Pod runs; the node refuses what it cannot run, with the
//! reasons of the kubelet, because a Pod may be bound without the scheduler, or on stale
//! knowledge. A refused Pod fails for good.

use std::collections::HashMap;
use std::fmt;

use coracle_apimachinery::host_ports::{self, HostPort, TAKEN};
use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{self, ResourceList};
use coracle_apimachinery::taints::{MEMORY_PRESSURE, NO_SCHEDULE, any_tolerates};
use k8s_openapi::api::core::v1::{Pod, Taint};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::eviction::pressure::Conditions;
use crate::eviction::signals::Condition;
use crate::pod;
use crate::resize_queue::Queue;
use crate::status::Verdict;

/// What a Pod asks for.
struct Asked {
    requests: ResourceList,
    ports: Vec<HostPort>,
}

impl Asked {
    /// What a Pod asks a node for that has as much. Resources that others have given a name and a node
    /// does not know it does not count: they are the scheduler's to give.
    fn of(pod: &Pod, allocatable: &ResourceList) -> Self {
        let mut requests = resources::pod_requests(pod::spec(pod));
        let known = |name: &str| !is_extended(name) || allocatable.contains_key(name);
        requests.retain(|name, quantity| !quantity.is_zero() && known(name));
        let ports = host_ports::of(pod::spec(pod));
        Self { requests, ports }
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
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, cpu: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"containers": [
                {"name": "main", "resources": {"requests": {"cpu": cpu}}},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn under_pressure_only_some_are_taken() {
        use Condition::{DiskPressure, MemoryPressure};
        let tolerant = |key: &str| {
            let mut pod = pod("t", "0");
            let toleration = json!([{"key": key, "operator": "Exists"}]);
            pod.spec.as_mut().unwrap().containers[0].resources = None;
            pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(toleration).unwrap();
            pod
        };
        let mut critical = tolerant("none");
        critical.spec.as_mut().unwrap().priority = Some(2_000_000_000);
        let [none, memory] = ["none", MEMORY_PRESSURE].map(tolerant);
        let burstable = pod("b", "1");
        for (pod, conditions, taken) in [
            (&none, &[][..], true),
            (&none, &[MemoryPressure], false),
            (&memory, &[MemoryPressure], true),
            (&burstable, &[MemoryPressure], true),
            (&burstable, &[DiskPressure], false),
            (&memory, &[DiskPressure, MemoryPressure], false),
            (&critical, &[DiskPressure, MemoryPressure], true),
        ] {
            let conditions: Conditions = conditions.iter().copied().collect();
            let admitted = pressed(pod, false, &conditions);
            assert_eq!(admitted.is_ok(), taken, "{conditions:?}");
            assert!(pressed(pod, true, &conditions).is_ok());
        }
        let both = [DiskPressure, MemoryPressure].into();
        let refused = pressed(&none, false, &both).unwrap_err();
        let text = "The node had condition: [DiskPressure MemoryPressure]. ";
        assert!(refused.message.ends_with(text), "{}", refused.message);
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused() {
        let allocatable = ResourceList::from([("cpu".to_owned(), "2".parse().unwrap())]);
        let admission = Admission::new(allocatable, 3);
        admission.admit(&pod("a", "1500m"), false).unwrap();
        let refused = admission.admit(&pod("b", "600m"), false).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert!(
            refused
                .message
                .ends_with("requested: 600, used: 1500, capacity: 2000"),
            "{}",
            refused.message
        );
        admission.admit(&pod("b", "600m"), true).unwrap();
        admission.release("a");
        admission.admit(&pod("c", "1"), false).unwrap();
        admission.admit(&pod("d", "0"), false).unwrap();
        let refused = admission.admit(&pod("e", "0"), false).unwrap_err();
        assert_eq!(refused.reason, "OutOfpods");
    }

    #[test]
    fn what_a_node_does_not_know_is_not_counted() {
        let asking = |name: &str| -> Pod {
            let resources = json!({"requests": {name: "2"}, "limits": {name: "2"}});
            serde_json::from_value(json!({
                "metadata": {"name": "p", "uid": "p"},
                "spec": {"containers": [{"name": "main", "resources": resources}]},
            }))
            .unwrap()
        };
        let allocatable = ResourceList::from([("example.com/known".into(), "1".parse().unwrap())]);
        for (name, refused) in [
            ("example.com/other", None),
            ("example.com/known", Some("OutOfexample.com/known")),
            ("memory", Some("OutOfmemory")),
            ("hugepages-2Mi", Some("OutOfhugepages-2Mi")),
        ] {
            let admission = Admission::new(allocatable.clone(), 9);
            let reason = admission.admit(&asking(name), false).err();
            let reason = reason.map(|verdict| verdict.reason);
            assert_eq!(reason.as_deref(), refused, "{name}");
        }
    }

    #[test]
    fn room_to_grow_is_given_in_order() {
        let allocatable = ResourceList::from([("cpu".to_owned(), "4".parse().unwrap())]);
        let admission = Admission::new(allocatable, 9);
        let with = |uid: &str, cpu: &str, priority: i32| {
            let mut pod = pod(uid, cpu);
            pod.spec.as_mut().unwrap().priority = Some(priority);
            pod
        };
        for uid in ["low", "high", "huge", "goes"] {
            admission.admit(&pod(uid, "1"), false).unwrap();
        }
        let reason = |pod: &Pod| admission.resize(pod).err().map(|no_room| no_room.reason);
        let deferred = Some("Deferred");
        assert_eq!(reason(&with("low", "2", 0)), deferred);
        assert_eq!(reason(&with("high", "2", 5)), deferred);
        // It holds nobody up for whom there is room.
        assert_eq!(reason(&with("huge", "4", 9)), deferred);
        admission.release("goes");
        assert_eq!(reason(&with("low", "2", 0)), deferred, "another goes first");
        assert_eq!(reason(&with("huge", "4", 9)), deferred);
        assert_eq!(reason(&with("high", "2", 5)), None);
        assert_eq!(reason(&with("low", "2", 0)), deferred);
        // Who gives something back never waits.
        assert_eq!(reason(&with("huge", "500m", 9)), None);
        assert_eq!(reason(&with("low", "1500m", 0)), None);
        let mut freed = admission.freed();
        assert_eq!(reason(&with("huge", "2", 9)), deferred);
        freed.mark_unchanged();
        admission.withdraw("huge");
        assert!(freed.has_changed().unwrap());
        // Nor does anybody wait for what another wanted before.
        for (wanted, told) in [
            ("2", false),
            ("2", false),
            ("3", true),
            ("3", false),
            ("9", true),
        ] {
            freed.mark_unchanged();
            assert!(reason(&with("huge", wanted, 9)).is_some());
            assert_eq!(freed.has_changed().unwrap(), told, "{wanted}");
        }
    }

    #[test]
    fn a_port_of_the_node_is_one_pods() {
        let asking = |uid: &str, ip: &str| -> Pod {
            let ports = json!([{"containerPort": 80, "hostPort": 80, "hostIP": ip}]);
            serde_json::from_value(json!({
                "metadata": {"name": uid, "uid": uid},
                "spec": {"containers": [{"name": "main", "ports": ports}]},
            }))
            .unwrap()
        };
        let admission = Admission::new(ResourceList::new(), 9);
        admission.admit(&asking("a", "127.0.0.1"), false).unwrap();
        admission.admit(&asking("b", "192.0.2.1"), false).unwrap();
        let refused = admission.admit(&asking("c", ""), false).unwrap_err();
        assert_eq!(refused.reason, "NodePorts");
        assert!(refused.message.ends_with(TAKEN), "{}", refused.message);
        admission.release("a");
        admission.release("b");
        admission.admit(&asking("c", ""), false).unwrap();
    }
}
