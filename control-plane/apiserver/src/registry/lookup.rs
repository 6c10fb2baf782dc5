//! Finding kinds by the names that requests use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::erased::Kind;

/// Kinds by their group and version.
pub type Groups<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Arc<dyn Kind>>>>;

/// The kinds that are served.
pub struct Kinds {
    all: Vec<Arc<dyn Kind>>,
    by_resource: HashMap<(String, String, String), usize>,
}

impl Kinds {
    /// A table of these kinds.
    #[must_use]
    pub fn new(all: Vec<Arc<dyn Kind>>) -> Self {
        let by_resource = all
            .iter()
            .enumerate()
            .map(|(index, kind)| {
                let d = kind.descriptor();
                (
                    (d.group.clone(), d.version.clone(), d.plural.clone()),
                    index,
                )
            })
            .collect();
        Self { all, by_resource }
    }

    /// All of them, in the order in which discovery lists them.
    #[must_use]
    pub fn all(&self) -> &[Arc<dyn Kind>] {
        &self.all
    }

    /// The kind behind a plural name.
    #[must_use]
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<dyn Kind>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_resource.get(&key).map(|&index| &self.all[index])
    }

    /// The kind that stores objects under this segment of keys.
    #[must_use]
    pub fn stored(&self, storage: &str) -> Option<&Arc<dyn Kind>> {
        self.all.iter().find(|kind| {
            let descriptor = kind.descriptor();
            descriptor.storage == storage && !descriptor.converted
        })
    }

    /// Groups with their versions and the kinds in them; the core group is the empty string.
    #[must_use]
    pub fn groups(&self) -> Groups<'_> {
        let mut groups = Groups::new();
        for kind in &self.all {
            let d = kind.descriptor();
            groups
                .entry(&d.group)
                .or_default()
                .entry(&d.version)
                .or_default()
                .push(kind);
        }
        groups
    }
}
