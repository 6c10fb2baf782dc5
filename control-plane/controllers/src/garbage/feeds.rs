//! Where the collector's graph learns of objects: shared informers for the kinds that have one,
//! a watch of metadata for each of the others.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use kube::core::discovery::ApiResource;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::graph::Uid;
use super::sighting::Sighting;
use super::{Garbage, lock};
use crate::Error;
use crate::context::Change;
use crate::discovery::{Served, resource_name};
use crate::informer::{Informer, watch_events};

/// The feeds that run, by resource.
pub(super) struct Feeds {
    garbage: Arc<Garbage>,
    running: HashMap<ApiResource, CancellationToken>,
}

impl Feeds {
    pub(super) fn new(garbage: Arc<Garbage>) -> Self {
        let running = HashMap::new();
        Self { garbage, running }
    }

    /// Starts feeds of resources that are served now, and ends those of others.
    pub(super) async fn follow(&mut self) -> Result<(), Error> {
        let found = self.garbage.discover().await?;
        let wanted: HashSet<ApiResource> = found
            .into_iter()
            .filter(collectable)
            .map(|served| served.resource)
            .collect();
        self.running.retain(|resource, cancel| {
            let stays = wanted.contains(resource);
            if !stays {
                cancel.cancel();
                self.garbage.mark_synced(resource);
                let inventory = &self.garbage.context.inventory;
                inventory.forget(&resource_name(resource));
                // Its objects are unknown now, not gone: nothing is suggested.
                let mut graph = lock(&self.garbage.graph);
                drop(graph.retain(resource, &HashSet::new()));
                inventory.tally(graph.take_tallies());
            }
            stays
        });
        for resource in wanted {
            if !self.running.contains_key(&resource) {
                let cancel = self.garbage.context.cancel.child_token();
                self.start(resource.clone(), cancel.clone());
                self.running.insert(resource, cancel);
            }
        }
        Ok(())
    }

    fn start(&self, resource: ApiResource, cancel: CancellationToken) {
        lock(&self.garbage.unsynced).insert(resource.clone());
        let informers = &self.garbage.context.informers;
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("apps", "deployments") => self.listen(&informers.deployments, resource),
            ("apps", "replicasets") => self.listen(&informers.replica_sets, resource),
            ("coordination.k8s.io", "leases") => self.listen(&informers.leases, resource),
            ("discovery.k8s.io", "endpointslices") => {
                self.listen(&informers.endpoint_slices, resource)
            }
            ("", "endpoints") => self.listen(&informers.endpoints, resource),
            ("", "namespaces") => self.listen(&informers.namespaces, resource),
            ("", "nodes") => self.listen(&informers.nodes, resource),
            ("", "pods") => self.listen(&informers.pods, resource),
            ("", "serviceaccounts") => self.listen(&informers.service_accounts, resource),
            ("", "services") => self.listen(&informers.services, resource),
            ("", "persistentvolumeclaims") => self.listen(&informers.claims, resource),
            ("", "persistentvolumes") => self.listen(&informers.volumes, resource),
            ("", "resourcequotas") => self.listen(&informers.quotas, resource),
            ("policy", "poddisruptionbudgets") => {
                self.listen(&informers.disruption_budgets, resource)
            }
            ("storage.k8s.io", "volumeattributesclasses") => {
                self.listen(&informers.volume_attributes_classes, resource)
            }
            _ => self.watch(resource, cancel),
        }
    }

    fn listen<K>(&self, informer: &Informer<K>, resource: ApiResource)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let garbage = self.garbage.clone();
        let store = informer.store().clone();
        self.garbage
            .context
            .observe(informer, move |change| match change {
                Change::Object(hint) => {
                    let present = store.get(&ObjectRef::from_obj(&*hint));
                    garbage.change(|graph| {
                        let mut worth = Vec::new();
                        if present.as_ref().map(|p| &p.meta().uid) != Some(&hint.meta().uid) {
                            worth.extend(
                                graph.forget(hint.meta().uid.as_deref().unwrap_or_default()),
                            );
                        }
                        if let Some(present) = &present {
                            worth.extend(graph.observe(&resource, present.meta()));
                        }
                        worth
                    });
                }
                Change::All(objects) => {
                    let present: HashSet<Uid> = objects
                        .iter()
                        .filter_map(|o| o.meta().uid.clone())
                        .collect();
                    garbage.change(|graph| {
                        let observed = objects
                            .iter()
                            .flat_map(|o| graph.observe(&resource, o.meta()));
                        let mut worth: Vec<Uid> = observed.collect();
                        worth.extend(graph.retain(&resource, &present));
                        worth
                    });
                    garbage.mark_synced(&resource);
                }
            });
    }

    fn watch(&self, resource: ApiResource, cancel: CancellationToken) {
        let garbage = self.garbage.clone();
        let api: Api<Sighting> = Api::all_with(self.garbage.context.client.clone(), &resource);
        let mut listed: HashSet<Uid> = HashSet::new();
        let see = move |event: Event<Sighting>| match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.extend(object.metadata.uid.clone());
                garbage.change(|graph| graph.observe(&resource, &object.metadata));
            }
            Event::InitDone => {
                garbage.change(|graph| graph.retain(&resource, &listed));
                listed.clear();
                garbage.mark_synced(&resource);
            }
            Event::Apply(object) => {
                garbage.change(|graph| graph.observe(&resource, &object.metadata));
            }
            Event::Delete(object) => {
                let uid = object.metadata.uid.unwrap_or_default();
                garbage.change(|graph| graph.forget(&uid));
            }
        };
        self.garbage
            .context
            .tasks
            .spawn(watch_events(api, see, cancel));
    }
}

/// Whether objects of the resource can be collected. Events own nothing, are owned by nothing,
/// and there are many.
fn collectable(served: &Served) -> bool {
    let events = served.resource.plural == "events"
        && matches!(served.resource.group.as_str(), "" | "events.k8s.io");
    !events
        && ["list", "watch", "delete"]
            .iter()
            .all(|verb| served.can(verb))
}
