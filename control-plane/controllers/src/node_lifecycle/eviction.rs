//! Eviction of Pods that do not tolerate a NoExecute taint of their node, or not for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_apimachinery::taints::{NO_EXECUTE, eviction_delay};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, PACE};
use crate::error::{Error, conflict, ignore_not_found};
use crate::events::Events;
use crate::pods;
use crate::queue::{Reconcile, WorkQueue};

type Key = ObjectRef<Pod>;

/// Passes at once.
const WORKERS: usize = 8;

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let informers = &context.informers;
    let all = informers.pods.store().clone();
    context.route(&informers.nodes, &queue, move |node| {
        if evicting(node).next().is_none() {
            return Vec::new();
        }
        let name = node.name_any();
        let pods = all.state_filter(|pod| pods::node(pod) == Some(&name));
        pods.iter().map(|pod| Key::from_obj(pod)).collect()
    });
    let nodes = informers.nodes.store().clone();
    context.route(&informers.pods, &queue, move |pod| {
        let node = pods::node(pod).and_then(|name| nodes.get(&ObjectRef::new(name)));
        let concerned = node.is_some_and(|node| evicting(&node).next().is_some());
        concerned.then(|| Key::from_obj(pod)).into_iter().collect()
    });
    let controller = Arc::new(Controller {
        events: context.events.of("taint-eviction-controller"),
        since: Mutex::default(),
        context: context.clone(),
    });
    let cancel = context.cancel.clone();
    queue.run("eviction", WORKERS, cancel, controller).await;
}

struct Controller {
    context: Context,
    events: Events,
    /// Since when Pods have been threatened, by uid: for taints that do not say when they were
    /// added.
    since: Mutex<HashMap<String, Timestamp>>,
}

impl Reconcile<Key> for Controller {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.context.informers.pods.store().get(&key) else {
            return Ok(None);
        };
        let uid = pod.uid().unwrap_or_default();
        let node = pods::node(&pod).map(ObjectRef::<Node>::new);
        let node = node.and_then(|node| self.context.informers.nodes.store().get(&node));
        let taints: Vec<Taint> = node
            .iter()
            .flat_map(|node| evicting(node))
            .cloned()
            .collect();
        let now = Timestamp::now();
        let since = {
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            if taints.is_empty() || !pods::active(&pod) {
                since.remove(&uid);
                return Ok(None);
            }
            *since.entry(uid.clone()).or_insert(now)
        };
        match plan(&pod, &taints, since, now) {
            Plan::Stay => Ok(None),
            Plan::Wait(wait) => Ok(Some(wait)),
            Plan::Evict => {
                self.evict(&pod, now).await?;
                self.since
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&uid);
                Ok(None)
            }
        }
    }
}

impl Controller {
    async fn evict(&self, pod: &Pod, now: Timestamp) -> Result<(), Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &namespace);
        let name = pod.name_any();
        let text = format!("Marking for deletion Pod {namespace}/{name}");
        self.events.normal(pod, "TaintManagerEviction", text);
        let condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByTaintManager", "lastTransitionTime": Time(now),
            "message": "Taint manager: deleting due to NoExecute taint"});
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        let patch = Patch::Strategic(patch);
        let marked = api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await;
        ignore_not_found(marked).map_err(Error::api("mark a Pod for eviction"))?;
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        });
        match ignore_not_found(api.delete(&name, &params).await) {
            Ok(_) => Ok(()),
            // Another Pod has the name: the one we meant is gone.
            Err(error) if conflict(&error) => Ok(()),
            Err(error) => Err(Error::api("evict a Pod")(error)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Stay,
    Wait(Duration),
    Evict,
}

/// What becomes of a Pod under these taints, threatened `since` at the latest.
fn plan(pod: &Pod, taints: &[Taint], since: Timestamp, now: Timestamp) -> Plan {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let Some(delay) = eviction_delay(taints, tolerations.unwrap_or_default()) else {
        return Plan::Stay;
    };
    let added = taints
        .iter()
        .filter_map(|taint| taint.time_added.as_ref().map(|t| t.0))
        .max();
    let since = added.unwrap_or(since).min(now);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match delay.saturating_sub(passed) {
        Duration::ZERO => Plan::Evict,
        left => Plan::Wait(left),
    }
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_give_time() {
        let second = |s| Timestamp::from_second(s).unwrap();
        let planned = |tolerations: serde_json::Value, added: Option<i64>, now: i64| {
            let pod =
                json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let taint = Taint {
                key: "t".to_owned(),
                effect: NO_EXECUTE.to_owned(),
                time_added: added.map(|at| Time(second(at))),
                value: None,
            };
            plan(&pod, &[taint], second(100), second(now))
        };
        let tolerates = |seconds: Option<i64>| json!([{"key": "t", "operator": "Exists", "tolerationSeconds": seconds}]);
        let wait = |seconds| Plan::Wait(Duration::from_secs(seconds));
        assert_eq!(planned(json!([]), None, 100), Plan::Evict);
        assert_eq!(planned(tolerates(None), None, 9000), Plan::Stay);
        assert_eq!(planned(tolerates(Some(300)), None, 150), wait(250));
        assert_eq!(planned(tolerates(Some(300)), Some(50), 150), wait(200));
        assert_eq!(planned(tolerates(Some(300)), Some(50), 350), Plan::Evict);
        assert_eq!(planned(tolerates(Some(300)), Some(200), 150), wait(300));
    }
}
