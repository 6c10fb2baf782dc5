//! How many objects of each resource every namespace has, as the garbage collector's feeds see
//! it: quotas count kinds of which nothing else is known here.
//!
//! A namespace whose numbers change is announced in a bounded channel; who falls behind is told
//! so by the channel and looks at everything.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

/// Changes that a slow subscriber may be behind.
const CHANGES: usize = 256;

/// One object more or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) namespace: Arc<str>,
    /// As messages name it: `deployments.apps`.
    pub(crate) resource: String,
    pub(crate) more: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Inventory {
    counts: Mutex<Counts>,
    changes: broadcast::Sender<Changed>,
}

/// Where numbers changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// In this namespace.
    Namespace(Arc<str>),
    /// Wherever there are quotas: a resource can be counted that could not be before.
    Everywhere,
}

#[derive(Debug, Default)]
struct Counts {
    /// By namespace, then by resource; none is zero.
    numbers: HashMap<Arc<str>, HashMap<String, i64>>,
    /// Resources of which all objects were seen once.
    listed: HashSet<String>,
}

impl Inventory {
    pub(crate) fn new() -> Self {
        Self {
            counts: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES),
        }
    }

    pub(crate) fn tally(&self, changes: Vec<Tally>) {
        if changes.is_empty() {
            return;
        }
        let mut counts = self.lock();
        for change in &changes {
            counts.apply(change);
        }
        drop(counts);
        for change in changes {
            // Nobody listening is no error.
            let _ = self.changes.send(Changed::Namespace(change.namespace));
        }
    }

    /// All objects of the resource are known from now on.
    pub(crate) fn listed(&self, resource: String) {
        if self.lock().listed.insert(resource) {
            let _ = self.changes.send(Changed::Everywhere);
        }
    }

    /// The resource is served no more.
    pub(crate) fn forget(&self, resource: &str) {
        self.lock().listed.remove(resource);
    }

    /// How many there are in a namespace; `None` where nobody knows.
    pub(crate) fn count(&self, namespace: &str, resource: &str) -> Option<i64> {
        let counts = self.lock();
        let number = || Some(*counts.numbers.get(namespace)?.get(resource)?);
        counts
            .listed
            .contains(resource)
            .then(|| number().unwrap_or(0))
    }

    /// Where numbers change from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn apply(&mut self, change: &Tally) {
        let numbers = self.numbers.entry(change.namespace.clone()).or_default();
        let number = numbers.entry(change.resource.clone()).or_default();
        *number += if change.more { 1 } else { -1 };
        if *number == 0 {
            numbers.remove(&change.resource);
        }
        if numbers.is_empty() {
            self.numbers.remove(&change.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_counted() {
        let inventory = Inventory::new();
        let mut changes = inventory.subscribe();
        let tally = |namespace: &str, more| Tally {
            namespace: namespace.into(),
            resource: "secrets".to_owned(),
            more,
        };
        inventory.tally(vec![tally("a", true), tally("a", true), tally("b", true)]);
        assert_eq!(inventory.count("a", "secrets"), None, "not listed yet");
        inventory.listed("secrets".to_owned());
        assert_eq!(inventory.count("a", "secrets"), Some(2));
        assert_eq!(inventory.count("c", "secrets"), Some(0));
        assert_eq!(inventory.count("a", "widgets.example.com"), None);
        inventory.tally(vec![tally("a", false), tally("b", false)]);
        assert_eq!(inventory.count("a", "secrets"), Some(1));
        assert_eq!(
            inventory.lock().numbers.len(),
            1,
            "empty namespaces cost nothing"
        );
        let seen: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        let [a, b] = ["a", "b"].map(|name| Changed::Namespace(name.into()));
        let want = [a.clone(), a.clone(), b.clone(), Changed::Everywhere, a, b];
        assert_eq!(seen, want);
        inventory.forget("secrets");
        assert_eq!(inventory.count("a", "secrets"), None);
    }
}
