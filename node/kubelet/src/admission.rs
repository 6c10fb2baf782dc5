//! Which Pods the node takes.
//!
//! The scheduler decides where a Pod runs; the node refuses what it cannot run, with the
//! reasons of the kubelet, because a Pod may be bound without the scheduler, or on stale
//! knowledge. A refused Pod fails for good.

use std::collections::HashMap;

use coracle_apimachinery::resources::{self, ResourceList};
use coracle_apimachinery::taints::{MEMORY_PRESSURE, NO_SCHEDULE, any_tolerates};
use k8s_openapi::api::core::v1::{Pod, Taint};
use parking_lot::Mutex;

use crate::eviction::pressure::Conditions;
use crate::eviction::signals::Condition;
use crate::pod;
use crate::status::Verdict;

/// What the Pods of the node ask for, and how much there is.
pub(crate) struct Admission {
    allocatable: ResourceList,
    max_pods: usize,
    admitted: Mutex<HashMap<String, ResourceList>>,
}

impl Admission {
    pub(crate) fn new(allocatable: ResourceList, max_pods: usize) -> Self {
        Self {
            allocatable,
            max_pods,
            admitted: Mutex::default(),
        }
    }

    pub(crate) fn allocatable(&self) -> &ResourceList {
        &self.allocatable
    }

    /// Takes the Pod in, or says why not. One that runs already is never refused.
    pub(crate) fn admit(&self, pod: &Pod, runs: bool) -> Result<(), Verdict> {
        let mut requests = resources::pod_requests(pod::spec(pod));
        requests.retain(|_, quantity| !quantity.is_zero());
        let mut admitted = self.admitted.lock();
        if !runs && !admitted.contains_key(pod::uid(pod)) {
            if admitted.len() >= self.max_pods {
                return Err(refusal(
                    "pods",
                    1,
                    admitted.len() as i64,
                    self.max_pods as i64,
                ));
            }
            self.fits(&requests, &admitted)?;
        }
        admitted.insert(pod::uid(pod).to_owned(), requests);
        Ok(())
    }

    /// Gives back what an ended Pod had asked for.
    pub(crate) fn release(&self, uid: &str) {
        self.admitted.lock().remove(uid);
    }

    fn fits(
        &self,
        requests: &ResourceList,
        admitted: &HashMap<String, ResourceList>,
    ) -> Result<(), Verdict> {
        for (name, wanted) in requests {
            let used = admitted.values().filter_map(|list| list.get(name));
            let used = used.fold(Default::default(), |sum, more| sum + *more);
            let capacity = self.allocatable.get(name).copied().unwrap_or_default();
            if *wanted + used > capacity {
                // Processors are counted in thousandths, everything else in whole units.
                let unit = |quantity: &coracle_apimachinery::quantity::Quantity| match name.as_str()
                {
                    "cpu" => quantity.milli_value(),
                    _ => quantity.value(),
                };
                return Err(refusal(name, unit(wanted), unit(&used), unit(&capacity)));
            }
        }
        Ok(())
    }
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

fn refusal(resource: &str, requested: i64, used: i64, capacity: i64) -> Verdict {
    Verdict {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: \
             {requested}, used: {used}, capacity: {capacity}"
        ),
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
}
