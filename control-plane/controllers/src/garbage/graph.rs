//! Who owns whom, as far as the watches tell.
//!
//! The graph decides nothing. Each change returns the uids of objects that are worth a look;
//! until [`Graph::start`], while the first lists come in, it returns none.
//!
//! All objects of a cluster are in it, and most have no owners and are not being deleted: of
//! those it keeps that they are there, and where, in some 30 bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::discovery::ApiResource;
use uuid::{Uuid, Version};

use super::places::{PlaceId, Places};
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

/// A uid in less room than its text takes: those that the API server gives are random UUIDs. What
/// else somebody may name as an owner's is a hash that no such UUID is like; where two of those are
/// the same, somebody is looked at in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id([u8; 16]);

impl From<&str> for Id {
    fn from(uid: &str) -> Self {
        let mut text = Uuid::encode_buffer();
        match Uuid::try_parse(uid) {
            // In another spelling it is another uid.
            Ok(uuid)
                if uuid.get_version() == Some(Version::Random)
                    && uuid.hyphenated().encode_lower(&mut text) == uid =>
            {
                Self(uuid.into_bytes())
            }
            _ => {
                let half = |seed: u8| {
                    let mut hasher = DefaultHasher::new();
                    (seed, uid).hash(&mut hasher);
                    hasher.finish()
                };
                let whole = u128::from(half(0)) << 64 | u128::from(half(1));
                let hash = uuid::Builder::from_u128(whole).with_version(Version::Custom);
                Self(hash.into_uuid().into_bytes())
            }
        }
    }
}

/// What binds an object to others.
#[derive(Debug)]
struct Ties {
    uid: Uid,
    name: String,
    owners: Vec<OwnerReference>,
    /// It is being deleted and waits for its dependents.
    foreground: bool,
    /// It is being deleted and its dependents are to forget it.
    orphaning: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Where each object is. A table of hashes would be twice as large as need be after each time
    /// that it grows.
    objects: BTreeMap<Id, PlaceId>,
    /// Of those objects that have owners or that somebody waits for.
    ties: HashMap<Id, Ties>,
    /// By the owner's uid, whether or not the owner was ever seen. All of them have ties.
    dependents: HashMap<Id, HashSet<Id>>,
    places: Places,
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
        let tied = self.ties.values();
        let worth = tied.filter(|t| t.foreground || t.orphaning || self.lacks_owner(t));
        worth.map(|ties| ties.uid.clone()).collect()
    }

    /// An object is there, in this form.
    pub(super) fn observe(&mut self, resource: &ApiResource, meta: &ObjectMeta) -> Vec<Uid> {
        let Some(uid) = meta.uid.as_deref() else {
            return Vec::new();
        };
        let id = Id::from(uid);
        let place = self
            .places
            .enter(resource, meta.namespace.as_deref().unwrap_or_default());
        match self.objects.insert(id, place) {
            // Its kind may be watched in another version than before.
            Some(before) => self.places.leave(before),
            None => self.tallies.extend(self.places.tally(place, true)),
        }
        let old = self.ties.remove(&id);
        let new = ties(uid, meta);
        let (old_owners, new_owners) = (owners(old.as_ref()), owners(new.as_ref()));
        let state = |ties: &Option<Ties>| {
            let ties = ties.as_ref();
            ties.map_or((false, false), |t| (t.foreground, t.orphaning))
        };
        let ((foreground, orphaning), before) = (state(&new), state(&old));
        let mut worth = Vec::new();
        let others = old_owners != new_owners;
        if others {
            for owner in old_owners.iter().filter(|o| !new_owners.contains(o)) {
                self.unlink(&owner.uid, &id);
                // It may have been what this owner waited for.
                worth.extend(self.foreground(&owner.uid));
            }
            for owner in new_owners {
                let dependents = self.dependents.entry(Id::from(owner.uid.as_str()));
                dependents.or_default().insert(id);
            }
        }
        if others || (foreground, orphaning) != before {
            let waited_for = || new_owners.iter().any(|owner| self.waits(&owner.uid));
            let lacks_owner = || new.as_ref().is_some_and(|ties| self.lacks_owner(ties));
            if orphaning || foreground || waited_for() || lacks_owner() {
                worth.push(uid.to_owned());
            }
        }
        if foreground && !before.0 {
            worth.extend(self.dependents(uid));
        }
        self.ties.extend(new.map(|ties| (id, ties)));
        self.suggest(worth)
    }

    /// An object is gone.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<Uid> {
        let worth = self.remove(Id::from(uid));
        self.suggest(worth)
    }

    fn remove(&mut self, id: Id) -> Vec<Uid> {
        let mut worth = self.dependents_of(id);
        if let Some(place) = self.objects.remove(&id) {
            self.tallies.extend(self.places.tally(place, false));
            self.places.leave(place);
        }
        for owner in self.ties.remove(&id).map_or(Vec::new(), |ties| ties.owners) {
            self.unlink(&owner.uid, &id);
            worth.extend(self.foreground(&owner.uid));
        }
        worth
    }

    /// All objects of a resource are these: others of it are gone.
    pub(super) fn retain(&mut self, resource: &ApiResource, present: &HashSet<Uid>) -> Vec<Uid> {
        let present: HashSet<Id> = present.iter().map(|uid| Id::from(uid.as_str())).collect();
        let here = self.objects.iter();
        let here = here.filter(|(_, place)| self.places.resource(**place) == Some(resource));
        let gone = here.map(|(id, _)| *id).filter(|id| !present.contains(id));
        let gone: Vec<Id> = gone.collect();
        let worth = gone.into_iter().flat_map(|id| self.remove(id)).collect();
        self.suggest(worth)
    }

    /// Where an object is that is bound to others; of no other is it ever asked.
    pub(super) fn identity(&self, uid: &str) -> Option<Identity> {
        let id = Id::from(uid);
        let place = self.places.get(*self.objects.get(&id)?)?;
        Some(Identity {
            resource: place.resource.clone(),
            namespace: (!place.namespace.is_empty()).then(|| place.namespace.to_string()),
            name: self.ties.get(&id)?.name.clone(),
            uid: uid.to_owned(),
        })
    }

    /// The uids of those that name it as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Uid> {
        self.dependents_of(Id::from(uid))
    }

    fn dependents_of(&self, id: Id) -> Vec<Uid> {
        self.tied_to(id).map(|ties| ties.uid.clone()).collect()
    }

    fn tied_to(&self, owner: Id) -> impl Iterator<Item = &Ties> {
        let dependents = self.dependents.get(&owner).into_iter().flatten();
        dependents.filter_map(|id| self.ties.get(id))
    }

    /// Dependents that block its foreground deletion.
    pub(super) fn blocking(&self, uid: &str) -> Vec<Uid> {
        let blocks = |ties: &&Ties| {
            let mut owners = ties.owners.iter();
            owners.any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        let blocking = self.tied_to(Id::from(uid)).filter(blocks);
        blocking.map(|ties| ties.uid.clone()).collect()
    }

    /// Whether an object is being deleted in the foreground.
    pub(super) fn waits(&self, uid: &str) -> bool {
        let ties = self.ties.get(&Id::from(uid));
        ties.is_some_and(|ties| ties.foreground)
    }

    fn foreground(&self, uid: &str) -> Option<Uid> {
        self.waits(uid).then(|| uid.to_owned())
    }

    fn lacks_owner(&self, ties: &Ties) -> bool {
        let mut owners = ties.owners.iter();
        owners.any(|owner| !self.objects.contains_key(&Id::from(owner.uid.as_str())))
    }

    fn unlink(&mut self, owner: &str, dependent: &Id) {
        let owner = Id::from(owner);
        if let Some(dependents) = self.dependents.get_mut(&owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(&owner);
            }
        }
    }

    fn suggest(&self, worth: Vec<Uid>) -> Vec<Uid> {
        if self.started { worth } else { Vec::new() }
    }
}

