//! The Deployment controller: ReplicaSets, one per revision of the Pod template.
//!
//! One pass reads the caches, asks [`plan::plan`] for the actions, applies them, and writes the
//! status that [`status`] derives. Each action that changes a ReplicaSet ends the pass' view of
//! the world: the cache shows the change, and the change starts the next pass.
//!
//! State of its own: which of its writes the caches do not show yet.

mod conditions;
mod hash;
mod plan;
mod proportion;
mod revision;
mod rollout;
mod status;
mod template;

use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, PACE, Writes};
use crate::error::{Error, already_exists, ignore_not_found, message, namespace_terminating};
use crate::events::Events;
use crate::informer::revision_of;
use crate::owners::{adoption, controlled_by, controller_of, release};
use crate::queue::{Reconcile, WorkQueue};
use plan::{Action, Observed};
use revision::Annotations;

type Key = ObjectRef<Deployment>;

/// Passes at once.
const WORKERS: usize = 8;

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let controller = Arc::new(Controller {
        events: context.events.of("deployment-controller"),
        set_writes: Writes::new(),
        own_writes: Writes::new(),
        context: context.clone(),
    });
    let informers = &context.informers;
    context.route(&informers.deployments, &queue, |deployment| {
        vec![Key::from_obj(deployment)]
    });
    let deployments = informers.deployments.store().clone();
    context.route(
        &informers.replica_sets,
        &queue,
        move |set| match controller_of(&set.metadata) {
            Some(owner) => {
                let namespace = set.namespace();
                Key::from_owner_ref(namespace.as_deref(), owner, ())
                    .into_iter()
                    .collect()
            }
            None => {
                let might_adopt = |deployment: &Deployment| {
                    deployment.namespace() == set.namespace()
                        && selector(deployment).is_ok_and(|s| s.matches(set.labels()))
                };
                let found = deployments.state_filter(might_adopt);
                found
                    .iter()
                    .map(|deployment| Key::from_obj(deployment))
                    .collect()
            }
        },
    );
    // A Recreate rollout waits for the last old Pod to end.
    let (deployments, sets) = (
        informers.deployments.store().clone(),
        informers.replica_sets.store().clone(),
    );
    context.route(&informers.pods, &queue, move |pod| {
        let namespace = pod.namespace();
        let owner = controller_of(&pod.metadata).filter(|_| !crate::pods::active(pod));
        let key = owner
            .and_then(|o| ObjectRef::<ReplicaSet>::from_owner_ref(namespace.as_deref(), o, ()))
            .and_then(|set| sets.get(&set))
            .and_then(|set| {
                let owner = controller_of(&set.metadata)?;
                Key::from_owner_ref(namespace.as_deref(), owner, ())
            });
        let recreates = |key: &Key| deployments.get(key).is_some_and(|d| rollout::recreates(&d));
        key.filter(recreates).into_iter().collect()
    });
    let cancel = context.cancel.clone();
    queue.run("deployment", WORKERS, cancel, controller).await;
}

struct Controller {
    context: Context,
    events: Events,
    set_writes: Writes<Key>,
    own_writes: Writes<Key>,
}

impl Reconcile<Key> for Controller {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let informers = &self.context.informers;
        for (writes, revision) in [
            (&self.own_writes, informers.deployments.revision()),
            (&self.set_writes, informers.replica_sets.revision()),
        ] {
            if let Err(wait) = writes.shown(&key, revision) {
                return Ok(Some(wait));
            }
        }
        let Some(deployment) = informers.deployments.store().get(&key) else {
            return Ok(None);
        };
        let selector = selector(&deployment)?;
        let sets = self.sets(&deployment, &selector);
        let pods = self.pods(&deployment, &sets);
        let now = Timestamp::now();
        let observed = Observed::new(&deployment, &selector, &sets, &pods, now);
        let mut outcome = status::Outcome::default();
        let mut failed = None;
        for action in plan::plan(&observed) {
            if let Err(error) = self.apply(&key, &deployment, action, &mut outcome).await {
                failed = Some(error);
                break;
            }
        }
        let status = status::status(&observed, &outcome);
        let wait = status::next_check(&deployment, &status, now);
        let annotations = outcome.annotations;
        self.write_status(&key, &deployment, status, annotations)
            .await?;
        failed.map_or(Ok(wait), Err)
    }
}

impl Controller {
    /// ReplicaSets that are the Deployment's, or that it might adopt.
    fn sets(&self, deployment: &Deployment, selector: &Selector) -> Vec<Arc<ReplicaSet>> {
        let uid = deployment.metadata.uid.as_deref();
        let mut sets = self
            .context
            .informers
            .replica_sets
            .store()
            .state_filter(|set| {
                set.metadata.namespace == deployment.metadata.namespace
                    && (controlled_by(&set.metadata, uid)
                        || controller_of(&set.metadata).is_none() && selector.matches(set.labels()))
            });
        sets.sort_by_key(|set| template::age(set));
        sets
    }

