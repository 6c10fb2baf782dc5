//! The scheduler's one task: it owns queue and cache, learns of changes, schedules, and binds in
//! the background.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, PodInfo};
use crate::framework::{Bind, ClusterEvent, Framework};
use crate::outcome::{DefaultBinder, Telling, teller};
use crate::plugins::{self, scheduling_gates::gated};
use crate::queue::Queue;
use crate::resources::{Resources, allowed_pods};
use crate::schedule::{Rotation, schedule};
use crate::{Error, SchedulerConfig};

/// Bindings under way at once. They wait for the store, which takes many writes with one sync.
const BINDINGS: usize = 256;

pub(crate) struct Scheduler {
    config: SchedulerConfig,
    framework: Framework,
    binder: Box<dyn Bind>,
    cache: Cache,
    queue: Queue,
    rotation: Rotation,
    bindings: JoinSet<Result<(), kube::Error>>,
    bound: HashMap<Id, (PodInfo, String)>,
    tellings: mpsc::Sender<Telling>,
    teller: JoinSet<()>,
}

impl Scheduler {
    pub(crate) fn new(client: Client, config: SchedulerConfig, cancel: &CancellationToken) -> Self {
        let (tellings, task) = teller(client.clone(), &config.name, cancel.clone());
        let mut teller = JoinSet::new();
        teller.spawn(task);
        Self {
            config,
            framework: plugins::default(),
            binder: Box::new(DefaultBinder { client }),
            cache: Cache::default(),
            queue: Queue::default(),
            rotation: Rotation::default(),
            bindings: JoinSet::new(),
            bound: HashMap::new(),
            tellings,
            teller,
        }
    }

    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            ready = self.config.nodes.ready.wait_for(|ready| *ready) => {
                ready.map_err(|_| Error::FeedEnded("nodes"))?;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            ready = self.config.pods.ready.wait_for(|ready| *ready) => {
                ready.map_err(|_| Error::FeedEnded("pods"))?;
            }
        }
        self.look_at_all_nodes();
        self.look_at_all_pods();
        loop {
            let due = self.queue.next_due();
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let can_schedule = self.queue.has_active() && self.bindings.len() < BINDINGS;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                node = self.config.nodes.changes.recv() => match node {
                    Ok(node) => self.node_changed(&node),
                    Err(RecvError::Lagged(_)) => self.look_at_all_nodes(),
                    Err(RecvError::Closed) => return Err(Error::FeedEnded("nodes")),
                },
                pod = self.config.pods.changes.recv() => match pod {
                    Ok(pod) => self.pod_changed(&pod),
                    Err(RecvError::Lagged(_)) => self.look_at_all_pods(),
                    Err(RecvError::Closed) => return Err(Error::FeedEnded("pods")),
                },
                Some(ended) = self.bindings.join_next_with_id() => match ended {
                    Ok((id, Ok(()))) => self.binding_done(id),
                    Ok((id, Err(error))) => self.binding_failed(id, Some(&error)),
                    Err(error) => self.binding_failed(error.id(), None),
                },
                // A turn of the runtime between Pods lets bindings start.
                () = tokio::task::yield_now(), if can_schedule => self.schedule_one(),
                () = timer => self.queue.flush(Instant::now()),
            }
        }
        self.bindings.shutdown().await;
        self.teller.shutdown().await;
        Ok(())
    }

    /// Takes the next Pod, finds its node, assumes it there and binds it in the background.
    fn schedule_one(&mut self) {
        let Some(pod) = self.queue.take(Instant::now()) else {
            return;
        };
        let nodes = self.cache.nodes();
        let chosen = schedule(&self.framework, &nodes, &pod, &mut self.rotation);
        match chosen {
            Ok(node) => {
                self.cache.assume(&pod, &node);
                let binding = self.bindings.spawn(self.binder.bind(&pod, &node));
                self.bound.insert(binding.id(), (pod, node));
            }
            Err(diagnosis) => {
                let uid = pod.pod.uid().unwrap_or_default();
                let message = diagnosis.message();
                self.queue
                    .unschedulable(&uid, diagnosis.rejected_by, Instant::now());
                self.tell(Telling::Failed {
                    pod: pod.pod,
                    reason: "Unschedulable",
                    message,
                });
            }
        }
    }

    fn binding_done(&mut self, id: Id) {
        if let Some((pod, node)) = self.bound.remove(&id) {
            self.queue.remove(&pod.pod.uid().unwrap_or_default());
            self.tell(Telling::Scheduled { pod: pod.pod, node });
        }
    }

    fn binding_failed(&mut self, id: Id, error: Option<&kube::Error>) {
        let Some((pod, node)) = self.bound.remove(&id) else {
            return;
        };
        let uid = pod.pod.uid().unwrap_or_default();
        if self.cache.assumes(&uid) {
            self.cache.remove_pod(&uid);
        }
        // Gone, or given a node by somebody else: its feed tells the rest.
        if matches!(error, Some(kube::Error::Api(s)) if s.is_not_found()) {
            return self.queue.remove(&uid);
        }
        let message =
            error.map_or_else(|| "the binding was aborted".to_owned(), ToString::to_string);
        tracing::warn!(pod = %pod.pod.name_any(), node, error = message, "binding failed, will retry");
        self.queue.failed(&uid, Instant::now());
        self.wake(ClusterEvent::PodRemoved);
        self.tell(Telling::Failed {
            pod: pod.pod,
            reason: "SchedulerError",
            message: format!("binding rejected: {message}"),
        });
    }

    fn pod_changed(&mut self, hint: &Arc<Pod>) {
        let key = ObjectRef::from_obj(&**hint);
        let pod = self.config.pods.store.get(&key);
        if pod.as_ref().is_none_or(|pod| pod.uid() != hint.uid()) {
            self.pod_gone(&hint.uid().unwrap_or_default());
        }
        if let Some(pod) = pod {
            self.pod_present(pod);
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.cache.remove_pod(uid) {
            self.wake(ClusterEvent::PodRemoved);
        }
    }

    fn pod_present(&mut self, pod: Arc<Pod>) {
        let uid = pod.uid().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let node = spec
            .and_then(|spec| spec.node_name.as_deref())
            .filter(|node| !node.is_empty());
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.pod_gone(&uid);
        }
        if let Some(node) = node {
            self.queue.remove(&uid);
            return self.cache.confirm(&pod, node);
        }
        let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let ours = scheduler.unwrap_or(crate::DEFAULT_NAME) == self.config.name;
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(&uid);
        } else if !self.cache.assumes(&uid) {
            let gated = gated(&pod);
            self.queue.add(pod, gated, Instant::now());
        }
    }

    fn node_changed(&mut self, hint: &Arc<Node>) {
        match self.config.nodes.store.get(&ObjectRef::from_obj(&**hint)) {
            Some(node) => self.node_present(node),
            None => self.cache.remove_node(&hint.name_any()),
        }
    }

    fn node_present(&mut self, node: Arc<Node>) {
        let old = self.cache.set_node(node.clone());
        for event in events(old.as_deref(), &node) {
            self.wake(event);
        }
    }

    fn look_at_all_nodes(&mut self) {
        let nodes = self.config.nodes.store.state();
        let names: HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        self.cache.retain_nodes(&names);
        nodes.into_iter().for_each(|node| self.node_present(node));
    }

    fn look_at_all_pods(&mut self) {
        let pods = self.config.pods.store.state();
        let present: HashSet<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
        let known = self.cache.placed().into_iter().chain(self.queue.uids());
        let gone: Vec<String> = known.filter(|uid| !present.contains(uid)).collect();
        gone.iter().for_each(|uid| self.pod_gone(uid));
        pods.into_iter().for_each(|pod| self.pod_present(pod));
    }

    fn wake(&mut self, event: ClusterEvent) {
        let framework = &self.framework;
        self.queue.event(
            |rejected_by| framework.wakes(rejected_by, event),
            Instant::now(),
        );
    }

    fn tell(&self, telling: Telling) {
        if let Err(error) = self.tellings.try_send(telling) {
            tracing::debug!(%error, "an event was dropped");
        }
    }
}

