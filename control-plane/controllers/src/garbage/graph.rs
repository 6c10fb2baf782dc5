//! Who owns whom, as far as the watches tell.
//!
//! The graph decides nothing. Each change returns the uids of objects that are worth a look;
//! until [`Graph::start`], while the first lists come in, it returns none.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::discovery::ApiResource;

use crate::discovery::resource_name;
use crate::inventory::Tally;

pub(super) type Uid = String;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// Where an object is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) resource: ApiResource,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) uid: Uid,
}

impl Identity {
    /// What its coming or going changes in the numbers of its namespace, if it has one.
    fn tally(&self, more: bool) -> Option<Tally> {
        Some(Tally {
            namespace: self.namespace.as_deref()?.into(),
            resource: resource_name(&self.resource),
            more,
        })
    }
}

#[derive(Clone, Debug)]
struct Object {
    identity: Identity,
    owners: Vec<OwnerReference>,
    /// It is being deleted and waits for its dependents.
    foreground: bool,
    /// It is being deleted and its dependents are to forget it.
    orphaning: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: HashMap<Uid, Object>,
    /// By the owner's uid, whether or not the owner was ever seen.
    dependents: HashMap<Uid, HashSet<Uid>>,
    started: bool,
    /// Objects that came or went since somebody asked.
    tallies: Vec<Tally>,
}

impl Graph {
    /// Objects of namespaces that came or went since this was last asked.
    pub(super) fn take_tallies(&mut self) -> Vec<Tally> {
        std::mem::take(&mut self.tallies)
    }

    /// From now on changes are worth a look; so are these objects already.
    pub(super) fn start(&mut self) -> Vec<Uid> {
        self.started = true;
        let objects = self.objects.values();
        let worth = objects.filter(|o| o.foreground || o.orphaning || self.lacks_owner(o));
        worth.map(|object| object.identity.uid.clone()).collect()
    }

    /// An object is there, in this form.
    pub(super) fn observe(&mut self, resource: &ApiResource, meta: &ObjectMeta) -> Vec<Uid> {
        let Some(uid) = meta.uid.clone() else {
            return Vec::new();
        };
        let deleted = meta.deletion_timestamp.is_some();
        let finalized = |f: &str| meta.finalizers.iter().flatten().any(|name| name == f);
        let object = Object {
            identity: Identity {
                resource: resource.clone(),
                namespace: meta.namespace.clone(),
                name: meta.name.clone().unwrap_or_default(),
                uid: uid.clone(),
            },
            owners: meta.owner_references.clone().unwrap_or_default(),
            foreground: deleted && finalized(FOREGROUND),
            orphaning: deleted && finalized(ORPHAN),
        };
        let mut worth = Vec::new();
        let old = self.objects.remove(&uid);
        if old.is_none() {
            self.tallies.extend(object.identity.tally(true));
        }
        let old_owners = old.as_ref().map_or(&[][..], |old| &old.owners);
        for owner in old_owners {
            if !object.owners.contains(owner) {
                self.unlink(&owner.uid, &uid);
                // It may have been what this owner waited for.
                worth.extend(self.foreground(&owner.uid));
            }
        }
        for owner in &object.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        let waited_for = object
            .owners
            .iter()
            .any(|o| self.foreground(&o.uid).is_some());
        let news = old.as_ref().is_none_or(|old| {
            old.owners != object.owners
                || old.foreground != object.foreground
                || old.orphaning != object.orphaning
        });
        if news
            && (object.orphaning || object.foreground || waited_for || self.lacks_owner(&object))
        {
            worth.push(uid.clone());
        }
        if object.foreground && !old.is_some_and(|old| old.foreground) {
            worth.extend(self.dependents(&uid));
        }
        self.objects.insert(uid, object);
        self.suggest(worth)
    }