    /// The Pods of those sets; looked for only where the strategy asks.
    fn pods(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<Pod>> {
        if !rollout::recreates(deployment) {
            return Vec::new();
        }
        let owned = |pod: &Pod| {
            let owner = controller_of(&pod.metadata).map(|o| &o.uid);
            owner.is_some() && sets.iter().any(|set| set.metadata.uid.as_ref() == owner)
        };
        self.context.informers.pods.store().state_filter(owned)
    }

    async fn apply(
        &self,
        key: &Key,
        deployment: &Deployment,
        action: Action,
        outcome: &mut status::Outcome,
    ) -> Result<(), Error> {
        let sets: Api<ReplicaSet> = self.api(deployment);
        match action {
            Action::Adopt(set) => {
                let live: Api<Deployment> = self.api(deployment);
                let live = live.get(&deployment.name_any()).await;
                let live = live.map_err(Error::api("read a Deployment"))?;
                if live.uid() != deployment.uid() || live.metadata.deletion_timestamp.is_some() {
                    return Ok(());
                }
                let patch = adoption(deployment, set.metadata.uid.as_deref());
                self.patch(key, &sets, &set, Patch::Strategic(patch)).await
            }
            Action::Release(set) => {
                let patch = release(deployment, set.metadata.uid.as_deref());
                self.patch(key, &sets, &set, Patch::Strategic(patch)).await
            }
            Action::Create(set) => self.create(key, deployment, &sets, &set, outcome).await,
            Action::Update { set, change } => {
                let patch = json!({
                    "metadata": {
                        "resourceVersion": set.metadata.resource_version,
                        "annotations": change.annotations,
                    },
                    "spec": change.spec(),
                });
                self.patch(key, &sets, &set, Patch::Merge(patch)).await?;
                if let Some(text) = change.announcement(&set) {
                    self.events.normal(deployment, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Action::Delete(set) => {
                let params = DeleteParams::background().preconditions(Preconditions {
                    uid: set.uid(),
                    resource_version: set.resource_version(),
                });
                let deleted = sets.delete(&set.name_any(), &params).await;
                ignore_not_found(deleted).map_err(Error::api("delete an old ReplicaSet"))?;
                Ok(())
            }
            Action::Annotate(annotations) => {
                outcome.annotations = annotations;
                Ok(())
            }
        }
    }

    async fn patch(
        &self,
        key: &Key,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
        patch: Patch<serde_json::Value>,
    ) -> Result<(), Error> {
        let patched = sets
            .patch(&set.name_any(), &PatchParams::default(), &patch)
            .await;
        let patched = patched.map_err(Error::api("update a ReplicaSet"))?;
        self.set_writes.wrote(key, revision_of(&patched));
        Ok(())
    }

    /// Creates the ReplicaSet of the current template. One of that name may exist: it is ours
    /// and the cache was late, or its template hashes alike by accident, and then the next pass
    /// takes another hash.
    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
        outcome: &mut status::Outcome,
    ) -> Result<(), Error> {
        match sets.create(&PostParams::default(), set).await {
            Ok(created) => {
                self.set_writes.wrote(key, revision_of(&created));
                let replicas = template::replicas(&created);
                if replicas > 0 {
                    let name = created.name_any();
                    let text = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.events.normal(deployment, "ScalingReplicaSet", text);
                }
                outcome.created = Some(created.name_any());
                Ok(())
            }
            Err(error) if already_exists(&error) => {
                let live = sets.get(&set.name_any()).await;
                let live = live.map_err(Error::api("read a ReplicaSet"))?;
                let ours = controlled_by(&live.metadata, deployment.metadata.uid.as_deref());
                if ours && template::is_for(&live, deployment) {
                    self.set_writes.wrote(key, revision_of(&live));
                    return Ok(());
                }
                outcome.collided = true;
                Err(Error::api("create a ReplicaSet whose name is taken")(error))
            }
            Err(error) if namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let text = format!(
                    "Failed to create new replica set {:?}: {}",
                    set.name_any(),
                    message(&error)
                );
                outcome.create_failed = Some(text.clone());
                self.events
                    .warning(deployment, "ReplicaSetCreateError", text);
                Err(Error::api("create a ReplicaSet")(error))
            }
        }
    }

    /// Writes the status, and annotations with it: written by themselves they would count as a
    /// new generation.
    async fn write_status(
        &self,
        key: &Key,
        deployment: &Deployment,
        status: DeploymentStatus,
        annotations: Annotations,
    ) -> Result<(), Error> {
        if deployment.status.as_ref() == Some(&status) && annotations.is_empty() {
            return Ok(());
        }
        let mut update = deployment.clone();
        update.status = Some(status);
        update.annotations_mut().extend(annotations);
        let api: Api<Deployment> = self.api(deployment);
        let written = api
            .replace_status(&deployment.name_any(), &PostParams::default(), &update)
            .await;
        let written =
            ignore_not_found(written).map_err(Error::api("update the status of a Deployment"))?;
        if let Some(deployment) = written {
            self.own_writes.wrote(key, revision_of(&deployment));
        }
        Ok(())
    }

    fn api<K>(&self, deployment: &Deployment) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let namespace = deployment.namespace().unwrap_or_default();
        Api::namespaced(self.context.client.clone(), &namespace)
    }
}

fn selector(deployment: &Deployment) -> Result<Selector, Error> {
    let selector = &deployment.spec.selector;
    let selects_all = selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(|e| e.is_empty());
    if selects_all {
        return Err(Error::Object(
            "a Deployment's selector must not choose all Pods".to_owned(),
        ));
    }
    Selector::from_label_selector(selector).map_err(|error| Error::Object(error.to_string()))
}
