//! The managers of an object, as they stand in `metadata.managedFields`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::Value;

use crate::apply::Set;

/// Managers by update that an object has at most; the oldest are merged beyond that.
const MAX_UPDATERS: usize = 10;

/// The name of those that were merged.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// By applying a configuration.
    Apply,
    /// By any other write.
    Update,
}

/// Who manages fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manager {
    /// The name that it gave.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// The version in which it updates; empty for one that applies.
    pub api_version: String,
    /// The subresource by which it writes; empty for the object itself.
    pub subresource: String,
}

/// What a manager has.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The version whose fields these are.
    pub api_version: String,
    /// Its fields.
    pub fields: Set,
    /// When it last changed any of them.
    pub time: Option<jiff::Timestamp>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(BTreeMap<Manager, Entry>);

/// What is wrong with managedFields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata.managedFields[{index}]: {message}")]
pub struct Malformed {
    index: usize,
    message: String,
}

impl Managers {
    /// Reads them.
    ///
    /// # Errors
    /// What is malformed.
    pub fn read(entries: &[ManagedFieldsEntry]) -> Result<Self, Malformed> {
        Self::read_by(entries, &Set::from_fields)
    }

    /// Reads them where a string may stand for a set, whose text it is. No client's entries are read
    /// so: to them a string is no set.
    ///
    /// # Errors
    /// What is malformed.
    pub fn read_text(entries: &[ManagedFieldsEntry]) -> Result<Self, Malformed> {
        Self::read_by(entries, &|fields: &Value| match fields {
            Value::String(text) => Set::from_text(text),
            fields => Set::from_fields(fields),
        })
    }

    fn read_by(entries: &[ManagedFieldsEntry], set: &ReadSet) -> Result<Self, Malformed> {
        let mut managers = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let read = read(entry, set);
            let (manager, entry) = read.map_err(|message| Malformed { index, message })?;
            managers.insert(manager, entry);
        }
        Ok(Self(managers))
    }

    /// Writes them, in the order that Kubernetes has: appliers first, then by time.
    #[must_use]
    pub fn write(self) -> Option<Vec<ManagedFieldsEntry>> {
        self.write_by(Set::to_fields)
    }

    /// Writes them with a string for each set, which is its text.
    #[must_use]
    pub fn write_text(self) -> Option<Vec<ManagedFieldsEntry>> {
        self.write_by(|set| set.to_text().into())
    }

    fn write_by(self, fields: impl Fn(&Set) -> Value) -> Option<Vec<ManagedFieldsEntry>> {
        if self.0.is_empty() {
            return None;
        }
        let seconds = |time: Option<jiff::Timestamp>| time.map_or(0, |time| time.as_second());
        let mut all: Vec<(Manager, Entry)> = self.0.into_iter().collect();
        // The rest of the order is that of the map.
        all.sort_by_key(|(manager, entry)| (manager.operation, seconds(entry.time)));
        let entries = all.into_iter().map(|(manager, entry)| ManagedFieldsEntry {
            api_version: Some(entry.api_version),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(fields(&entry.fields))),
            manager: Some(manager.name).filter(|name| !name.is_empty()),
            operation: Some(match manager.operation {
                Operation::Apply => "Apply".to_owned(),
                Operation::Update => "Update".to_owned(),
            }),
            subresource: Some(manager.subresource).filter(|name| !name.is_empty()),
            time: entry.time.map(Time),
        });
        Some(entries.collect())
    }

    /// Whether nobody manages anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a manager has.
    #[must_use]
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.0.get(manager)
    }

    /// The managers, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Entry)> {
        self.0.iter()
    }

    pub(super) fn insert(&mut self, manager: Manager, entry: Entry) {
        self.0.insert(manager, entry);
    }

    pub(super) fn remove(&mut self, manager: &Manager) -> Option<Entry> {
        self.0.remove(manager)
    }

    pub(super) fn subtract(&mut self, manager: &Manager, fields: &Set) {
        if let Some(entry) = self.0.get_mut(manager) {
            entry.fields = std::mem::take(&mut entry.fields).difference(fields);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        self.0.retain(|_, entry| keep(entry));
    }

    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Merges the oldest managers by update where there are too many.
    pub(super) fn cap(&mut self) {
        let by_update = |manager: &&Manager| manager.operation == Operation::Update;
        let mut updaters: Vec<Manager> = self.0.keys().filter(by_update).cloned().collect();
        let mut left = updaters.len();
        if left <= MAX_UPDATERS {
            return;
        }
        let age = |manager: &Manager| {
            let time = self.0.get(manager).and_then(|entry| entry.time);
            time.map_or(0, |time| time.as_second())
        };
        updaters.sort_by_key(age);
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if left <= MAX_UPDATERS {
                break;
            }
            let Some(version) = self.0.get(&manager).map(|entry| entry.api_version.clone()) else {
                continue;
            };
            let Some(first) = first_of.get(&version).cloned() else {
                first_of.insert(version, manager);
                continue;
            };
            let bucket = Manager {
                name: ANCIENT.to_owned(),
                operation: Operation::Update,
                api_version: version,
                subresource: String::new(),
            };
            if !self.0.contains_key(&bucket)
                && let Some(entry) = self.0.remove(&first)
            {
                self.0.insert(bucket.clone(), entry);
            }
            if manager == bucket {
                continue;
            }
            if let Some(merged) = self.0.remove(&manager)
                && let Some(entry) = self.0.get_mut(&bucket)
            {
                entry.fields = std::mem::take(&mut entry.fields).union(merged.fields);
                // The more recent of the two.
                entry.time = merged.time;
                left -= 1;
            }
        }
    }
}

