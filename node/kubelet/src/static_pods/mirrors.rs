//! Mirrors: the objects that show static Pods in the API.
//!
//! What the API has of them comes from the watch of the node's Pods ([`crate::source`]); one task
//! compares it with what runs, and creates and removes mirrors. One that was deleted, or shows what
//! an earlier manifest said, goes first, and another is made when the watch has told of that.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::{Mirror, Name, Shown, Write, shown_by, writes};
use crate::node_context::NodeContext;
use crate::pod::{self, CONFIG_MIRROR};

/// First and longest wait after a write that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Where the static Pods come from.
pub(crate) struct Source(pub(super) watch::Receiver<Shown>);

/// The mirrors of the node as the API has them; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Mirrors {
    known: Arc<Mutex<BTreeMap<Name, Mirror>>>,
    /// None until all are known; then counts changes.
    changes: Arc<watch::Sender<Option<u64>>>,
}

/// Whether an object of the API shows what a node runs by itself.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    pod::annotation(pod, CONFIG_MIRROR).is_some()
}

fn name(pod: &Pod) -> Name {
    (pod::namespace(pod).to_owned(), pod::name(pod).to_owned())
}

impl Mirrors {
    /// The API has this state of a mirror now.
    pub(crate) fn seen(&self, pod: &Pod) {
        let mirror = Mirror {
            uid: pod::uid(pod).to_owned(),
            hash: pod::annotation(pod, CONFIG_MIRROR)
                .unwrap_or_default()
                .to_owned(),
            deleted: pod::is_deleted(pod),
            status: pod::status(pod).clone(),
        };
        let before = self.known.lock().insert(name(pod), mirror.clone());
        // Every status that is sent comes back here, and is no news.
        let same = before
            .is_some_and(|before| (before.uid, before.deleted) == (mirror.uid, mirror.deleted));
        if !same {
            self.changed();
        }
    }

    /// The API has a mirror no more.
    pub(crate) fn gone(&self, pod: &Pod) {
        let mut known = self.known.lock();
        let name = name(pod);
        // Another one may have its name by now.
        if known
            .get(&name)
            .is_some_and(|mirror| mirror.uid == pod::uid(pod))
        {
            known.remove(&name);
            drop(known);
            self.changed();
        }
    }

    /// The API has no others than these.
    pub(crate) fn listed(&self, uids: &HashSet<String>) {
        self.known
            .lock()
            .retain(|_, mirror| uids.contains(&mirror.uid));
        self.changes.send_modify(|n| *n = Some(n.unwrap_or(0)));
        self.changed();
    }

    fn changed(&self) {
        // Before all are known nothing is to be done.
        self.changes.send_if_modified(|n| {
            *n = n.map(|n| n.wrapping_add(1));
            n.is_some()
        });
    }

    /// Keeps the API's mirrors to what runs until cancelled.
    pub(crate) async fn keep(&self, node: &NodeContext, source: Source, cancel: CancellationToken) {
        let Source(mut source) = source;
        let mut changes = self.changes.subscribe();
        let work = async {
            if changes.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let mut wait = RETRY.0;
            loop {
                changes.borrow_and_update();
                let shown = source.borrow_and_update().clone();
                let done = self.settle(node, &shown).await;
                let pause = wait;
                let retry = async move {
                    match done {
                        true => std::future::pending().await,
                        false => tokio::time::sleep(pause).await,
                    }
                };
                wait = if done {
                    RETRY.0
                } else {
                    (wait * 2).min(RETRY.1)
                };
                tokio::select! {
                    () = retry => {}
                    Ok(()) = changes.changed() => {}
                    Ok(()) = source.changed() => {}
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    }

    /// False if something failed that is to be tried again.
    async fn settle(&self, node: &NodeContext, shown: &Shown) -> bool {
        let known = self.known.lock().clone();
        let of_status = shown_by(shown, &known);
        let of_status = of_status.map(|(uid, mirror)| {
            let mirror = (mirror.uid.clone(), mirror.status.clone());
            (uid.to_owned(), mirror)
        });
        node.publisher.show_by(of_status.collect());
        let mut done = true;
        for write in writes(shown, &known) {
            let (what, (namespace, name)) = match &write {
                Write::Create(pod) => ("create", name(pod)),
                Write::Remove { name, .. } => ("remove", name.clone()),
            };
            let written = match write {
                Write::Create(pod) => self.create(node, &pod).await,
                Write::Remove { name, uid } => remove(node, &name, uid).await,
            };
            if let Err(error) = written {
                tracing::warn!(namespace, name, %error, "cannot {what} the mirror of a static Pod");
                done = false;
            }
        }
        done
    }

    async fn create(&self, node: &NodeContext, pod: &Pod) -> Result<(), kube::Error> {
        // The node may have been registered anew.
        let nodes: Api<Node> = Api::all(node.client.clone());
        let owner = nodes.get(&node.node_name).await?.metadata.uid;
        let pods: Api<Pod> = Api::namespaced(node.client.clone(), pod::namespace(pod));
        let mirror = mirror(pod, &node.node_name, owner.unwrap_or_default());
        let made = pods.create(&PostParams::default(), &mirror).await?;
        self.seen(&made);
        Ok(())
    }
}

/// The object that shows a static Pod.
fn mirror(pod: &Pod, node: &str, node_uid: String) -> Pod {
    let mut mirror = pod.clone();
    let metadata = &mut mirror.metadata;
    let hash = metadata.uid.take().unwrap_or_default();
    metadata
        .annotations
        .get_or_insert_default()
        .insert(CONFIG_MIRROR.to_owned(), hash);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: node_uid,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

async fn remove(node: &NodeContext, name: &Name, uid: String) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), &name.0);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(uid),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match pods.delete(&name.1, &params).await {
        // Gone, or another one: the watch tells.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}
