//! The ReplicaSet controller: as many Pods as asked for.
//!
//! One pass reads the caches, asks [`plan`] what to do, does it, and writes the status. Pods are
//! created in batches that double, so that a template which no Pod can be made from costs one
//! refused request and not hundreds.
//!
//! State of its own: which of its writes the Pod cache does not show yet ([`Writes`]), and which
//! Pods it deleted that the cache still shows as active.

mod plan;
mod rank;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_apimachinery::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::context::{Context, PACE, Writes};
use crate::error::{Error, already_exists, ignore_not_found, message, namespace_terminating};
use crate::events::Events;
use crate::informer::revision_of;
use crate::owners::{adoption, controlled_by, controller_of, release};
use crate::queue::{Reconcile, WorkQueue};
use plan::{Action, Observed, plan, pod_from, status};

type Key = ObjectRef<ReplicaSet>;

/// Passes at once.
const WORKERS: usize = 8;

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let controller = Arc::new(Controller::new(context.clone()));
    context.route(&context.informers.replica_sets, &queue, |set| {
        vec![Key::from_obj(set)]
    });
    let sets = context.informers.replica_sets.store().clone();
    context.route(
        &context.informers.pods,
        &queue,
        move |pod| match controller_of(&pod.metadata) {
            Some(owner) => {
                let namespace = pod.namespace();
                let key = Key::from_owner_ref(namespace.as_deref(), owner, ());
                key.into_iter().collect()
            }
            None => {
                let might_adopt = |set: &ReplicaSet| {
                    set.namespace() == pod.namespace()
                        && selector(set).is_ok_and(|s| s.matches(pod.labels()))
                };
                let sets = sets.state_filter(might_adopt);
                sets.iter().map(|set| Key::from_obj(set)).collect()
            }
        },
    );
    let cancel = context.cancel.clone();
    queue.run("replicaset", WORKERS, cancel, controller).await;
}

struct Controller {
    context: Context,
    events: Events,
    /// Pods created, adopted or released.
    pod_writes: Writes<Key>,
    /// Status of the set itself.
    set_writes: Writes<Key>,
    /// Pods deleted by us that the cache may still show as active, by uid.
    doomed: Mutex<HashMap<Key, HashSet<String>>>,
}

impl Reconcile<Key> for Controller {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let informers = &self.context.informers;
        for (writes, revision) in [
            (&self.set_writes, informers.replica_sets.revision()),
            (&self.pod_writes, informers.pods.revision()),
        ] {
            if let Err(wait) = writes.shown(&key, revision) {
                return Ok(Some(wait));
            }
        }
        let Some(set) = informers.replica_sets.store().get(&key) else {
            self.doomed().remove(&key);
            return Ok(None);
        };
        let selector = selector(&set)?;
        let pods = self.pods(&set, &selector);
        let doomed = self.still_doomed(&key, &pods);
        let related = self.related_per_node(&set);
        let now = Timestamp::now();
        let observed = Observed {
            set: &set,
            selector: &selector,
            pods: &pods,
            doomed: &doomed,
            related: &related,
            now,
        };
        let failure = self.apply(&key, &set, plan(&observed)).await;
        self.write_status(&key, &set, status(&observed, failure.as_ref().err()))
            .await?;
        match failure {
            Ok(()) => Ok(plan::next_change(&observed)),
            Err(failure) => Err(Error::Object(failure.message)),
        }
    }
}

impl Controller {
    fn new(context: Context) -> Self {
        let events = context.events.of("replicaset-controller");
        Self {
            context,
            events,
            pod_writes: Writes::new(),
            set_writes: Writes::new(),
            doomed: Mutex::default(),
        }
    }