fn owners(ties: Option<&Ties>) -> &[OwnerReference] {
    ties.map_or(&[], |ties| &ties.owners)
}

/// What binds an object of this form to others, if anything does.
fn ties(uid: &str, meta: &ObjectMeta) -> Option<Ties> {
    let deleted = meta.deletion_timestamp.is_some();
    let finalized = |f: &str| meta.finalizers.iter().flatten().any(|name| name == f);
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let (foreground, orphaning) = (
        deleted && finalized(FOREGROUND),
        deleted && finalized(ORPHAN),
    );
    (foreground || orphaning || !owners.is_empty()).then(|| Ties {
        uid: uid.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        owners: owners.to_vec(),
        foreground,
        orphaning,
    })
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
        assert!(!graph.objects.contains_key(&Id::from("owner")));
    }

    #[test]
    fn who_is_suggested_can_be_found() {
        let mut graph = graph(&[meta("a", &[("owner", true)], None)]);
        let started = graph.start();
        assert_eq!(started, ["a"]);
        let waiting = meta("b", &[], Some(ORPHAN));
        let observed = graph.observe(&kind(), &waiting);
        assert_eq!(observed, ["b"]);
        for uid in [started, observed].concat() {
            let identity = graph.identity(&uid).unwrap();
            assert_eq!((identity.name, identity.uid), (uid.clone(), uid));
            assert_eq!(identity.namespace.as_deref(), Some("ns"));
        }
    }

    #[test]
    fn a_uid_is_another_in_another_spelling() {
        let uid = "123e4567-e89b-42d3-a456-426614174000";
        let others = [&*uid.to_uppercase(), &*uid.replace('-', ""), "", "u"].map(Id::from);
        let all: HashSet<Id> = others.into_iter().chain([Id::from(uid)]).collect();
        assert_eq!(all.len(), 5);
        assert_eq!(Id::from(uid).0[..2], [0x12, 0x3e]);
        // One that is like a hash is hashed.
        let like = Uuid::from_bytes(others[3].0).to_string();
        assert_ne!(Id::from(&*like), others[3]);
        assert!(size_of::<(Id, PlaceId)>() <= 20, "of every object");
    }

    #[test]
    fn places_go_with_their_last_object() {
        let mut graph = graph(&[meta("a", &[], None), meta("b", &[], None)]);
        assert_eq!(graph.take_tallies().len(), 2);
        graph.forget("a");
        assert_eq!(graph.places.len(), 1);
        graph.forget("b");
        assert_eq!(graph.places.len(), 0);
        let left: Vec<bool> = graph.take_tallies().iter().map(|t| t.more).collect();
        assert_eq!(left, [false, false]);

        let newer = ApiResource {
            version: "v2".to_owned(),
            ..kind()
        };
        for resource in [kind(), newer.clone()] {
            graph.observe(&resource, &meta("a", &[], None));
        }
        assert_eq!(graph.places.len(), 1);
        let place = graph.objects.values().next().unwrap();
        assert_eq!(graph.places.resource(*place), Some(&newer));
    }
}
