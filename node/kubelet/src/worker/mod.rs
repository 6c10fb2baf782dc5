//! One worker per Pod UID.
//!
//! [`Workers`] owns the tasks and hands updates to them; a worker owns everything about its
//! Pod and is the only one that acts on it. Files: [`state`] is the state machine, [`inbox`]
//! what a worker is told, [`run`] its loop, [`admit`] whether the node takes the Pod, [`resize`] what
//! becomes of changed resources, [`attach`] how the Pod comes into the network, [`sync`] the I/O
//! while the Pod lives, and [`terminate`] the end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::node_context::NodeContext;
use crate::pod;
use crate::status::Verdict;

mod admit;
mod attach;
pub(crate) mod inbox;
mod memory;
mod probing;
pub(crate) mod resize;
mod run;
pub(crate) mod state;
mod sync;
mod terminate;

use inbox::Handle;

/// All workers of the node; clones share them.
#[derive(Clone)]
pub(crate) struct Workers {
    node: Arc<NodeContext>,
    handles: Arc<Mutex<HashMap<String, Arc<Handle>>>>,
    /// The node is being shut down: Pods that have ended are not begun anew.
    draining: Arc<AtomicBool>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// Counts workers that have ended.
    ended: Arc<watch::Sender<u64>>,
}

impl Workers {
    /// No workers yet. They all end when `cancel` does, and let their Pods run on.
    pub(crate) fn new(node: Arc<NodeContext>, cancel: CancellationToken) -> Self {
        Self {
            node,
            handles: Arc::default(),
            draining: Arc::default(),
            tasks: TaskTracker::new(),
            cancel,
            ended: Arc::default(),
        }
    }

    /// The API has this state of a Pod now.
    pub(crate) fn update(&self, pod: Pod) {
        let uid = pod::uid(&pod).to_owned();
        if uid.is_empty() {
            return;
        }
        self.node.publisher.seen(&pod);
        let pod = Arc::new(pod);
        let mut handles = self.handles.lock();
        match handles.get(&uid) {
            Some(handle) => handle.update(pod),
            None if self.draining.load(Ordering::SeqCst) => {}
            None => {
                let (handle, inbox) = Handle::new(pod);
                let handle = Arc::new(handle);
                handles.insert(uid.clone(), handle.clone());
                let worker = run::Worker::new(self.clone(), handle, inbox);
                let (this, cancel) = (self.clone(), self.cancel.clone());
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = worker.run() => {}
                    }
                    this.handles.lock().remove(&uid);
                    this.ended.send_modify(|n| *n = n.wrapping_add(1));
                });
            }
        }
    }

    /// The API has this state of what shows a static Pod.
    pub(crate) fn mirrored(&self, mirror: &Pod) {
        self.node.publisher.seen(mirror);
    }

    /// The API has the Pod no more.
    pub(crate) fn removed(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.removed();
        }
    }

    /// Something of the Pod changed on the node.
    pub(crate) fn hint(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.hint();
        }
    }

    /// Whether the Pod has a worker.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.handles.lock().contains_key(uid)
    }

    /// Sees when a worker ends.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// UIDs of Pods that have a worker.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.handles.lock().keys().cloned().collect()
    }

    /// The Pods as the API had them last.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.handles
            .lock()
            .values()
            .map(|handle| handle.pod())
            .collect()
    }

    /// Those of them that have not ended and were not asked to.
    pub(crate) fn living(&self) -> Vec<Arc<Pod>> {
        let handles = self.handles.lock();
        let living = handles.values().filter(|handle| handle.lives());
        living.map(|handle| handle.pod()).collect()
    }

    /// UIDs of the others.
    pub(crate) fn ending(&self) -> HashSet<String> {
        let handles = self.handles.lock();
        let ending = handles.iter().filter(|(_, handle)| !handle.lives());
        ending.map(|(uid, _)| uid.clone()).collect()
    }

    /// Has containers and logs removed of Pods that have ended and whose objects stay: their UIDs.
    pub(crate) fn reclaim(&self) -> Vec<String> {
        let handles = self.handles.lock();
        let ended = handles.iter().filter(|(_, handle)| handle.reclaim());
        ended.map(|(uid, _)| uid.clone()).collect()
    }

    /// Ends a Pod for good with that verdict; true unless it ends already.
    pub(crate) fn evict(&self, uid: &str, verdict: Verdict, grace: Duration) -> bool {
        let handle = self.handles.lock().get(uid).cloned();
        handle.is_some_and(|handle| handle.evict(verdict, grace))
    }

    /// Ends a Pod within that time, with that verdict unless it ends already.
    pub(crate) fn end_within(&self, uid: &str, verdict: Verdict, grace: Duration) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.end_within(verdict, grace);
        }
    }

    /// Waits until nothing of a Pod runs any more, and that was told.
    pub(crate) async fn over(&self, uid: &str) {
        let over = self.handles.lock().get(uid).map(|handle| handle.over());
        if let Some(mut over) = over {
            // An error says that its worker is gone.
            let _ = over.wait_for(|over| *over).await;
        }
    }

    /// The Pod of that name.
    pub(crate) fn pod_named(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let named = |pod: &Arc<Pod>| pod::namespace(pod) == namespace && pod::name(pod) == name;
        self.pods().into_iter().find(named)
    }

    /// Ends the Pods that `select` takes, within `grace`, and waits for it. No Pod begins
    /// after this.
    pub(crate) async fn shut_down(&self, grace: Duration, select: impl Fn(&Pod) -> bool) {
        self.draining.store(true, Ordering::SeqCst);
        let wanted: Vec<String> = {
            let handles = self.handles.lock();
            let selected = handles.iter().filter(|(_, handle)| select(&handle.pod()));
            selected
                .map(|(uid, handle)| {
                    handle.shutdown(grace);
                    uid.clone()
                })
                .collect()
        };
        let mut ended = self.ended.subscribe();
        loop {
            let left = {
                let handles = self.handles.lock();
                wanted.iter().any(|uid| handles.contains_key(uid))
            };
            if !left {
                return;
            }
            // The sender lives as long as this value.
            let _ = ended.changed().await;
        }
    }

    /// Waits until all tasks have ended, after they were cancelled.
    pub(crate) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
