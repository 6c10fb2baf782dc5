//! Who owns whom, as far as the watches tell.
//!
//! The graph decides nothing. Each change returns the uids of objects that are worth a look;
//! until [`Graph::start`], while the first lists come in, it returns none.
//!
//! All objects of a cluster are in it, and most have no owners and are not being deleted: of
//! those it keeps that they are there, and where, in some 50 bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::discovery::ApiResource;
use uuid::Uuid;

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

/// A uid in less room than its text takes: those that the API server gives are UUIDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Id {
    Uuid(Uuid),
    Other(Box<str>),
}

impl From<&str> for Id {
    fn from(uid: &str) -> Self {
        let mut text = Uuid::encode_buffer();
        match Uuid::try_parse(uid) {
            // In another spelling it is another uid.
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut text) == uid => Self::Uuid(uuid),
            _ => Self::Other(uid.into()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().fmt(f),
            Self::Other(uid) => f.write_str(uid),
        }
    }
}

/// What objects of one resource in one namespace share.
#[derive(Debug)]
struct Place {
    resource: ApiResource,
    /// Empty for objects of the cluster.
    namespace: Arc<str>,
}

impl Place {
    /// What an object that comes or goes here changes in the numbers of its namespace, if it has
    /// one.
    fn tally(&self, more: bool) -> Option<Tally> {
        (!self.namespace.is_empty()).then(|| Tally {
            namespace: self.namespace.clone(),
            resource: resource_name(&self.resource),
            more,
        })
    }
}

#[derive(Debug)]
struct Object {
    place: Arc<Place>,
    /// `None` of an object that has no owners and that nobody waits for.
    ties: Option<Box<Ties>>,
}

/// What binds an object to others.
#[derive(Debug)]
struct Ties {
    name: String,
    owners: Vec<OwnerReference>,
    /// It is being deleted and waits for its dependents.
    foreground: bool,
    /// It is being deleted and its dependents are to forget it.
    orphaning: bool,
}

impl Object {
    fn owners(&self) -> &[OwnerReference] {
        self.ties.as_ref().map_or(&[], |ties| &ties.owners)
    }

    fn foreground(&self) -> bool {
        self.ties.as_ref().is_some_and(|ties| ties.foreground)
    }

    fn orphaning(&self) -> bool {
        self.ties.as_ref().is_some_and(|ties| ties.orphaning)
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// A table of hashes would be twice as large as need be after each time that it grows.
    objects: BTreeMap<Id, Object>,
    /// By the owner's uid, whether or not the owner was ever seen.
    dependents: HashMap<Id, HashSet<Id>>,
    /// Where objects are, by resource and namespace.
    places: HashMap<ApiResource, HashMap<Arc<str>, Arc<Place>>>,
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
        let worth =
            |object: &Object| object.foreground() || object.orphaning() || self.lacks_owner(object);
        let objects = self.objects.iter();
        let objects = objects.filter(|(_, object)| worth(object));
        objects.map(|(id, _)| id.to_string()).collect()
    }

    /// An object is there, in this form.
    pub(super) fn observe(&mut self, resource: &ApiResource, meta: &ObjectMeta) -> Vec<Uid> {
        let Some(uid) = meta.uid.as_deref() else {
            return Vec::new();
        };
        let id = Id::from(uid);
        let object = Object {
            place: self.place(resource, meta.namespace.as_deref().unwrap_or_default()),
            ties: ties(meta),
        };
        let mut worth = Vec::new();
        let old = self.objects.remove(&id);
        if old.is_none() {
            self.tallies.extend(object.place.tally(true));
        }
        for owner in old.as_ref().map_or(&[][..], Object::owners) {
            if !object.owners().contains(owner) {
                self.unlink(&owner.uid, &id);
                // It may have been what this owner waited for.
                worth.extend(self.foreground(&owner.uid));
            }
        }
        for owner in object.owners() {
            let dependents = self.dependents.entry(Id::from(owner.uid.as_str()));
            dependents.or_default().insert(id.clone());
        }
        let mut owners = object.owners().iter();
        let waited_for = owners.any(|o| self.foreground(&o.uid).is_some());
        let news = old.as_ref().is_none_or(|old| {
            old.owners() != object.owners()
                || old.foreground() != object.foreground()
                || old.orphaning() != object.orphaning()
        });
        if news
            && (object.orphaning()
                || object.foreground()
                || waited_for
                || self.lacks_owner(&object))
        {
            worth.push(uid.to_owned());
        }
        if object.foreground() && !old.as_ref().is_some_and(Object::foreground) {
            worth.extend(self.dependents(uid));
        }
        self.objects.insert(id, object);
        if let Some(old) = old {
            // Its kind may be watched in another version than before.
            self.leave(old.place);
        }
        self.suggest(worth)
    }

