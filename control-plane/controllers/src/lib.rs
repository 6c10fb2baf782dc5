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
mod disruption;
mod endpoints;
mod error;
mod events;
mod garbage;
pub mod informer;
mod inventory;
mod namespace;
mod node_cidr;
mod node_lifecycle;
mod owners;
mod pod_gc;
mod pods;
mod queue;
mod quota;
mod replica_set;
mod root_ca;
mod service_account;
mod storage_protection;
mod token_secrets;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use context::Context;
pub use error::Error;
use events::Events;
use informer::Informers;
use inventory::Inventory;
pub use node_cidr::Cidr;
pub use node_lifecycle::NodeTimes;
pub use token_secrets::{TokenOwner, TokenSigner};

/// What the controllers need to know.
#[derive(Clone)]
pub struct ControllersConfig {
    /// The caches, shared with the other parts of the process.
    pub informers: Informers,
    /// The range that all Pod addresses are from.
    pub cluster_cidr: Cidr,
    /// The prefix length of a node's part of it.
    pub node_cidr_mask_size: u8,
    /// How long nodes may be silent.
    pub node_times: NodeTimes,
    /// Ended Pods beyond this number are deleted, the oldest first.
    pub ended_pods: usize,
    /// The certificates (PEM) by which Pods know the API server; every namespace gets them as
    /// the ConfigMap `kube-root-ca.crt`. Without them it gets none.
    pub root_ca: Option<String>,
    /// Makes the tokens that Secrets hold. Without it none is filled.
    pub token_signer: Option<TokenSigner>,
}

impl ControllersConfig {
    /// The defaults over these caches: 10.42.0.0/16, and a /24 of it for each node.
    pub fn new(informers: Informers) -> Self {
        Self {
            informers,
            cluster_cidr: Cidr::DEFAULT,
            node_cidr_mask_size: 24,
            node_times: NodeTimes::default(),
            ended_pods: 12_500,
            root_ca: None,
            token_signer: None,
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
        inventory: Arc::new(Inventory::new()),
        tasks: TaskTracker::new(),
        cancel: stop.clone(),
    };
    context.tasks.spawn(writer);
    // A controller that sees one kind and not yet another would act on half the truth.
    tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        () = config.informers.wait_until_ready() => {}
    }
    let mut controllers = JoinSet::new();
    start_all(&mut controllers, &context, &config);
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

/// The one list of controllers; each ends with the context.
fn start_all(
    controllers: &mut JoinSet<&'static str>,
    context: &Context,
    config: &ControllersConfig,
) {
    let ranges = node_cidr::Ranges {
        cluster: config.cluster_cidr,
        node_mask: config.node_cidr_mask_size,
    };
    let mut start = |name: &'static str, controller: BoxFuture<'static, ()>| {
        controllers.spawn(controller.map(move |()| name));
    };
    let context = || context.clone();
    start("deployment", deployment::run(context()).boxed());
    start("replicaset", replica_set::run(context()).boxed());
    start("endpointslice", endpoints::run(context()).boxed());
    start(
        "endpointslicemirroring",
        endpoints::mirror::run(context()).boxed(),
    );
    start("garbage", garbage::run(context()).boxed());
    start("namespace", namespace::run(context()).boxed());
    start("serviceaccount", service_account::run(context()).boxed());
    start("nodecidr", node_cidr::run(context(), ranges).boxed());
    start(
        "nodelifecycle",
        node_lifecycle::run(context(), config.node_times).boxed(),
    );
    start("eviction", node_lifecycle::eviction::run(context()).boxed());
    start(
        "storageprotection",
        storage_protection::run(context()).boxed(),
    );
    start("podgc", pod_gc::run(context(), config.ended_pods).boxed());
    start("disruption", disruption::run(context()).boxed());
    start("staledisruption", disruption::stale::run(context()).boxed());
    start("resourcequota", quota::run(context()).boxed());
    if let Some(signer) = &config.token_signer {
        let (signer, certificates) = (signer.clone(), config.root_ca.clone());
        start(
            "tokensecrets",
            token_secrets::run(context(), signer, certificates).boxed(),
        );
    }
    if let Some(certificate) = &config.root_ca {
        start(
            "rootca",
            root_ca::run(context(), certificate.clone()).boxed(),
        );
    }
}