/// How a set is read.
type ReadSet = dyn Fn(&Value) -> Result<Set, String>;

fn read(entry: &ManagedFieldsEntry, set: &ReadSet) -> Result<(Manager, Entry), String> {
    let operation = match entry.operation.as_deref() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    let api_version = match entry.api_version.as_deref() {
        None | Some("") => return Err("apiVersion must not be empty".to_owned()),
        Some(api_version) => api_version.to_owned(),
    };
    match entry.fields_type.as_deref() {
        Some("FieldsV1") => {}
        None | Some("") => return Err("fieldsType is missing".to_owned()),
        Some(other) => return Err(format!("invalid fieldsType {other:?}")),
    }
    let fields = match &entry.fields_v1 {
        Some(FieldsV1(fields)) if !fields.is_null() => set(fields)?,
        _ => Set::default(),
    };
    let manager = Manager {
        name: entry.manager.clone().unwrap_or_default(),
        operation,
        api_version: match operation {
            Operation::Apply => String::new(),
            Operation::Update => api_version.clone(),
        },
        subresource: entry.subresource.clone().unwrap_or_default(),
    };
    let entry = Entry {
        api_version,
        fields,
        time: entry.time.as_ref().map(|time| time.0),
    };
    Ok((manager, entry))
}

/// Whether a client asks to forget all managers: `managedFields: [{}]`, or an empty list.
#[must_use]
pub fn is_reset(entries: Option<&Vec<ManagedFieldsEntry>>) -> bool {
    match entries.map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => *entry == ManagedFieldsEntry::default(),
        _ => false,
    }
}

/// Whether two lists of entries differ in nothing but times.
#[must_use]
pub fn same_but_times(
    a: Option<&Vec<ManagedFieldsEntry>>,
    b: Option<&Vec<ManagedFieldsEntry>>,
) -> bool {
    let (a, b) = (
        a.map_or(&[][..], Vec::as_slice),
        b.map_or(&[][..], Vec::as_slice),
    );
    a.len() == b.len() && a.iter().all(|a| b.iter().any(|b| same_but_time(a, b)))
}

fn same_but_time(a: &ManagedFieldsEntry, b: &ManagedFieldsEntry) -> bool {
    let ManagedFieldsEntry {
        api_version,
        fields_type,
        fields_v1,
        manager,
        operation,
        subresource,
        time: _,
    } = a;
    *manager == b.manager
        && *operation == b.operation
        && *subresource == b.subresource
        && *api_version == b.api_version
        && *fields_type == b.fields_type
        && *fields_v1 == b.fields_v1
}
