//! Tells the API about the node: registers it, renews its lease, sends its status.
//!
//! The lease says that the node lives (every 10 s); the status goes out when it has changed,
//! and every five minutes; and at once where others have said of the node that nobody hears of it.
//! Source of the periods: the kubelet's defaults.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::object::{self, NodeFacts};
use crate::events::{Recorder, Severity};
use crate::eviction::pressure::Conditions;
use crate::images::Images;
use crate::router::Router;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
/// First and longest wait before a failed call is repeated.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(7));

/// Speaks for the node.
pub(crate) struct Reporter {
    pub(crate) client: kube::Client,
    pub(crate) facts: NodeFacts,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) router: Router,
    pub(crate) recorder: Recorder,
    /// The machine is about to shut down.
    pub(crate) shutting_down: watch::Receiver<bool>,
    /// What the node is short of.
    pub(crate) pressure: watch::Receiver<Conditions>,
    /// The node's taints, as the API has them.
    pub(crate) taints: Arc<watch::Sender<Vec<Taint>>>,
}

impl Reporter {
    /// Makes or takes over the Node object; tries until it is done or cancelled.
    pub(crate) async fn register(&self, cancel: &CancellationToken) -> Option<Node> {
        let mut wait = RETRY.0;
        loop {
            let attempt = tokio::select! {
                () = cancel.cancelled() => return None,
                attempt = self.try_register() => attempt,
            };
            match attempt {
                Ok(node) => {
                    tracing::info!(node = self.facts.name, "node registered");
                    self.taints.send_replace(object::taints(&node));
                    return Some(node);
                }
                Err(error) => tracing::warn!(%error, "cannot register the node; trying again"),
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY.1);
        }
    }

