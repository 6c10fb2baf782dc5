//! The objects as they are now, in the order of their keys.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::types::Record;

/// A record knows its key: a map would hold it a second time.
struct ByKey(Record);

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

/// The objects.
#[derive(Default)]
pub(crate) struct Objects(BTreeSet<ByKey>);

impl Objects {
    pub(super) fn get(&self, key: &str) -> Option<&Record> {
        self.0.get(key).map(|found| &found.0)
    }

    /// Puts a record at its key; returns what it replaces.
    pub(crate) fn insert(&mut self, record: Record) -> Option<Record> {
        self.0.replace(ByKey(record)).map(|replaced| replaced.0)
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.iter().map(|found| &found.0)
    }

    /// From a key on.
    pub(super) fn from(&self, key: Bound<&str>) -> impl Iterator<Item = &Record> {
        let range = self.0.range::<str, _>((key, Bound::Unbounded));
        range.map(|found| &found.0)
    }
}
