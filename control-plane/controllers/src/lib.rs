//! The controllers: each brings what is there to what was asked for.
//!
//! A controller is four steps. It reads the caches of the shared [`informer`]s; a pure `plan`
//! decides, a function from what was observed to a list of actions; the actions are applied; a
//! status is written. Plans are tested as tables, and nothing else decides. The loop around
//! that is one work queue per controller: one pass per object at a time, back-off after
//! failures, and a pace, so that a burst of changes costs one pass.
//!
//! Deliberately absent: controllers know the Kubernetes API alone, through `kube::Client`; they
//! share nothing with the API server, and no two of them run for one cluster at a time
//! (whoever calls [`run`] sees to that). The `kubernetes` Service is the API server's own.

mod context;
mod deployment;
mod discovery;
mod endpoints;
mod error;
mod events;
pub mod informer;
mod namespace;
mod node_cidr;
mod owners;
mod pods;
mod queue;
mod replica_set;
mod service_account;

use std::future::Future;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use context::Context;
pub use error::Error;
use events::Events;
use informer::Informers;
pub use node_cidr::Cidr;

/// What the controllers need to know.
#[derive(Clone)]
pub struct ControllersConfig {
    /// The caches, shared with the other parts of the process.
    pub informers: Informers,
    /// The range that all Pod addresses are from.
    pub cluster_cidr: Cidr,
    /// The prefix length of a node's part of it.
    pub node_cidr_mask_size: u8,
}

impl ControllersConfig {
    /// The defaults over these caches: 10.42.0.0/16, and a /24 of it for each node.
    pub fn new(informers: Informers) -> Self {
        Self {
            informers,
            cluster_cidr: Cidr::DEFAULT,
            node_cidr_mask_size: 24,
        }
    }
}

/// Runs all controllers until `cancel`.
///
/// # Errors
/// When a controller ends on its own, which none does while the process is sound.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let stop = cancel.child_token();
    let (events, writer) = Events::new(client.clone(), stop.clone());
    let context = Context {
        client,
        informers: config.informers.clone(),
        events,
        tasks: TaskTracker::new(),
        cancel: stop.clone(),
    };
    context.tasks.spawn(writer);
    let mut controllers = JoinSet::new();
    let mut start = |name: &'static str, controller: Controller| {
        controllers.spawn(async move {
            controller.await;
            name
        });
    };
    start("deployment", Box::pin(deployment::run(context.clone())));
    start("replicaset", Box::pin(replica_set::run(context.clone())));
    start("endpointslice", Box::pin(endpoints::run(context.clone())));
    start("namespace", Box::pin(namespace::run(context.clone())));
    start(
        "serviceaccount",
        Box::pin(service_account::run(context.clone())),
    );
    let ranges = node_cidr::Ranges {
        cluster: config.cluster_cidr,
        node_mask: config.node_cidr_mask_size,
    };
    start(
        "nodecidr",
        Box::pin(node_cidr::run(context.clone(), ranges)),
    );
    let ended = controllers.join_next().await;
    stop.cancel();
    while controllers.join_next().await.is_some() {}
    context.tasks.close();
    context.tasks.wait().await;
    match ended {
        _ if cancel.is_cancelled() => Ok(()),
        Some(Ok(name)) => Err(Error::Object(format!(
            "the {name} controller ended by itself"
        ))),
        Some(Err(error)) => Err(Error::Object(format!("a controller failed: {error}"))),
        None => Ok(()),
    }
}

type Controller = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
