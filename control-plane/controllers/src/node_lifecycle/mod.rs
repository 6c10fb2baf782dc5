//! Whether nodes are alive, and what follows when they are not.
//!
//! A node lives as long as its Lease (or its status) is renewed. When it is not for the grace
//! period, its conditions become Unknown ([`health`]) and its Pods stop being Ready, so that no
//! Service sends to them; conditions become taints ([`taints`]); and Pods that do not tolerate a
//! NoExecute taint are evicted, those that tolerate it for a time after that ([`eviction`]).
//!
//! Should no node at all be heard of, it is rather this control plane that is cut off: nobody is
//! evicted then.

pub(crate) mod eviction;
mod health;
mod taints;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, PACE, Writes};
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::informer::revision_of;
use crate::queue::{Reconcile, WorkQueue};
use health::{Heartbeat, judge};

type Key = ObjectRef<Node>;

/// Passes at once.
const WORKERS: usize = 8;
/// The namespace of the Leases by which nodes show that they live.
const LEASES: &str = "kube-node-lease";

/// How patient the controller is.
#[derive(Clone, Copy, Debug)]
pub struct NodeTimes {
    /// Between looks at a node that nothing is heard of.
    pub monitor_period: Duration,
    /// How long a node may be silent.
    pub monitor_grace_period: Duration,
    /// How long a node may be silent that has never said anything.
    pub startup_grace_period: Duration,
}

impl Default for NodeTimes {
    fn default() -> Self {
        Self {
            monitor_period: Duration::from_secs(5),
            monitor_grace_period: Duration::from_secs(40),
            startup_grace_period: Duration::from_secs(60),
        }
    }
}

pub(crate) async fn run(context: Context, times: NodeTimes) {
    let queue = WorkQueue::new(PACE);
    context.route(&context.informers.nodes, &queue, |node| {
        vec![Key::from_obj(node)]
    });
    let controller = Arc::new(Controller {
        events: context.events.of("node-controller"),
        heartbeats: Mutex::default(),
        writes: Writes::new(),
        context: context.clone(),
        times,
    });
    let cancel = context.cancel.clone();
    queue
        .run("nodelifecycle", WORKERS, cancel, controller)
        .await;
}

struct Controller {
    context: Context,
    events: Events,
    times: NodeTimes,
    /// When each node was last heard of, by uid; by this process' clock, for nodes' clocks differ.
    heartbeats: Mutex<HashMap<String, Heartbeat>>,
    writes: Writes<Key>,
}

impl Reconcile<Key> for Controller {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let nodes = &self.context.informers.nodes;
        if let Err(wait) = self.writes.shown(&key, nodes.revision()) {
            return Ok(Some(wait.min(self.times.monitor_period)));
        }
        let Some(node) = nodes.store().get(&key) else {
            self.forget_gone();
            return Ok(None);
        };
        let now = Timestamp::now();
        let lease = ObjectRef::<Lease>::new(&key.name).within(LEASES);
        let lease = self.context.informers.leases.store().get(&lease);
        let silence = self.heard(&node, lease.as_deref(), now);
        let verdict = judge(&node, silence, self.times, now);
        if let Some(conditions) = verdict.unknown {
            let patch = json!({"status": {"conditions": conditions}});
            let api: Api<Node> = Api::all(self.context.client.clone());
            let params = PatchParams::default();
            let patched = api
                .patch_status(&key.name, &params, &Patch::Strategic(patch))
                .await;
            let patched = patched.map_err(Error::api("update the conditions of a node"))?;
            self.writes.wrote(&key, revision_of(&patched));
            let text = format!("Node {} status is now: NodeNotReady", key.name);
            self.events.normal(&*node, "NodeNotReady", text);
            // The next pass, once the cache shows this, draws the consequences.
            return Ok(Some(self.times.monitor_period));
        }
        self.set_taints(&key, &node, now).await?;
        if health::is_silent(&node) {
            self.mark_pods_not_ready(&key.name, now).await?;
        }
        Ok(Some(verdict.next_look))
    }
}

impl Controller {
    /// Takes note of what a node shows, and says for how long it has shown nothing new.
    fn heard(&self, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Duration {
        let uid = node.uid().unwrap_or_default();
        let mut heartbeats = self
            .heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let heartbeat = heartbeats.entry(uid).or_insert_with(|| Heartbeat::new(now));
        heartbeat.hear(node, lease, now)
    }

    fn forget_gone(&self) {
        let nodes = self.context.informers.nodes.store().state();
        let present: std::collections::HashSet<_> = nodes.iter().filter_map(|n| n.uid()).collect();
        let mut heartbeats = self
            .heartbeats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        heartbeats.retain(|uid, _| present.contains(uid));
    }

    async fn set_taints(&self, key: &Key, node: &Node, now: Timestamp) -> Result<(), Error> {
        let all = self.context.informers.nodes.store().state();
        let evict = taints::may_evict(&all);
        let Some(taints) = taints::plan(node, evict, now) else {
            return Ok(());
        };
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": (!taints.is_empty()).then_some(taints)},
        });
        let api: Api<Node> = Api::all(self.context.client.clone());
        let patched = api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        let patched = ignore_not_found(patched).map_err(Error::api("taint a node"))?;
        if let Some(node) = patched {
            self.writes.wrote(key, revision_of(&node));
        }
        Ok(())
    }

    /// Nobody can tell whether Pods of a silent node work: they count as not ready.
    async fn mark_pods_not_ready(&self, node: &str, now: Timestamp) -> Result<(), Error> {
        let pods =
            self.context.informers.pods.store().state_filter(|pod| {
                crate::pods::node(pod) == Some(node) && crate::pods::ready(pod)
            });
        for pod in pods {
            let condition = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady",
                "message": null, "lastTransitionTime": Time(now)});
            let patch =
                json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
            let namespace = pod.namespace().unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &namespace);
            let params = PatchParams::default();
            let patched = api
                .patch_status(&pod.name_any(), &params, &Patch::Strategic(patch))
                .await;
            ignore_not_found(patched).map_err(Error::api("mark a Pod as not ready"))?;
            self.events
                .warning(&*pod, "NodeNotReady", "Node is not ready".to_owned());
        }
        Ok(())
    }
}
