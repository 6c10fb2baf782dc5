//! The garbage collector: objects whose owners are gone go too.
//!
//! It watches the metadata of every served resource that can be deleted, except Events; for
//! kinds that have a shared informer it listens to that. What it learns makes the [`graph`] of
//! owners. The graph only suggests whom to look at: before anything is deleted, the object and
//! each of its owners are read from the API server, by name and uid ([`collect`]), and
//! [`verdict`] decides.
//!
//! What comes and goes it tells the inventory too, by which quotas count.
//!
//! Three ways, as Kubernetes has them: *background* (the owner is gone, dependents follow),
//! *foreground* (the owner waits, by a finalizer, for dependents that block its deletion), and
//! *orphan* (by another finalizer, dependents forget the owner before it goes).

mod collect;
mod feeds;
mod graph;
mod places;
mod sighting;
mod verdict;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::core::discovery::ApiResource;
use tokio::sync::Notify;

use crate::context::Context;
use crate::discovery::{Served, resource_name, served};
use crate::queue::WorkQueue;
use graph::{Graph, Uid};

/// Passes at once.
const WORKERS: usize = 20;
/// Between looks at which resources are served.
const REDISCOVER: Duration = Duration::from_secs(30);
/// For the first lists of all resources; what is not there by then is verified live anyway.
const SYNC: Duration = Duration::from_secs(30);
/// Owners known to be absent that are remembered.
const ABSENT: usize = 4096;

/// What the collector's tasks share.
pub(super) struct Garbage {
    context: Context,
    graph: Mutex<Graph>,
    queue: WorkQueue<Uid>,
    /// What is served, as last discovered.
    served: Mutex<Vec<Served>>,
    /// Resources whose first list is awaited, and who waits.
    unsynced: Mutex<HashSet<ApiResource>>,
    synced: Notify,
    absent: Mutex<HashSet<Uid>>,
}

pub(crate) async fn run(context: Context) {
    let garbage = Arc::new(Garbage {
        graph: Mutex::default(),
        queue: WorkQueue::new(Duration::ZERO),
        served: Mutex::default(),
        unsynced: Mutex::default(),
        synced: Notify::new(),
        absent: Mutex::default(),
        context: context.clone(),
    });
    let mut feeds = feeds::Feeds::new(garbage.clone());
    while let Err(error) = feeds.follow().await {
        tracing::warn!(%error, "resources could not be discovered, will retry");
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    tokio::select! {
        () = context.cancel.cancelled() => return,
        () = garbage.wait_until_synced() => {}
        () = tokio::time::sleep(SYNC) => tracing::warn!("some resources could not be listed yet"),
    }
    let suggestions = lock(&garbage.graph).start();
    suggestions
        .into_iter()
        .for_each(|uid| garbage.queue.add(uid));
    let rediscover = async {
        loop {
            tokio::time::sleep(REDISCOVER).await;
            if let Err(error) = feeds.follow().await {
                tracing::warn!(%error, "resources could not be discovered, will retry");
            }
        }
    };
    let work = garbage
        .queue
        .drive("garbage", WORKERS, context.cancel.clone(), |uid| {
            let garbage = garbage.clone();
            async move { garbage.collect(uid).await }
        });
    tokio::select! {
        () = work => {}
        () = rediscover => {}
    }
}

impl Garbage {
    async fn wait_until_synced(&self) {
        loop {
            let notified = self.synced.notified();
            if lock(&self.unsynced).is_empty() {
                return;
            }
            notified.await;
        }
    }

    fn mark_synced(&self, resource: &ApiResource) {
        lock(&self.unsynced).remove(resource);
        self.context.inventory.listed(resource_name(resource));
        self.synced.notify_waiters();
    }

    /// Lets the graph change, and looks at whom it suggests.
    fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Uid>) {
        let (suggestions, tallies) = {
            let mut graph = lock(&self.graph);
            (change(&mut graph), graph.take_tallies())
        };
        self.context.inventory.tally(tallies);
        suggestions.into_iter().for_each(|uid| self.queue.add(uid));
    }

    /// Asks the API server what it serves.
    async fn discover(&self) -> Result<Vec<Served>, crate::Error> {
        let found = served(&self.context.client).await?;
        lock(&self.served).clone_from(&found);
        Ok(found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
