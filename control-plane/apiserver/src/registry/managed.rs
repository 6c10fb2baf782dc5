//! Who manages which field, kept up to date by every write of the registry.
//!
//! As in Kubernetes the managers are settled after defaulting and before admission: what
//! admission and strategies set is nobody's. A write whose managers cannot be told leaves them as
//! they were, and never fails for it.

use coracle_apimachinery::apply::Set;
use coracle_apimachinery::gvk::GroupVersion;
use coracle_apimachinery::managed::{self, Managers, Versions, Write, entries};
use coracle_apimachinery::schema::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value};

use super::erased::{Kind, Object};
use super::lookup::Kinds;
use super::update::Part;
use super::{Registry, Target};

/// Subresources whose writes manage nothing.
const UNTRACKED: &[&str] = &["binding"];

/// By whose name fields are managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldManager<'a> {
    /// Of a write that gives what it changes to this manager; empty where it has no name.
    Update(&'a str),
    /// Of an apply, whose object carries its managers already, with text for their sets: of no other
    /// object that is written in its course.
    Settled,
}

/// The versions of a kind, through what the store holds.
pub(super) struct StoredVersions<'a> {
    pub(super) kinds: &'a Kinds,
    pub(super) storage: String,
}

impl StoredVersions<'_> {
    fn kind(&self, api_version: &str) -> Option<&dyn Kind> {
        let version = GroupVersion::parse(api_version)?;
        let found = self.kinds.all().iter().find(|kind| {
            let d = kind.descriptor();
            d.storage == self.storage && d.group == version.group && d.version == version.version
        });
        found.map(|kind| &**kind)
    }
}

impl Versions for StoredVersions<'_> {
    fn structure(&self, api_version: &str) -> Option<Node<'_>> {
        self.kind(api_version).map(Kind::structure)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.kind(from)?, self.kind(to)?);
        let object = serde_json::to_vec(&without_nulls(object.clone())).ok()?;
        let object = from.decode(&object).ok()?;
        let stored = from.encode_stored(&*object).ok()?;
        to.decode_stored(&stored).ok()?.to_value().ok()
    }
}

/// The object without members that are null, which say that something was there.
pub(super) fn without_nulls(mut value: Value) -> Value {
    // Most have none.
    if has_null(&value) {
        drop_nulls(&mut value);
    }
    value
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.values().any(has_null),
        Value::Array(items) => items.iter().any(has_null),
        value => value.is_null(),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => members.retain(|_, value| {
            drop_nulls(value);
            !value.is_null()
        }),
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl Registry {
    pub(super) fn versions(&self, target: Target<'_>) -> StoredVersions<'_> {
        StoredVersions {
            kinds: &self.kinds,
            storage: target.kind.descriptor().storage.clone(),
        }
    }

    /// Settles the managers of a new object.
    pub(super) fn manage_created(
        &self,
        target: Target<'_>,
        object: &mut dyn Object,
        manager: FieldManager<'_>,
    ) {
        let FieldManager::Update(manager) = manager else {
            return;
        };
        let given = object.meta_mut().managed_fields.take();
        let managers = read(given.as_ref()).unwrap_or_default();
        let nothing = Value::Object(Map::new());
        let settled = self.settle(target, "", managers, &nothing, object, manager);
        object.meta_mut().managed_fields = settled.and_then(Managers::write);
    }

    /// Settles the managers of an object that is changed. The old object is as it was afterwards.
    pub(super) fn manage_updated(
        &self,
        target: Target<'_>,
        part: Part,
        new: &mut dyn Object,
        old: &mut dyn Object,
        manager: FieldManager<'_>,
    ) {
        let subresource = part.subresource();
        if UNTRACKED.contains(&subresource) {
            let entries = old.meta().managed_fields.clone();
            new.meta_mut().managed_fields = entries;
            return;
        }
        let FieldManager::Update(manager) = manager else {
            return;
        };
        let given = new.meta_mut().managed_fields.take();
        let before = old.meta_mut().managed_fields.take();
        // Only the main resource takes managers from a client.
        let given = given.filter(|_| subresource.is_empty());
        let reset = entries::is_reset(given.as_ref());
        let kept = given.is_none() || given == before;
        if !reset && kept && new.same(old) {
            new.meta_mut().managed_fields.clone_from(&before);
            old.meta_mut().managed_fields = before;
            return;
        }
        let managers = if reset {
            Some(Managers::default())
        } else {
            let given = given.as_ref().and_then(|given| read(Some(given)));
            given
                .filter(|managers| !managers.is_empty())
                .or_else(|| read(before.as_ref()))
        };
        let settled = old.to_value().ok().and_then(|old| {
            let managers = managers.unwrap_or_default();
            self.settle(target, subresource, managers, &old, new, manager)
        });
        new.meta_mut().managed_fields = match settled {
            Some(managers) => managers.write(),
            None => before.clone(),
        };
        old.meta_mut().managed_fields = before;
    }

    /// `None` where it cannot be told who manages what.
    fn settle(
        &self,
        target: Target<'_>,
        subresource: &str,
        mut managers: Managers,
        old: &Value,
        new: &dyn Object,
        manager: &str,
    ) -> Option<Managers> {
        let new = new.to_value().ok()?;
        let api_version = target.kind.descriptor().api_version();
        let versions = self.versions(target);
        let write = Write {
            api_version: &api_version,
            structure: target.kind.structure(),
            versions: &versions,
            reset: &reset_fields(&**target.kind, subresource),
            only: target.kind.only_fields(subresource),
            manager,
            subresource,
            now: super::meta::now().0,
        };
        match managed::update(&mut managers, old, &new, &write) {
            Ok(()) => Some(managers),
            Err(error) => {
                let name = target.name;
                tracing::debug!(%error, name, "managed fields stay as they were");
                None
            }
        }
    }
}

fn read(entries: Option<&Vec<ManagedFieldsEntry>>) -> Option<Managers> {
    Managers::read(entries.map_or(&[], Vec::as_slice)).ok()
}

/// Fields that a write of this subresource cannot change.
pub(super) fn reset_fields(kind: &dyn Kind, subresource: &str) -> Set {
    Set::of(kind.reset_fields(subresource).iter().copied())
}

/// Gives an object the times that its managers had, where nothing else about it has changed, so
/// that a write that changes nothing is none.
pub(super) fn keep_times(new: &mut dyn Object, old: &dyn Object) {
    let before = &old.meta().managed_fields;
    let after = &new.meta().managed_fields;
    if before == after || !entries::same_but_times(after.as_ref(), before.as_ref()) {
        return;
    }
    let before = before.clone();
    let meta = new.meta_mut();
    let after = std::mem::replace(&mut meta.managed_fields, before);
    let version = meta.resource_version.take();
    meta.resource_version
        .clone_from(&old.meta().resource_version);
    let same = new.same(old);
    let meta = new.meta_mut();
    meta.resource_version = version;
    if !same {
        meta.managed_fields = after;
    }
}
