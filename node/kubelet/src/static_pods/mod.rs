//! Static Pods: what the node runs because of a file, with the API or without.
//!
//! ```text
//! folder ──manifest──► Pods that are wanted ──plan──► workers ──► what the node shows
//!                                                                       │
//!                     mirrors of the API ◄──plan────────────────────────┘
//! ```
//!
//! [`folder`] watches the files, [`manifest`] makes Pods of them, and [`plan`] says purely what is
//! to be started, ended and shown. [`StaticPods`] is told nothing by the API; what it runs is shown
//! there by [`mirrors`], objects that say what a file said and get the Pod's status. Deleting one
//! deletes what is shown, not what runs. For workers a static Pod is a Pod like any other: its UID
//! is its manifest's hash, and the status goes to its mirror (`status/publisher.rs`).
//!
//! Deliberately absent: manifests from a URL; making room for static Pods by ending others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node_context::NodeContext;
use crate::orphans;
use crate::pod;
use crate::worker::Workers;
use folder::Folders;
use plan::{Name, Running, Shown, Step};

mod folder;
mod manifest;
pub(crate) mod mirrors;
mod plan;

/// Runs what lies in the folders.
pub(crate) struct StaticPods {
    node: Arc<NodeContext>,
    workers: Workers,
    folders: Folders,
    shown: watch::Sender<Shown>,
}

impl StaticPods {
    /// The static Pods of the node, as these folders have them.
    pub(crate) fn new(node: Arc<NodeContext>, workers: Workers, folders: Vec<PathBuf>) -> Self {
        let folders = Folders::new(folders, &node.node_name);
        Self {
            node,
            workers,
            folders,
            shown: watch::Sender::default(),
        }
    }

    /// What the node has, for the mirrors.
    pub(crate) fn shown(&self) -> mirrors::Source {
        mirrors::Source(self.shown.subscribe())
    }

    /// Reads the folders, and begins what lies there.
    pub(crate) async fn begin(&mut self) {
        let wanted = self.folders.read();
        self.settle(Some(wanted)).await;
    }

    /// Follows the folders until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut ended = self.workers.ends();
        loop {
            let changed = tokio::select! {
                () = cancel.cancelled() => return,
                // Somebody ended: a Pod of the same name may wait for that.
                Ok(()) = ended.changed() => false,
                () = self.folders.changed() => true,
            };
            let wanted = changed.then(|| self.folders.read());
            self.settle(wanted).await;
        }
    }

    async fn settle(&mut self, wanted: Option<BTreeMap<Name, Arc<Pod>>>) {
        let mut shown = self.shown.borrow().clone();
        if let Some(wanted) = wanted {
            shown.wanted = wanted;
        }
        let mut gone: BTreeMap<Name, Running> = BTreeMap::new();
        shown.running.retain(|name, of| {
            let lives = self.workers.has(pod::uid(&of.pod));
            if !lives {
                gone.insert(name.clone(), of.clone());
            }
            lives
        });
        for step in plan::steps(&shown.wanted, &shown.running) {
            match step {
                Step::End(name) => {
                    if let Some(of) = shown.running.get_mut(&name) {
                        let uid = pod::uid(&of.pod);
                        of.ending = Some(self.node.publisher.wanted(uid).unwrap_or_default());
                        self.workers.removed(uid);
                    }
                }
                Step::Start(pod) => {
                    self.remove_earlier(&pod).await;
                    let name = (pod::namespace(&pod).to_owned(), pod::name(&pod).to_owned());
                    let before = gone.get(&name);
                    let before = before.filter(|of| pod::uid(&of.pod) == pod::uid(&pod));
                    let ended = before.and_then(|of| of.ending.as_ref());
                    self.workers.update(counting(&pod, ended));
                    shown.running.insert(name, Running { pod, ending: None });
                }
            }
        }
        self.shown.send_if_modified(|before| {
            let changed = before.running != shown.running || before.wanted != shown.wanted;
            *before = shown;
            changed
        });
    }

    /// Ends at once what runs of an earlier manifest of that Pod, of which an earlier agent knew.
    async fn remove_earlier(&self, pod: &Pod) {
        for uid in self.node.cache.uids() {
            let known = self.node.cache.pod(&uid);
            let is_named = known.sandboxes.iter().any(|of| {
                let config = &of.sandbox.config.pod;
                config.namespace == pod::namespace(pod) && config.name == pod::name(pod)
            });
            if is_named && uid != pod::uid(pod) && !self.workers.has(&uid) {
                orphans::remove_one(&self.node, &uid).await;
            }
        }
    }
}

/// The Pod, whose containers go on counting their restarts where it ended before with that status.
fn counting(pod: &Pod, ended: Option<&PodStatus>) -> Pod {
    let mut pod = pod.clone();
    if let (Some(status), Some(ended)) = (&mut pod.status, ended) {
        status
            .container_statuses
            .clone_from(&ended.container_statuses);
        let inits = &ended.init_container_statuses;
        status.init_container_statuses.clone_from(inits);
    }
    pod
}