    /// An object is gone.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<Uid> {
        let id = Id::from(uid);
        let mut worth = self.dependents(uid);
        if let Some(object) = self.objects.remove(&id) {
            self.tallies.extend(object.place.tally(false));
            for owner in object.owners() {
                self.unlink(&owner.uid, &id);
                worth.extend(self.foreground(&owner.uid));
            }
            self.leave(object.place);
        }
        self.suggest(worth)
    }

    /// All objects of a resource are these: others of it are gone.
    pub(super) fn retain(&mut self, resource: &ApiResource, present: &HashSet<Uid>) -> Vec<Uid> {
        let here = self.objects.iter();
        let here = here.filter(|(_, object)| object.place.resource == *resource);
        let uids = here.map(|(id, _)| id.to_string());
        let gone: Vec<Uid> = uids.filter(|uid| !present.contains(uid)).collect();
        gone.iter().flat_map(|uid| self.forget(uid)).collect()
    }

    /// Where an object is that is bound to others; of no other is it ever asked.
    pub(super) fn identity(&self, uid: &str) -> Option<Identity> {
        let object = self.objects.get(&Id::from(uid))?;
        let namespace = &object.place.namespace;
        Some(Identity {
            resource: object.place.resource.clone(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_string()),
            name: object.ties.as_ref()?.name.clone(),
            uid: uid.to_owned(),
        })
    }

    /// The uids of those that name it as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Uid> {
        let dependents = self.dependents.get(&Id::from(uid));
        let dependents = dependents.into_iter().flatten();
        dependents.map(ToString::to_string).collect()
    }

    /// Dependents that block its foreground deletion.
    pub(super) fn blocking(&self, uid: &str) -> Vec<Uid> {
        let blocks = |dependent: &&Id| {
            let object = self.objects.get(*dependent);
            let mut owners = object.into_iter().flat_map(Object::owners);
            owners.any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        let dependents = self.dependents.get(&Id::from(uid));
        let dependents = dependents.into_iter().flatten().filter(blocks);
        dependents.map(ToString::to_string).collect()
    }

    /// Whether an object is being deleted in the foreground.
    pub(super) fn waits(&self, uid: &str) -> bool {
        self.objects
            .get(&Id::from(uid))
            .is_some_and(Object::foreground)
    }

    fn foreground(&self, uid: &str) -> Option<Uid> {
        self.waits(uid).then(|| uid.to_owned())
    }

    fn lacks_owner(&self, object: &Object) -> bool {
        let mut owners = object.owners().iter();
        owners.any(|owner| !self.objects.contains_key(&Id::from(owner.uid.as_str())))
    }

    fn place(&mut self, resource: &ApiResource, namespace: &str) -> Arc<Place> {
        let known = self.places.get(resource).and_then(|of| of.get(namespace));
        if let Some(place) = known {
            return place.clone();
        }
        let place = Arc::new(Place {
            resource: resource.clone(),
            namespace: namespace.into(),
        });
        let of = self.places.entry(resource.clone()).or_default();
        of.insert(place.namespace.clone(), place.clone());
        place
    }

    /// Forgets a place that its last object has left.
    fn leave(&mut self, place: Arc<Place>) {
        // Here, and in the map.
        if Arc::strong_count(&place) <= 2
            && let Some(of) = self.places.get_mut(&place.resource)
        {
            of.remove(&place.namespace);
            if of.is_empty() {
                self.places.remove(&place.resource);
            }
        }
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

/// What binds an object of this form to others.
fn ties(meta: &ObjectMeta) -> Option<Box<Ties>> {
    let deleted = meta.deletion_timestamp.is_some();
    let finalized = |f: &str| meta.finalizers.iter().flatten().any(|name| name == f);
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let (foreground, orphaning) = (
        deleted && finalized(FOREGROUND),
        deleted && finalized(ORPHAN),
    );
    (foreground || orphaning || !owners.is_empty()).then(|| {
        Box::new(Ties {
            name: meta.name.clone().unwrap_or_default(),
            owners: owners.to_vec(),
            foreground,
            orphaning,
        })
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
    fn a_uid_is_kept_as_it_is_spelled() {
        let uid = "123e4567-e89b-12d3-a456-426614174000";
        assert!(matches!(Id::from(uid), Id::Uuid(_)));
        for uid in [uid, &uid.to_uppercase(), &uid.replace('-', ""), "", "u"] {
            assert_eq!(Id::from(uid).to_string(), uid);
        }
        assert!(size_of::<(Id, Object)>() <= 40, "of every object");
    }

    #[test]
    fn places_go_with_their_last_object() {
        let mut graph = graph(&[meta("a", &[], None), meta("b", &[], None)]);
        assert_eq!(graph.take_tallies().len(), 2);
        graph.forget("a");
        assert_eq!(graph.places.len(), 1);
        graph.forget("b");
        assert!(graph.places.is_empty());
        let left: Vec<bool> = graph.take_tallies().iter().map(|t| t.more).collect();
        assert_eq!(left, [false, false]);

        let newer = ApiResource {
            version: "v2".to_owned(),
            ..kind()
        };
        for resource in [kind(), newer.clone()] {
            graph.observe(&resource, &meta("a", &[], None));
        }
        assert_eq!(graph.places.keys().collect::<Vec<_>>(), [&newer]);
    }
}
