//! The scheduler: it binds each Pod to a node.
//!
//! The scheduling framework of Kubernetes: Pods wait in a [`queue`]; for each, the filters say
//! which nodes are possible and the scores which is best ([`schedule`]); the Pod is assumed
//! there in the [`cache`], and bound in the background while the next one is scheduled. What a
//! filter or score is, [`framework`] says; each is a module of [`plugins`].
//!
//! One task, [`scheduler`], owns queue and cache: there are no locks. It learns of the world
//! through two [`Feed`]s, which the process shares with its other parts, and writes through
//! `kube::Client`.
//!
//! Deliberately absent: preemption (its place is [`framework::PostFilter`]), inter-Pod affinity,
//! topology spread and volumes.

mod cache;
mod framework;
mod outcome;
mod plugins;
mod queue;
mod resources;
mod schedule;
mod scheduler;

use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::runtime::reflector::{Lookup, Store};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// The name that Pods carry in `spec.schedulerName` unless they say otherwise.
pub const DEFAULT_NAME: &str = "default-scheduler";

/// One kind of objects: the cache, and a hint for each object that changes. After a hint the
/// cache tells the truth; a receiver that falls behind looks at the whole cache.
pub struct Feed<K: Lookup + 'static>
where
    K::DynamicType: Eq + Hash,
{
    /// What there is.
    pub store: Store<K>,
    /// What changes, as it is or was.
    pub changes: broadcast::Receiver<Arc<K>>,
    /// Whether the cache holds all that there was at the start.
    pub ready: watch::Receiver<bool>,
}

/// What the scheduler needs to know.
pub struct SchedulerConfig {
    /// Only Pods of this `spec.schedulerName` are scheduled.
    pub name: String,
    /// All Pods of the cluster.
    pub pods: Feed<Pod>,
    /// All nodes of the cluster.
    pub nodes: Feed<Node>,
}

impl SchedulerConfig {
    /// The default scheduler over these feeds.
    pub fn new(pods: Feed<Pod>, nodes: Feed<Node>) -> Self {
        let name = DEFAULT_NAME.to_owned();
        Self { name, pods, nodes }
    }
}

/// Why the scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watch behind a feed is gone; start the scheduler anew with a living one.
    #[error("the feed of {0} ended")]
    FeedEnded(&'static str),
}

/// Schedules until `cancel`.
///
/// # Errors
/// When a feed ends.
pub async fn run(
    client: Client,
    config: SchedulerConfig,
    cancel: CancellationToken,
) -> Result<(), Error> {
    scheduler::Scheduler::new(client, config, &cancel)
        .run(cancel)
        .await
}