/// What a new form of a node means to Pods that found none.
fn events(old: Option<&Node>, new: &Node) -> Vec<ClusterEvent> {
    let Some(old) = old else {
        return vec![ClusterEvent::NodeAdded];
    };
    let spec = |node: &Node| {
        let spec = node.spec.as_ref();
        spec.map(|spec| (spec.taints.clone(), spec.unschedulable))
    };
    let room = |node: &Node| (Resources::allocatable(node), allowed_pods(node));
    let mut events = Vec::new();
    if old.metadata.labels != new.metadata.labels {
        events.push(ClusterEvent::NodeLabelsChanged);
    }
    if spec(old) != spec(new) {
        events.push(ClusterEvent::NodeTaintsChanged);
    }
    if room(old) != room(new) {
        events.push(ClusterEvent::NodeAllocatableChanged);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::node;
    use serde_json::json;

    #[test]
    fn node_events() {
        let plain = node("n", json!({}));
        let heartbeat = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let table = [
            (heartbeat, vec![]),
            (
                json!({"spec": {"unschedulable": true}}),
                vec![ClusterEvent::NodeTaintsChanged],
            ),
            (
                json!({"metadata": {"labels": {"a": "b"}}}),
                vec![ClusterEvent::NodeLabelsChanged],
            ),
            (
                json!({"status": {"allocatable": {"cpu": "8"}}}),
                vec![ClusterEvent::NodeAllocatableChanged],
            ),
        ];
        for (change, expected) in table {
            assert_eq!(
                events(Some(&plain), &node("n", change.clone())),
                expected,
                "{change}"
            );
        }
        assert_eq!(events(None, &plain), [ClusterEvent::NodeAdded]);
    }
}
