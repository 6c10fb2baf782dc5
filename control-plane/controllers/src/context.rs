//! What every controller is given: the client, the caches, the recorder, and the two loops that
//! turn changes into keys and keys into passes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::Events;
use crate::informer::{Informer, Informers};
use crate::inventory::Inventory;
use crate::queue::WorkQueue;

/// The least time between two passes over one object, so that the hundreds of changes of a
/// big rollout cost a bounded number of passes and status writes.
pub(crate) const PACE: Duration = Duration::from_millis(25);

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) events: Events,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

impl Context {
    /// Adds to `queue`, for every change that `informer` sees, the keys that `keys` finds in the
    /// object; once at the start and after an overflow for every object there is.
    pub(crate) fn route<K, Q>(
        &self,
        informer: &Informer<K>,
        queue: &WorkQueue<Q>,
        keys: impl Fn(&K) -> Vec<Q> + Send + Sync + 'static,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
        Q: Clone + Debug + Eq + Hash + Send + Sync + 'static,
    {
        let queue = queue.clone();
        let add = move |object: &K| keys(object).into_iter().for_each(|key| queue.add(key));
        self.observe(informer, move |change| match change {
            Change::Object(object) => add(&object),
            Change::All(objects) => objects.iter().for_each(|object| add(object)),
        });
    }

    /// Calls `see` with every change that `informer` sees.
    pub(crate) fn observe<K>(
        &self,
        informer: &Informer<K>,
        mut see: impl FnMut(Change<K>) + Send + 'static,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let mut changes = informer.subscribe();
        let (store, informer) = (informer.store().clone(), informer.clone());
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = informer.wait_until_ready() => {}
            }
            // Kept, it would keep the channel open when the watch has ended.
            drop(informer);
            see(Change::All(store.state()));
            loop {
                let change = tokio::select! {
                    () = cancel.cancelled() => return,
                    change = changes.recv() => change,
                };
                match change {
                    Ok(object) => see(Change::Object(object)),
                    Err(RecvError::Lagged(_)) => see(Change::All(store.state())),
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }
}

/// What a subscriber learns.
pub(crate) enum Change<K> {
    /// This object changed, appeared or went away.
    Object(Arc<K>),
    /// Anything may have changed, these are all there are.
    All(Vec<Arc<K>>),
}

/// What this process wrote and its caches may not show yet, by key.
///
/// A pass that acts on a cache older than the controller's own last writes would do its work
/// twice: create the same Pods again. So each write leaves its resourceVersion here, and a pass
/// waits until the cache has seen that version. (Kubernetes counts expectations instead; versions
/// need no counting.) Forgotten after [`Writes::PATIENCE`], in case that the version never
/// shows: objects may be gone before a new list.
#[derive(Debug)]
pub(crate) struct Writes<K> {
    written: Mutex<HashMap<K, (u64, Instant)>>,
}

impl<K: Eq + Hash + Clone> Writes<K> {
    const PATIENCE: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Self {
        let written = Mutex::new(HashMap::new());
        Self { written }
    }

    /// Remembers that `key`'s last write has this version.
    pub(crate) fn wrote(&self, key: &K, revision: u64) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = written
            .entry(key.clone())
            .or_insert((revision, Instant::now()));
        *entry = (revision.max(entry.0), Instant::now());
    }

    /// Whether a cache at `revision` shows all that was written for `key`; else how long to
    /// wait at most before asking again.
    pub(crate) fn shown(&self, key: &K, revision: u64) -> Result<(), Duration> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((wanted, since)) = written.get(key) else {
            return Ok(());
        };
        let left = Self::PATIENCE.saturating_sub(since.elapsed());
        if *wanted > revision && !left.is_zero() {
            return Err(left);
        }
        written.remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_waits_for_its_own_writes() {
        let writes = Writes::new();
        assert!(writes.shown(&"rs", 0).is_ok());
        writes.wrote(&"rs", 7);
        writes.wrote(&"rs", 5);
        assert!(writes.shown(&"rs", 6).is_err());
        assert!(writes.shown(&"other", 0).is_ok());
        assert!(writes.shown(&"rs", 7).is_ok());
        assert!(writes.shown(&"rs", 0).is_ok(), "forgotten once shown");
    }
}
