//! What the runtimes of the node have, by Pod.
//!
//! Workers read their Pod here and note what their own verbs did; [`RuntimeCache::watch`]
//! follows the events of the runtimes, and lists everything at start, when a sandbox changes,
//! and at times, because an event may be lost. So one list serves all Pods, and the start of
//! a Pod needs none.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, Result, RuntimeEvent, RuntimeService, SandboxId};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::containers::observed::PodRuntime;
use crate::router::Router;

/// How often everything is listed in case that an event was lost.
const RELIST: Duration = Duration::from_secs(30);
/// Changes of sandboxes are gathered for this long before a list.
const GATHER: Duration = Duration::from_millis(50);

/// The cache; clones share it.
#[derive(Clone)]
pub(crate) struct RuntimeCache {
    router: Router,
    pods: Arc<Mutex<HashMap<String, Arc<PodRuntime>>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl RuntimeCache {
    pub(crate) fn new(router: Router) -> Self {
        Self {
            router,
            pods: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// What is known of a Pod.
    pub(crate) fn pod(&self, uid: &str) -> Arc<PodRuntime> {
        self.pods.lock().get(uid).cloned().unwrap_or_default()
    }

    /// UIDs of all Pods of which a runtime has something.
    pub(crate) fn uids(&self) -> BTreeSet<String> {
        self.pods.lock().keys().cloned().collect()
    }

    /// Digests of the images of all containers, and of those that are their volumes; of those that
    /// have ended too.
    pub(crate) fn image_digests(&self) -> HashSet<String> {
        let pods = self.pods.lock();
        let digests = pods.values().flat_map(|pod| pod.image_digests());
        digests.map(str::to_owned).collect()
    }

    /// Sees every change, of any Pod.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Changes what is known of a Pod; true if that was news.
    pub(crate) fn update(&self, uid: &str, change: impl FnOnce(&mut PodRuntime)) -> bool {
        let mut pods = self.pods.lock();
        let known = pods.entry(uid.to_owned()).or_default();
        let before = known.clone();
        change(Arc::make_mut(known));
        let (news, empty) = (before != *known, known.is_empty());
        if empty {
            pods.remove(uid);
        }
        if news {
            self.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
        news
    }

    /// Asks a runtime about one container and notes the answer.
    pub(crate) async fn refresh(
        &self,
        runtime: &dyn RuntimeService,
        uid: &str,
        id: &ContainerId,
    ) -> Result<bool> {
        let name = runtime.name();
        match runtime.container_status(id).await {
            Ok(container) => Ok(self.update(uid, |pod| pod.put_container(name, container))),
            Err(coracle_runtime::Error::NotFound { .. }) => {
                Ok(self.update(uid, |pod| pod.forget_container(id)))
            }
            Err(error) => Err(error),
        }
    }

    /// Lists everything; the UIDs of Pods of which something changed.
    pub(crate) async fn relist(&self) -> Result<Vec<String>> {
        let mut changed = Vec::new();
        for runtime in self.router.all() {
            changed.extend(self.relist_one(runtime.as_ref()).await?);
        }
        Ok(changed)
    }

    async fn relist_one(&self, runtime: &dyn RuntimeService) -> Result<Vec<String>> {
        let name = runtime.name();
        let before: HashSet<(String, String)> = self.ids(name);
        let sandboxes = runtime.list_pod_sandboxes().await?;
        let containers = runtime.list_containers().await?;
        let mut seen = HashSet::new();
        let mut changed = BTreeSet::new();
        for sandbox in sandboxes {
            let uid = sandbox.config.pod.uid.clone();
            seen.insert((uid.clone(), sandbox.id.0.clone()));
            if self.update(&uid, |pod| pod.put_sandbox(name, sandbox)) {
                changed.insert(uid);
            }
        }
        for container in containers {
            let uid = container.pod.uid.clone();
            seen.insert((uid.clone(), container.id.0.clone()));
            if self.update(&uid, |pod| pod.put_container(name, container)) {
                changed.insert(uid);
            }
        }
        // Only what was known before the list can be missed in it.
        for (uid, id) in before.difference(&seen) {
            let forget = |pod: &mut PodRuntime| {
                pod.forget_container(&ContainerId(id.clone()));
                pod.forget_sandbox(&SandboxId(id.clone()));
            };
            if self.update(uid, forget) {
                changed.insert(uid.clone());
            }
        }
        Ok(changed.into_iter().collect())
    }

    fn ids(&self, runtime: &str) -> HashSet<(String, String)> {
        let mut ids = HashSet::new();
        for (uid, pod) in self.pods.lock().iter() {
            for of in pod.sandboxes.iter().filter(|of| of.runtime == runtime) {
                ids.insert((uid.clone(), of.sandbox.id.0.clone()));
            }
            for of in pod.containers.iter().filter(|of| of.runtime == runtime) {
                ids.insert((uid.clone(), of.container.id.0.clone()));
            }
        }
        ids
    }

    /// Follows one runtime until cancelled. `wake` is told the UID of every Pod of which
    /// something changed, `listeners` when the set of listeners did.
    pub(crate) async fn watch(
        &self,
        runtime: Arc<dyn RuntimeService>,
        wake: impl Fn(&str),
        listeners: impl Fn(),
        cancel: CancellationToken,
    ) {
        let mut events = runtime.events();
        let mut relist = tokio::time::interval_at(tokio::time::Instant::now() + RELIST, RELIST);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut gather: Option<tokio::time::Instant> = None;
        loop {
            let due = gather.unwrap_or_else(|| tokio::time::Instant::now() + RELIST);
            tokio::select! {
                () = cancel.cancelled() => return,
                event = events.next() => match event {
                    None => return,
                    Some(RuntimeEvent::Listeners) => listeners(),
                    Some(RuntimeEvent::Sandbox { .. }) => {
                        gather.get_or_insert_with(|| tokio::time::Instant::now() + GATHER);
                    }
                    Some(RuntimeEvent::Container { pod_uid, id }) => {
                        match self.refresh(runtime.as_ref(), &pod_uid, &id).await {
                            // Also where nothing is news here: a worker that saw the end of
                            // what it had just started has not acted on it yet.
                            Ok(_) => wake(&pod_uid),
                            Err(error) => tracing::warn!(%error, container = id.0,
                                "cannot look at a container"),
                        }
                    }
                },
                () = tokio::time::sleep_until(due), if gather.is_some() => {
                    gather = None;
                    self.relist_and_wake(runtime.as_ref(), &wake).await;
                }
                _ = relist.tick() => {
                    self.relist_and_wake(runtime.as_ref(), &wake).await;
                    listeners();
                }
            }
        }
    }

    async fn relist_and_wake(&self, runtime: &dyn RuntimeService, wake: &impl Fn(&str)) {
        match self.relist_one(runtime).await {
            Ok(changed) => changed.iter().for_each(|uid| wake(uid)),
            Err(error) => tracing::warn!(%error, runtime = runtime.name(), "cannot list Pods"),
        }
    }
}
