//! Answers of the kubelet's API.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{StatusCode, header};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::ApiState;
use crate::logs::options::LogOptions;
use crate::logs::reader::{self, Life};
use crate::pod;

pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// The Pods of the node, as the kubelet knows them.
pub(super) async fn pods(State(state): State<ApiState>) -> Response {
    let items: Vec<_> = state
        .workers
        .pods()
        .iter()
        .map(|pod| pod.as_ref().clone())
        .collect();
    axum_json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

pub(super) fn axum_json(value: &serde_json::Value) -> Response {
    let text = value.to_string();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The log of a container, with the parameters of `PodLogOptions`.
pub(super) async fn container_logs(
    State(state): State<ApiState>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()));
    let options = match LogOptions::parse(pairs, Timestamp::now()) {
        Ok(options) => options,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let Some(pod) = state.workers.pod_named(&namespace, &name) else {
        let text = format!("pod \"{name}\" not found in namespace \"{namespace}\"");
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let attempt = match attempt(&state, &pod, &container, options.previous) {
        Ok(attempt) => attempt,
        Err((status, text)) => return (status, text).into_response(),
    };
    let path = state.node.log_file(&pod, &container, attempt);
    let (uid, node) = (pod::uid(&pod).to_owned(), state.node.clone());
    let life = Life {
        changes: node.cache.changes(),
        runs: Box::new(move || {
            let runtime = node.cache.pod(&uid);
            let of = runtime.latest(&container);
            of.is_some_and(|of| {
                of.container.config.attempt == attempt && of.running_since().is_some()
            })
        }),
    };
    let chunks = reader::read(path, options, life);
    let body = stream::unfold(chunks, |mut chunks| async move {
        let chunk = chunks.recv().await?;
        Some((chunk, chunks))
    });
    let headers = [(header::CONTENT_TYPE, "text/plain")];
    (headers, Body::from_stream(body)).into_response()
}

/// Which attempt of the container is meant.
fn attempt(
    state: &ApiState,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<u32, (StatusCode, String)> {
    let name = pod::name(pod);
    if pod::container(pod, container).is_none() {
        let text = format!("container {container} is not valid for pod {name}");
        return Err((StatusCode::BAD_REQUEST, text));
    }
    let runtime = state.node.cache.pod(pod::uid(pod));
    let latest = runtime.latest(container);
    let no_previous = || {
        let text =
            format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
        (StatusCode::BAD_REQUEST, text)
    };
    if previous {
        let found = runtime
            .previous(container)
            .map(|of| of.container.config.attempt);
        return found.ok_or_else(no_previous);
    }
    if let Some(of) = latest {
        let attempt = of.container.config.attempt;
        let begun = of.running_since().is_some() || of.exit().is_some();
        // One that is being made again shows what it said before.
        let before = runtime
            .previous(container)
            .map(|of| of.container.config.attempt);
        if begun || before.is_none() {
            return Ok(attempt);
        }
        return Ok(before.unwrap_or(attempt));
    }
    // No runtime has it any more: the API remembers how far it had come.
    let status = status_of(pod, container);
    let ran = status.filter(|s| s.container_id.as_deref().is_some_and(|id| !id.is_empty()));
    if let Some(status) = ran {
        return Ok(u32::try_from(status.restart_count).unwrap_or(0));
    }
    let waiting = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let reason = waiting.unwrap_or_else(|| "ContainerCreating".to_owned());
    let text = format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}");
    Err((StatusCode::BAD_REQUEST, text))
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod::status(pod);
    let apps = status.container_statuses.iter().flatten();
    let inits = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    let mut all = apps.chain(inits).chain(ephemeral);
    all.find(|status| status.name == container)
}