    /// Pods that are the set's, or that it might adopt.
    fn pods(&self, set: &ReplicaSet, selector: &Selector) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref();
        let namespace = &set.metadata.namespace;
        self.context.informers.pods.store().state_filter(|pod| {
            pod.metadata.namespace == *namespace
                && (controlled_by(&pod.metadata, uid)
                    || controller_of(&pod.metadata).is_none() && selector.matches(pod.labels()))
        })
    }

    /// How many active Pods of this set and its siblings each node has.
    fn related_per_node(&self, set: &ReplicaSet) -> HashMap<String, usize> {
        let informers = &self.context.informers;
        let namespace = &set.metadata.namespace;
        let parent = controller_of(&set.metadata).map(|o| o.uid.clone());
        let family: HashSet<_> = informers
            .replica_sets
            .store()
            .state_filter(|other| {
                other.metadata.uid == set.metadata.uid
                    || other.metadata.namespace == *namespace
                        && controlled_by(&other.metadata, parent.as_deref())
            })
            .iter()
            .filter_map(|set| set.metadata.uid.clone())
            .collect();
        let pods = informers.pods.store().state_filter(|pod| {
            pod.metadata.namespace == *namespace
                && crate::pods::active(pod)
                && controller_of(&pod.metadata).is_some_and(|o| family.contains(&o.uid))
        });
        let mut counts = HashMap::new();
        for node in pods.iter().filter_map(|pod| crate::pods::node(pod)) {
            *counts.entry(node.to_owned()).or_default() += 1;
        }
        counts
    }

    async fn apply(
        &self,
        key: &Key,
        set: &Arc<ReplicaSet>,
        actions: Vec<Action>,
    ) -> Result<(), Failure> {
        let api = self.api(set);
        let mut delete = JoinSet::new();
        for action in actions {
            match action {
                Action::Adopt(pod) => self.adopt(key, set, &api, &pod).await?,
                Action::Release(pod) => {
                    let patch = Patch::Strategic(release(&**set, pod.metadata.uid.as_deref()));
                    let params = PatchParams::default();
                    let released = api.patch(&pod.name_any(), &params, &patch).await;
                    if let Some(pod) = ignore_not_found(released).map_err(Failure::pods)? {
                        self.pod_writes.wrote(key, revision_of(&pod));
                    }
                }
                Action::Create(count) => self.create(key, set, &api, count).await?,
                Action::Delete(pod) => {
                    self.doomed()
                        .entry(key.clone())
                        .or_default()
                        .extend(pod.uid());
                    let api = api.clone();
                    delete.spawn(async move {
                        let params = DeleteParams::default().preconditions(Preconditions {
                            uid: pod.uid(),
                            resource_version: None,
                        });
                        let deleted = api.delete(&pod.name_any(), &params).await;
                        (pod, ignore_not_found(deleted).map(drop))
                    });
                }
            }
        }
        self.finish_deletes(key, set, delete).await
    }

    /// Adopts only after asking the API server whether the set still is what the cache says.
    async fn adopt(
        &self,
        key: &Key,
        set: &ReplicaSet,
        api: &Api<Pod>,
        pod: &Pod,
    ) -> Result<(), Failure> {
        let sets: Api<ReplicaSet> = Api::namespaced(self.context.client.clone(), &namespace(set));
        let live = sets.get(&set.name_any()).await.map_err(Failure::pods)?;
        if live.uid() != set.uid() || live.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let patch = Patch::Strategic(adoption(set, pod.metadata.uid.as_deref()));
        let adopted = api
            .patch(&pod.name_any(), &PatchParams::default(), &patch)
            .await;
        if let Some(pod) = ignore_not_found(adopted).map_err(Failure::pods)? {
            self.pod_writes.wrote(key, revision_of(&pod));
        }
        Ok(())
    }

    /// Creates `count` Pods in batches of 1, 2, 4, …; the first batch with a failure is the last.
    async fn create(
        &self,
        key: &Key,
        set: &ReplicaSet,
        api: &Api<Pod>,
        count: usize,
    ) -> Result<(), Failure> {
        let pod = Arc::new(pod_from(set));
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let mut creates = JoinSet::new();
            for _ in 0..batch.min(left) {
                let (api, pod) = (api.clone(), pod.clone());
                creates.spawn(async move { api.create(&PostParams::default(), &pod).await });
            }
            left -= batch.min(left);
            batch *= 2;
            let mut failure = None;
            while let Some(created) = creates.join_next().await {
                match created {
                    Ok(Ok(pod)) => {
                        self.pod_writes.wrote(key, revision_of(&pod));
                        let message = format!("Created pod: {}", pod.name_any());
                        self.events.normal(set, "SuccessfulCreate", message);
                    }
                    Ok(Err(error)) if namespace_terminating(&error) => return Ok(()),
                    // Two random names were equal: the next pass makes up for it.
                    Ok(Err(error)) if already_exists(&error) => {}
                    Ok(Err(error)) => {
                        let text = format!("Error creating: {}", message(&error));
                        self.events.warning(set, "FailedCreate", text);
                        failure = Some(Failure {
                            reason: "FailedCreate",
                            message: message(&error),
                        });
                    }
                    Err(_) => {}
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn finish_deletes(
        &self,
        key: &Key,
        set: &ReplicaSet,
        mut delete: JoinSet<(Arc<Pod>, Result<(), kube::Error>)>,
    ) -> Result<(), Failure> {
        let mut failure = None;
        while let Some(deleted) = delete.join_next().await {
            match deleted {
                Ok((pod, Ok(()))) => {
                    let text = format!("Deleted pod: {}", pod.name_any());
                    self.events.normal(set, "SuccessfulDelete", text);
                }
                Ok((pod, Err(error))) => {
                    let uid = pod.uid().unwrap_or_default();
                    self.doomed().entry(key.clone()).or_default().remove(&uid);
                    let text = format!("Error deleting: {}", message(&error));
                    self.events.warning(set, "FailedDelete", text);
                    failure = Some(Failure {
                        reason: "FailedDelete",
                        message: message(&error),
                    });
                }
                Err(_) => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn write_status(
        &self,
        key: &Key,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut update = set.clone();
        update.status = Some(status);
        let api: Api<ReplicaSet> = Api::namespaced(self.context.client.clone(), &namespace(set));
        let written = api
            .replace_status(&set.name_any(), &PostParams::default(), &update)
            .await;
        let written =
            ignore_not_found(written).map_err(Error::api("update the status of a ReplicaSet"))?;
        if let Some(set) = written {
            self.set_writes.wrote(key, revision_of(&set));
        }
        Ok(())
    }

    /// Pods deleted by us that the cache still shows as active.
    fn still_doomed(&self, key: &Key, pods: &[Arc<Pod>]) -> HashSet<String> {
        let mut all = self.doomed();
        let Some(doomed) = all.get_mut(key) else {
            return HashSet::new();
        };
        let shown: HashSet<_> = pods
            .iter()
            .filter(|pod| crate::pods::active(pod))
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        doomed.retain(|uid| shown.contains(uid.as_str()));
        doomed.clone()
    }

    fn doomed(&self) -> std::sync::MutexGuard<'_, HashMap<Key, HashSet<String>>> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, set: &ReplicaSet) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), &namespace(set))
    }
}

/// Why Pods could not be created or deleted, for the condition `ReplicaFailure`.
#[derive(Clone, Debug)]
struct Failure {
    reason: &'static str,
    message: String,
}

impl Failure {
    fn pods(error: kube::Error) -> Self {
        let reason = "FailedCreate";
        let message = message(&error);
        Self { reason, message }
    }
}

fn namespace(set: &ReplicaSet) -> String {
    set.namespace().unwrap_or_default()
}

fn selector(set: &ReplicaSet) -> Result<Selector, Error> {
    Selector::from_label_selector(&set.spec.selector)
        .map_err(|error| Error::Object(error.to_string()))
}
