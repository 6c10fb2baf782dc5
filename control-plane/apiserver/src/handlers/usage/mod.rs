//! nodes and pods of `metrics.k8s.io`: what they use now, asked of their kubelets.
//!
//! A kubelet tells counters, so a rate needs two answers. Nothing is sampled while nobody asks: who
//! asks first waits for [`samples::LEAST`], and who comes again within [`samples::MOST`] gets the
//! rate since then. A node whose kubelet does not answer is left out of lists, with its Pods.

mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::body::Body;
use coracle_apimachinery::duration;
use coracle_apimachinery::status::Status;
use coracle_store::Record;
use futures::{StreamExt, stream};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::time::Instant;

use super::{Call, computed};
use crate::registry::kinds::metrics::{ContainerMetrics, NodeMetrics, PodMetrics, Usage};
use crate::registry::list::Selection;
use crate::registry::meta;
use crate::server::Inner;
pub(crate) use samples::Samples;
use samples::{Rate, Rates, Summary};

/// Kubelets that are asked at a time.
const AT_ONCE: usize = 16;
/// The largest answer: some 100,000 containers.
const LARGEST: usize = 64 << 20;

/// Answers get and list of nodes.
pub(super) async fn nodes(call: &Call<'_>) -> Result<Response<Body>, Status> {
    // What is wrong with it is said before anybody is asked.
    let selection = computed::selection(call)?;
    let registry = &call.server.registry;
    let name = &call.info.name;
    let known = match call.info.is_of_collection() {
        true => registry.find_all::<Node>("").await?,
        false => registry.find::<Node>("", name).await?.into_iter().collect(),
    };
    let names = known.iter().filter_map(|node| node.metadata.name.clone());
    let rates = ask(call.server, names.collect()).await;
    let mut records = Vec::new();
    for node in &known {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let Some((rates, rate)) = rates.get(name).and_then(|r| Some((r, r.node()?))) else {
            continue;
        };
        let mut metrics = NodeMetrics {
            metadata: metadata(&node.metadata),
            timestamp: Time(rates.until()),
            window: written(rate.window),
            usage: usage(&rate),
            ..NodeMetrics::default()
        };
        records.push(computed::record(call, "", name, &mut metrics)?);
    }
    respond(call, &selection, records).await
}

/// Answers get and list of Pods.
pub(super) async fn pods(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let selection = computed::selection(call)?;
    let registry = &call.server.registry;
    let (namespace, name) = (call.namespace(), &call.info.name);
    let known: Vec<Pod> = match call.info.is_of_collection() {
        true => registry.find_all(namespace).await?,
        false => registry.find(namespace, name).await?.into_iter().collect(),
    };
    let nodes = known
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
    let rates = ask(call.server, nodes.collect()).await;
    let mut records = Vec::new();
    for pod in &known {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Some(rates) = node.and_then(|node| rates.get(node)) else {
            continue;
        };
        let containers = rates.pod(uid);
        let Some((_, first)) = containers.first() else {
            continue;
        };
        let mut metrics = PodMetrics {
            metadata: metadata(&pod.metadata),
            timestamp: Time(rates.until()),
            window: written(first.window),
            containers: containers
                .iter()
                .map(|(name, rate)| ContainerMetrics {
                    name: (*name).to_owned(),
                    usage: usage(rate),
                })
                .collect(),
            ..PodMetrics::default()
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        records.push(computed::record(call, namespace, name, &mut metrics)?);
    }
    respond(call, &selection, records).await
}

async fn respond(
    call: &Call<'_>,
    selection: &Selection,
    records: Vec<Record>,
) -> Result<Response<Body>, Status> {
    match call.info.verb.as_str() {
        "get" => computed::one(call, records.first()),
        "list" => computed::some(call, selection, records).await,
        _ => Err(call.refuse()),
    }
}

/// The rates of these nodes, of those whose kubelets answer.
async fn ask(server: &Inner, nodes: BTreeSet<String>) -> BTreeMap<String, Rates> {
    let rates = stream::iter(nodes).map(|node| async move {
        let rates = rates(server, &node).await?;
        Some((node, rates))
    });
    let answered = rates
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready);
    answered.collect().await
}

async fn rates(server: &Inner, node: &str) -> Option<Rates> {
    let base = server.usage.lock().base(node, Instant::now());
    let base = match base {
        Some(base) => base,
        None => {
            let first = summary(server, node).await?;
            server.usage.lock().begin(node, Instant::now(), first)
        }
    };
    tokio::time::sleep_until(base.at + samples::LEAST).await;
    let now = summary(server, node).await?;
    let rates = Rates::between(&base.summary, &now);
    server.usage.lock().advance(node, Instant::now(), now);
    Some(rates)
}

async fn summary(server: &Inner, node: &str) -> Option<Summary> {
    let (path, headers) = ("/stats/summary", HeaderMap::new());
    let asked = server.ask_kubelet(node, path, headers, StatusCode::OK);
    let refused = match asked.await {
        // That it cannot be reached has been logged.
        Err(_) => return None,
        Ok(Err(refusal)) => refusal.text,
        Ok(Ok(answer)) => match Limited::new(answer.into_body(), LARGEST).collect().await {
            Err(error) => error.to_string(),
            Ok(body) => match serde_json::from_slice(&body.to_bytes()) {
                Ok(summary) => return Some(summary),
                Err(error) => error.to_string(),
            },
        },
    };
    tracing::warn!(
        node,
        error = refused,
        "a kubelet does not tell what its node uses"
    );
    None
}

/// What is said of the object whose use it is.
fn metadata(of: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        labels: of.labels.clone(),
        creation_timestamp: Some(meta::now()),
        ..ObjectMeta::default()
    }
}

fn usage(rate: &Rate) -> Usage {
    Usage::from([
        ("cpu".to_owned(), Quantity(format!("{}n", rate.nanocores))),
        (
            "memory".to_owned(),
            Quantity(format!("{}Ki", rate.memory_bytes >> 10)),
        ),
    ])
}

fn written(window: Duration) -> String {
    duration::format(i64::try_from(window.as_nanos()).unwrap_or(i64::MAX))
}
