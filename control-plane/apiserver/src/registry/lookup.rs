//! Finding kinds by the names that requests use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::erased::Kind;

/// Kinds by their version within a group.
pub type Versions<'a> = BTreeMap<&'a str, Vec<&'a Arc<dyn Kind>>>;
/// Kinds by their group and version.
pub type Groups<'a> = BTreeMap<&'a str, Versions<'a>>;

/// Versions of a group in the order in which clients should prefer them, by Kubernetes' rule:
/// stable ones, then beta, then alpha, each from the newest; then what is no such name.
#[must_use]
pub fn by_priority<'a, T>(versions: &'a BTreeMap<&'a str, T>) -> Vec<(&'a str, &'a T)> {
    let mut sorted: Vec<(&str, &T)> = versions
        .iter()
        .map(|(name, kinds)| (*name, kinds))
        .collect();
    sorted.sort_by_key(|(name, _)| std::cmp::Reverse(priority(name)));
    sorted
}

/// Stability, version and the version within the stability.
fn priority(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    for (word, stability) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, major.parse().ok()?, minor.parse().ok()?));
        }
    }
    Some((3, rest.parse().ok()?, 0))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_by_priority() {
        let names = [
            "foo1",
            "v1",
            "v10",
            "v11alpha2",
            "v1alpha1",
            "v1beta2",
            "v2",
        ];
        let versions: BTreeMap<&str, ()> = names.map(|name| (name, ())).into();
        let sorted: Vec<&str> = by_priority(&versions)
            .into_iter()
            .map(|(n, ())| n)
            .collect();
        let want = [
            "v10",
            "v2",
            "v1",
            "v1beta2",
            "v11alpha2",
            "v1alpha1",
            "foo1",
        ];
        assert_eq!(sorted, want);
    }
}
