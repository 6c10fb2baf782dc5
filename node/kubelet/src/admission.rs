//! Which Pods the node takes.
//!
//! The scheduler decides where a Pod runs; the node refuses what it cannot run, with the
//! reasons of the kubelet, because a Pod may be bound without the scheduler, or on stale
//! knowledge. A refused Pod fails for good.

use std::collections::HashMap;

use coracle_apimachinery::host_ports::{self, HostPort, TAKEN};
use coracle_apimachinery::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::pod;
use crate::status::Verdict;

/// What a Pod asks for.
struct Asked {
    requests: ResourceList,
    ports: Vec<HostPort>,
}

/// What the Pods of the node ask for, and how much there is.
pub(crate) struct Admission {
    allocatable: ResourceList,
    max_pods: usize,
    admitted: Mutex<HashMap<String, Asked>>,
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
        let ports = host_ports::of(pod::spec(pod));
        let asked = Asked { requests, ports };
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
            are_free(&asked.ports, &admitted)?;
            self.fits(&asked.requests, &admitted)?;
        }
        admitted.insert(pod::uid(pod).to_owned(), asked);
        Ok(())
    }

    /// Gives back what an ended Pod had asked for.
    pub(crate) fn release(&self, uid: &str) {
        self.admitted.lock().remove(uid);
    }

    fn fits(
        &self,
        requests: &ResourceList,
        admitted: &HashMap<String, Asked>,
    ) -> Result<(), Verdict> {
        for (name, wanted) in requests {
            let used = admitted.values().filter_map(|of| of.requests.get(name));
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

fn are_free(ports: &[HostPort], admitted: &HashMap<String, Asked>) -> Result<(), Verdict> {
    let mut held = admitted.values().flat_map(|of| &of.ports);
    if held.any(|held| ports.iter().any(|port| port.conflicts(held))) {
        return Err(Verdict {
            reason: "NodePorts".to_owned(),
            message: format!("Pod was rejected: Predicate NodePorts failed: {TAKEN}"),
        });
    }
    Ok(())
}

fn refusal(resource: &str, requested: i64, used: i64, capacity: i64) -> Verdict {
    Verdict {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: \
             {requested}, used: {used}, capacity: {capacity}"
        ),
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
        for uid in ["a", "b"] {
            admission.release(uid);
        }
        admission.admit(&asking("c", ""), false).unwrap();
    }
}
