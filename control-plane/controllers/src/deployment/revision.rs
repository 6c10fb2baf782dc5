//! The annotations that carry a Deployment's history, as kubectl reads them.

use std::collections::BTreeMap;

use coracle_apimachinery::managed::last_applied;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;

use super::template::wanted;

/// The number of a revision; on a Deployment, of its current one.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a revision that was rolled back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the ReplicaSet was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The Deployment's replicas plus surge when the ReplicaSet was last scaled.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations that are not copied from a Deployment to its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    last_applied::ANNOTATION,
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];

/// The longest history kept, in characters.
const HISTORY_LIMIT: usize = 2000;

/// Annotations to be set.
pub(super) type Annotations = BTreeMap<String, String>;

/// The revision of a ReplicaSet or Deployment; zero when it has none.
pub(super) fn revision<K: ResourceExt>(object: &K) -> i64 {
    number(object, REVISION).unwrap_or(0)
}

/// The value of a numeric annotation.
pub(super) fn number<K: ResourceExt>(object: &K, annotation: &str) -> Option<i64> {
    object.annotations().get(annotation)?.parse().ok()
}

/// The revision that the current template has or gets, given the other ReplicaSets.
pub(super) fn current<'a>(old: impl Iterator<Item = &'a ReplicaSet>) -> i64 {
    old.map(revision).max().unwrap_or(0) + 1
}

/// Annotations that a new ReplicaSet starts with.
pub(super) fn initial(deployment: &Deployment, revision: i64, max: i32) -> Annotations {
    let mut annotations = copied(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.extend(size(deployment, max));
    annotations
}

/// Annotations by which a ReplicaSet remembers the Deployment's size.
pub(super) fn size(deployment: &Deployment, max: i32) -> Annotations {
    let desired = (DESIRED.to_owned(), wanted(deployment).to_string());
    [desired, (MAX.to_owned(), max.to_string())].into()
}

/// Annotations that the ReplicaSet of the current template lacks or has otherwise.
pub(super) fn missing(deployment: &Deployment, set: &ReplicaSet, revision: i64) -> Annotations {
    let mut wanted = copied(deployment);
    let old = self::revision(set);
    // The number only grows: this runs also while the caches are behind.
    if old < revision {
        wanted.insert(REVISION.to_owned(), revision.to_string());
        if old > 0 {
            wanted.insert(HISTORY.to_owned(), history(set, old));
        }
    }
    let has = set.annotations();
    wanted.retain(|key, value| has.get(key) != Some(value));
    wanted
}

fn copied(deployment: &Deployment) -> Annotations {
    let copied = |key: &str| !NOT_COPIED.contains(&key);
    let annotations = deployment
        .annotations()
        .iter()
        .filter(|(key, _)| copied(key));
    annotations
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn history(set: &ReplicaSet, old: i64) -> String {
    let so_far = set.annotations().get(HISTORY).map_or("", String::as_str);
    let mut numbers: Vec<String> = so_far
        .split(',')
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect();
    numbers.push(old.to_string());
    while numbers.join(",").len() > HISTORY_LIMIT {
        numbers.remove(0);
    }
    numbers.join(",")
}
