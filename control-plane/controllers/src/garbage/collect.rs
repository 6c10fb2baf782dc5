//! One look at one object: read it and its owners live, decide, act.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

use super::graph::{FOREGROUND, Identity, ORPHAN};
use super::verdict::{Dependents, Owner, Verdict, verdict};
use super::{ABSENT, Garbage, lock};
use crate::discovery::Served;
use crate::error::{Error, ignore_not_found, not_found};

type Metadata = PartialObjectMeta<DynamicObject>;

impl Garbage {
    pub(super) async fn collect(&self, uid: String) -> Result<Option<Duration>, Error> {
        let Some(identity) = lock(&self.graph).identity(&uid) else {
            return Ok(None);
        };
        let api = self.api(&identity);
        let live = api
            .get_opt(&identity.name)
            .await
            .map_err(Error::api("read an object"))?;
        let Some(live) = live.filter(|live| live.metadata.uid.as_ref() == Some(&uid)) else {
            self.change(|graph| graph.forget(&uid));
            return Ok(None);
        };
        let meta = live.metadata;
        let references = meta.owner_references.clone().unwrap_or_default();
        let mut owners = Vec::new();
        if meta.deletion_timestamp.is_none() {
            for owner in &references {
                owners.push((owner, self.owner(&identity, owner).await?));
            }
        }
        match verdict(&meta, &owners, self.dependents(&uid)) {
            Verdict::Keep => {}
            Verdict::WaitForDependents => {
                let blocking = lock(&self.graph).blocking(&uid);
                blocking.into_iter().for_each(|uid| self.queue.add(uid));
            }
            Verdict::Finalize(finalizer) => self.finalize(&api, &meta, finalizer).await?,
            Verdict::Orphan => self.orphan(&api, &meta).await?,
            Verdict::DropOwners(gone) => {
                let left = references.iter().filter(|owner| !gone.contains(&owner.uid));
                self.set_owners(&api, &meta, left.cloned().collect())
                    .await?;
            }
            Verdict::Delete { policy, unblock } => {
                let mut version = meta.resource_version.clone();
                if unblock {
                    let mut owners = references.clone();
                    owners
                        .iter_mut()
                        .for_each(|owner| owner.block_owner_deletion = Some(false));
                    version = self.set_owners(&api, &meta, owners).await?;
                }
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions {
                        resource_version: version,
                        uid: Some(uid.clone()),
                    }),
                    ..DeleteParams::default()
                };
                tracing::debug!(
                    resource = identity.resource.plural,
                    name = identity.name,
                    "collecting"
                );
                let deleted = api.delete(&identity.name, &params).await;
                ignore_not_found(deleted).map_err(Error::api("delete an object without owners"))?;
            }
        }
        Ok(None)
    }

    fn dependents(&self, uid: &str) -> Dependents {
        let graph = lock(&self.graph);
        let all = graph.dependents(uid);
        Dependents {
            any: !all.is_empty(),
            blocking: !graph.blocking(uid).is_empty(),
            waiting: all.iter().any(|dependent| graph.waits(dependent)),
        }
    }

    /// How an owner of the object is, asked of the API server.
    async fn owner(&self, of: &Identity, owner: &OwnerReference) -> Result<Owner, Error> {
        if lock(&self.absent).contains(&owner.uid) {
            return Ok(Owner::Absent);
        }
        let Some(served) = self.served(owner).await? else {
            // A kind that is not served (any more, or yet) says nothing about its objects.
            return Ok(Owner::Solid);
        };
        let api: Api<Metadata> = match (&of.namespace, served.namespaced) {
            (Some(namespace), true) => {
                Api::namespaced_with(self.context.client.clone(), namespace, &served.resource)
            }
            // An object without namespace cannot have an owner in one: the reference is void.
            (None, true) => return Ok(Owner::Solid),
            (_, false) => Api::all_with(self.context.client.clone(), &served.resource),
        };
        let live = api
            .get_opt(&owner.name)
            .await
            .map_err(Error::api("read an owner"))?;
        let Some(live) = live.filter(|live| live.metadata.uid.as_ref() == Some(&owner.uid)) else {
            let mut absent = lock(&self.absent);
            if absent.len() >= ABSENT {
                absent.clear();
            }
            absent.insert(owner.uid.clone());
            return Ok(Owner::Absent);
        };
        let meta = live.metadata;
        let foreground = meta.finalizers.iter().flatten().any(|f| f == FOREGROUND);
        let waits = meta.deletion_timestamp.is_some() && foreground;
        Ok(if waits { Owner::Waiting } else { Owner::Solid })
    }

    /// The resource of an owner's kind; asks anew when it is not known.
    async fn served(&self, owner: &OwnerReference) -> Result<Option<Served>, Error> {
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let is =
            |served: &&Served| served.resource.kind == owner.kind && served.resource.group == group;
        if let Some(known) = lock(&self.served).iter().find(is) {
            return Ok(Some(known.clone()));
        }
        let found = self.discover().await?;
        Ok(found.iter().find(is).cloned())
    }

    async fn orphan(&self, api: &Api<Metadata>, meta: &ObjectMeta) -> Result<(), Error> {
        let uid = meta.uid.clone().unwrap_or_default();
        let dependents = lock(&self.graph).dependents(&uid);
        for dependent in dependents {
            let Some(identity) = lock(&self.graph).identity(&dependent) else {
                continue;
            };
            let api = self.api(&identity);
            let live = api
                .get_opt(&identity.name)
                .await
                .map_err(Error::api("read a dependent"))?;
            let Some(live) = live.filter(|live| live.metadata.uid.as_ref() == Some(&dependent))
            else {
                continue;
            };
            let owners = live.metadata.owner_references.clone().unwrap_or_default();
            let left: Vec<_> = owners
                .iter()
                .filter(|owner| owner.uid != uid)
                .cloned()
                .collect();
            if left.len() != owners.len() {
                self.set_owners(&api, &live.metadata, left).await?;
            }
        }
        self.finalize(api, meta, ORPHAN).await
    }

    async fn finalize(
        &self,
        api: &Api<Metadata>,
        meta: &ObjectMeta,
        done: &str,
    ) -> Result<(), Error> {
        let left = meta
            .finalizers
            .iter()
            .flatten()
            .filter(|name| *name != done);
        let left: Vec<_> = left.collect();
        self.patch(api, meta, json!({"finalizers": left}))
            .await
            .map(drop)
    }

    async fn set_owners(
        &self,
        api: &Api<Metadata>,
        meta: &ObjectMeta,
        owners: Vec<OwnerReference>,
    ) -> Result<Option<String>, Error> {
        self.patch(api, meta, json!({"ownerReferences": owners}))
            .await
    }

    /// Changes metadata, provided that nobody else did meanwhile; returns the new version.
    async fn patch(
        &self,
        api: &Api<Metadata>,
        meta: &ObjectMeta,
        mut change: Value,
    ) -> Result<Option<String>, Error> {
        change["resourceVersion"] = json!(meta.resource_version);
        change["uid"] = json!(meta.uid);
        let patch = Patch::Merge(json!({"metadata": change}));
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &patch).await {
            Ok(patched) => Ok(patched.metadata.resource_version),
            Err(error) if not_found(&error) => Ok(None),
            Err(error) => Err(Error::api("change the metadata of an object")(error)),
        }
    }

    fn api(&self, identity: &Identity) -> Api<Metadata> {
        let client = self.context.client.clone();
        match &identity.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &identity.resource),
            None => Api::all_with(client, &identity.resource),
        }
    }
}
