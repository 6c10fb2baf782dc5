//! `/stats/summary`: what the node and its Pods use, in the shape that clients of the
//! kubelet's summary API read.

use std::collections::HashMap;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use coracle_runtime::ContainerStats;
use serde_json::{Value, json};

use super::ApiState;
use super::handlers::axum_json;
use crate::pod;

pub(super) async fn summary(State(state): State<ApiState>) -> Response {
    let mut stats: HashMap<String, ContainerStats> = HashMap::new();
    for runtime in state.node.router.all() {
        match runtime.stats().await {
            Ok(all) => stats.extend(all.into_iter().map(|s| (s.id.0.clone(), s))),
            Err(error) => tracing::warn!(%error, "a runtime gives no stats"),
        }
    }
    let mut pods = Vec::new();
    for pod in state.workers.pods() {
        let runtime = state.node.cache.pod(pod::uid(&pod));
        let containers: Vec<Value> = runtime
            .running()
            .filter_map(|of| {
                let stats = stats.get(&of.id().0)?;
                let start = of.running_since().map(pod::api_time);
                Some(json!({
                    "name": of.name(),
                    "startTime": start,
                    "cpu": cpu(stats),
                    "memory": memory(stats),
                }))
            })
            .collect();
        pods.push(json!({
            "podRef": {
                "name": pod::name(&pod),
                "namespace": pod::namespace(&pod),
                "uid": pod::uid(&pod),
            },
            "startTime": pod::status(&pod).start_time,
            "containers": containers,
        }));
    }
    let nanos: u128 = stats.values().map(|s| s.cpu.as_nanos()).sum();
    let bytes: u64 = stats.values().map(|s| s.memory_bytes).sum();
    let time = pod::api_time(SystemTime::now());
    axum_json(&json!({
        "node": {
            "nodeName": state.node.node_name,
            "cpu": {"time": time, "usageCoreNanoSeconds": u64::try_from(nanos).unwrap_or(u64::MAX)},
            "memory": {"time": time, "workingSetBytes": bytes, "usageBytes": bytes},
        },
        "pods": pods,
    }))
}

fn cpu(stats: &ContainerStats) -> Value {
    let nanos = u64::try_from(stats.cpu.as_nanos()).unwrap_or(u64::MAX);
    json!({"time": pod::api_time(stats.at), "usageCoreNanoSeconds": nanos})
}

fn memory(stats: &ContainerStats) -> Value {
    let bytes = stats.memory_bytes;
    json!({"time": pod::api_time(stats.at), "workingSetBytes": bytes, "usageBytes": bytes})
}
