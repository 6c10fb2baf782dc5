//! What the node, its Pods and their containers use: measured when somebody asks, and shown as the
//! kubelet's summary ([`summary`]) and as metrics in Prometheus' format ([`exposition`]).
//!
//! Counters alone are shown, and no rates: nothing is sampled while nobody asks. Whoever wants a rate asks twice.
//!
//! Deliberately absent: network traffic, and the disk that single containers take.

mod exposition;
mod summary;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_runtime::ContainerStats;
use http::header;
use k8s_openapi::api::core::v1::Pod;

use super::ApiState;
use super::handlers::axum_json;
use crate::node::machine::{self, DiskUse};
use crate::pod;

/// CPU time and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Use {
    at: SystemTime,
    cpu: Duration,
    /// The working set: what cannot be given back at once.
    memory_bytes: u64,
}

/// A container that runs.
struct ContainerUse {
    name: String,
    started: Option<SystemTime>,
    used: Use,
}

/// A Pod of the node.
struct PodUse {
    pod: Arc<Pod>,
    containers: Vec<ContainerUse>,
}

impl PodUse {
    /// All its containers together; none where none runs.
    fn used(&self) -> Option<Use> {
        let uses = self.containers.iter().map(|container| container.used);
        uses.reduce(|one, two| Use {
            at: one.at.min(two.at),
            cpu: one.cpu + two.cpu,
            memory_bytes: one.memory_bytes + two.memory_bytes,
        })
    }
}

/// The machine.
struct NodeUse {
    name: String,
    booted: Option<SystemTime>,
    /// None where the system does not tell.
    used: Option<Use>,
    /// Of the memory in use, with what can be given back.
    memory_in_use: u64,
    memory_available: u64,
    disk: Option<DiskUse>,
}

/// What was measured.
struct Measured {
    node: NodeUse,
    pods: Vec<PodUse>,
    /// Whether all runtimes have answered.
    whole: bool,
}

async fn measure(state: &ApiState) -> Measured {
    let mut stats: HashMap<String, ContainerStats> = HashMap::new();
    let mut whole = true;
    for runtime in state.node.router.all() {
        match runtime.stats().await {
            Ok(all) => stats.extend(all.into_iter().map(|s| (s.id.0.clone(), s))),
            Err(error) => {
                tracing::warn!(%error, "a runtime gives no stats");
                whole = false;
            }
        }
    }
    let pods = state.workers.pods().into_iter().map(|pod| {
        let runtime = state.node.cache.pod(pod::uid(&pod));
        let containers = runtime.running().filter_map(|of| {
            let stats = stats.get(&of.id().0)?;
            Some(ContainerUse {
                name: of.name().to_owned(),
                started: of.running_since(),
                used: Use {
                    at: stats.at,
                    cpu: stats.cpu,
                    memory_bytes: stats.memory_bytes,
                },
            })
        });
        let containers = containers.collect();
        PodUse { pod, containers }
    });
    let pods = pods.collect();
    let memory = machine::memory();
    let cpu = machine::cpu_time();
    Measured {
        node: NodeUse {
            name: state.node.node_name.clone(),
            booted: machine::boot_time(),
            used: memory.zip(cpu).map(|(memory, cpu)| Use {
                at: SystemTime::now(),
                cpu,
                memory_bytes: memory.working_set,
            }),
            memory_in_use: memory.map_or(0, |memory| memory.in_use),
            memory_available: memory.map_or(0, |memory| memory.total - memory.working_set),
            disk: machine::disk(&state.node.root),
        },
        pods,
        whole,
    }
}

/// `/stats/summary`.
pub(super) async fn summary(State(state): State<ApiState>) -> Response {
    axum_json(&summary::summary(&measure(&state).await))
}

/// `/metrics/resource`.
pub(super) async fn resource(State(state): State<ApiState>) -> Response {
    metrics(exposition::resource(&measure(&state).await))
}

/// `/metrics/cadvisor`.
pub(super) async fn cadvisor(State(state): State<ApiState>) -> Response {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = machine::memory().map_or(0, |memory| memory.total);
    metrics(exposition::cadvisor(&measure(&state).await, cores, memory))
}

fn metrics(text: String) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests;