    async fn try_register(&self) -> Result<Node, kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let status = self.status(None).await;
        let wanted = object::node(&self.facts, status.clone());
        let present = match nodes.create(&PostParams::default(), &wanted).await {
            Ok(made) => made,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Registered by an earlier agent: its labels are brought up to date.
                let body = json!({"metadata": {"labels": object::labels(&self.facts)}});
                let patch = Patch::Strategic(&body);
                nodes
                    .patch(&self.facts.name, &PatchParams::default(), &patch)
                    .await?
            }
            Err(error) => return Err(error),
        };
        let old = present.status.clone().unwrap_or_default();
        if let Some(text) = object::rebooted(&self.facts, &old) {
            let (name, severity) = (&self.facts.name, Severity::Warning);
            self.recorder.node(name, severity, "Rebooted", text);
        }
        let status = self.status(Some(&old)).await;
        match object::differs(&old, &status) {
            true => self.send(&status).await,
            false => Ok(present),
        }
    }

    async fn status(&self, old: Option<&NodeStatus>) -> NodeStatus {
        let problem = self.problem().await;
        let now = Time(whole_seconds(Timestamp::now()));
        object::status(
            &self.facts,
            self.images.list(),
            problem.as_deref(),
            &self.pressure.borrow(),
            old,
            now,
        )
    }

    /// Why the node cannot run Pods.
    async fn problem(&self) -> Option<String> {
        if *self.shutting_down.borrow() {
            return Some("node is shutting down".to_owned());
        }
        for runtime in self.router.all() {
            if let Err(error) = runtime.list_pod_sandboxes().await {
                return Some(format!(
                    "container runtime {} is down: {error}",
                    runtime.name()
                ));
            }
        }
        self.router
            .all()
            .is_empty()
            .then(|| "no container runtime".to_owned())
    }

    async fn send(&self, status: &NodeStatus) -> Result<Node, kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let body = json!({"status": status});
        let patch = Patch::Strategic(&body);
        nodes
            .patch_status(&self.facts.name, &PatchParams::default(), &patch)
            .await
    }

    /// Keeps lease and status fresh until cancelled; `node` is what was registered.
    pub(crate) async fn run(self, node: Node, cancel: CancellationToken) {
        let work = async {
            let (lease, status) = (self.renew(), self.report(&node));
            tokio::join!(lease, status);
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    }

    async fn renew(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        loop {
            let mut wait = RETRY.0;
            while let Err(error) = self.renew_once(&leases).await {
                tracing::warn!(%error, "cannot renew the node's lease; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    async fn renew_once(&self, leases: &Api<Lease>) -> Result<(), kube::Error> {
        let spec = LeaseSpec {
            holder_identity: Some(self.facts.name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let body = json!({"spec": spec});
        let patch = Patch::Merge(&body);
        match leases
            .patch(&self.facts.name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
        // The node of now: the lease of one that was replaced would be collected with that.
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.facts.name).await?;
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.facts.name.clone()),
                namespace: Some(LEASE_NAMESPACE.to_owned()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: self.facts.name.clone(),
                    uid: node.metadata.uid.unwrap_or_default(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        leases
            .create(&PostParams::default(), &lease)
            .await
            .map(|_| ())
    }

    async fn report(&self, node: &Node) {
        let mut sent = node.status.clone().unwrap_or_default();
        // What the API has, and since when.
        let mut known = sent.clone();
        let mut revision = object::revision(node);
        let mut sent_at = Instant::now();
        let mut cordoned = object::is_cordoned(node);
        let mut pressure = self.pressure.clone();
        let mut shutting_down = self.shutting_down.clone();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let only = format!("metadata.name={}", self.facts.name);
        let only = watcher::Config::default().fields(&only);
        let changes = watcher::watcher(nodes, only).default_backoff();
        let mut changes = std::pin::pin!(changes.applied_objects());
        let mut ticks = tokio::time::interval_at(Instant::now() + RENEW, RENEW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // Whoever places Pods is to know at once.
                Ok(()) = pressure.changed() => {}
                Ok(()) = shutting_down.changed() => {}
                Some(change) = changes.next() => {
                    // A watch that breaks begins anew.
                    let Ok(node) = change else { continue };
                    self.hear(&node, &mut cordoned);
                    if object::revision(&node) < revision {
                        // It was so before the node itself was heard.
                        continue;
                    }
                    revision = object::revision(&node);
                    known = node.status.unwrap_or_default();
                    if object::is_ready(&known) == object::is_ready(&sent) {
                        continue;
                    }
                }
            }
            let status = self.status(Some(&known)).await;
            let due = sent_at.elapsed() >= REPORT;
            if !due && !object::differs(&sent, &status) {
                continue;
            }
            match self.send(&status).await {
                Ok(node) => {
                    self.announce(object::is_ready(&known), object::is_ready(&status));
                    revision = object::revision(&node);
                    known = node.status.unwrap_or_default();
                    sent = status;
                    sent_at = Instant::now();
                }
                Err(kube::Error::Api(answer)) if answer.code == 404 => {
                    tracing::warn!("the node's object is gone; registering again");
                    if let Ok(node) = self.try_register().await {
                        revision = object::revision(&node);
                        sent = node.status.unwrap_or_default();
                        known = sent.clone();
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot send the node's status"),
            }
        }
    }
}

impl Reporter {
    /// Notes what others have said of the node.
    fn hear(&self, node: &Node, cordoned: &mut bool) {
        self.taints.send_replace(object::taints(node));
        let is = object::is_cordoned(node);
        if std::mem::replace(cordoned, is) != is {
            self.is_now(match is {
                true => "NodeNotSchedulable",
                false => "NodeSchedulable",
            });
        }
    }

    /// Tells when the node becomes ready, or is no more.
    fn announce(&self, was: bool, is: bool) {
        if was != is {
            self.is_now(if is { "NodeReady" } else { "NodeNotReady" });
        }
    }

    fn is_now(&self, event: &str) {
        let name = &self.facts.name;
        let text = format!("Node {name} status is now: {event}");
        self.recorder.node(name, Severity::Normal, event, text);
    }
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