    /// An object is gone.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<Uid> {
        let mut worth = self.dependents(uid);
        if let Some(object) = self.objects.remove(uid) {
            self.tallies.extend(object.identity.tally(false));
            for owner in object.owners {
                self.unlink(&owner.uid, uid);
                worth.extend(self.foreground(&owner.uid));
            }
        }
        self.suggest(worth)
    }

    /// All objects of a resource are these: others of it are gone.
    pub(super) fn retain(&mut self, resource: &ApiResource, present: &HashSet<Uid>) -> Vec<Uid> {
        let gone: Vec<Uid> = self
            .objects
            .values()
            .filter(|o| o.identity.resource == *resource && !present.contains(&o.identity.uid))
            .map(|object| object.identity.uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.forget(uid)).collect()
    }

    pub(super) fn identity(&self, uid: &str) -> Option<Identity> {
        self.objects.get(uid).map(|object| object.identity.clone())
    }

    /// The uids of those that name it as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Uid> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Dependents that block its foreground deletion.
    pub(super) fn blocking(&self, uid: &str) -> Vec<Uid> {
        let blocks = |dependent: &Uid| {
            let object = self.objects.get(dependent);
            let mut owners = object.into_iter().flat_map(|object| &object.owners);
            owners.any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        self.dependents(uid).into_iter().filter(blocks).collect()
    }

    /// Whether an object is being deleted in the foreground.
    pub(super) fn waits(&self, uid: &str) -> bool {
        self.objects
            .get(uid)
            .is_some_and(|object| object.foreground)
    }

    fn foreground(&self, uid: &str) -> Option<Uid> {
        self.waits(uid).then(|| uid.to_owned())
    }

    fn lacks_owner(&self, object: &Object) -> bool {
        object
            .owners
            .iter()
            .any(|owner| !self.objects.contains_key(&owner.uid))
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn suggest(&self, worth: Vec<Uid>) -> Vec<Uid> {
        if self.started { worth } else { Vec::new() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn kind() -> ApiResource {
        ApiResource::erase::<ConfigMap>(&())
    }

    fn meta(uid: &str, owners: &[(&str, bool)], finalizer: Option<&str>) -> ObjectMeta {
        let owners: Vec<_> = owners
            .iter()
            .map(|(uid, blocks)| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid,
                    "blockOwnerDeletion": blocks})
            })
            .collect();
        let deleted = finalizer.map(|_| "2026-01-01T00:00:00Z");
        let finalizers: Vec<_> = finalizer.into_iter().collect();
        serde_json::from_value(json!({"name": uid, "namespace": "ns", "uid": uid,
            "ownerReferences": owners, "deletionTimestamp": deleted, "finalizers": finalizers}))
        .unwrap()
    }

    fn graph(objects: &[ObjectMeta]) -> Graph {
        let mut graph = Graph::default();
        for object in objects {
            assert!(graph.observe(&kind(), object).is_empty(), "not started yet");
        }
        graph
    }

    fn sorted(mut uids: Vec<Uid>) -> Vec<Uid> {
        uids.sort();
        uids
    }

    #[test]
    fn the_start_looks_at_orphans_alone() {
        let mut graph = graph(&[
            meta("child", &[("owner", true)], None),
            meta("owner", &[], None),
            meta("lost", &[("nobody", true)], None),
        ]);
        assert_eq!(graph.start(), ["lost"]);
    }

    #[test]
    fn dependents_of_what_goes_are_looked_at() {
        let mut graph = graph(&[
            meta("owner", &[], None),
            meta("a", &[("owner", true)], None),
            meta("b", &[("owner", false)], None),
        ]);
        graph.start();
        assert_eq!(sorted(graph.forget("owner")), ["a", "b"]);
        assert_eq!(
            graph.observe(&kind(), &meta("c", &[("owner", true)], None)),
            ["c"]
        );
    }

    #[test]
    fn a_foreground_deletion_looks_down_and_back_up() {
        let mut graph = graph(&[
            meta("owner", &[], None),
            meta("a", &[("owner", true)], None),
            meta("b", &[("owner", false)], None),
        ]);
        graph.start();
        let waiting = meta("owner", &[], Some(FOREGROUND));
        assert_eq!(
            sorted(graph.observe(&kind(), &waiting)),
            ["a", "b", "owner"]
        );
        assert!(graph.observe(&kind(), &waiting).is_empty(), "no news");
        assert_eq!(graph.blocking("owner"), ["a"]);
        assert_eq!(graph.forget("a"), ["owner"]);
        assert!(graph.blocking("owner").is_empty());
    }

    #[test]
    fn a_new_list_forgets_what_is_not_in_it() {
        let mut graph = graph(&[
            meta("owner", &[], None),
            meta("a", &[("owner", true)], None),
        ]);
        graph.start();
        let worth = graph.retain(&kind(), &HashSet::from(["a".to_owned()]));
        assert_eq!(worth, ["a"]);
        assert!(graph.identity("owner").is_none());
    }
}
