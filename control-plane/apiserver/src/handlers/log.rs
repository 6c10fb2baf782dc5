//! pods/log: checked here, read by the kubelet of the Pod's node, streamed through.

use std::time::Duration;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use coracle_store::Read;
use http::header::HeaderValue;
use http::{Response, StatusCode, header};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use url::form_urlencoded;

use super::Call;
use super::encode::response;
use crate::registry::{encoding, typed};

/// How long the kubelet may take to begin its answer.
const BEGIN: Duration = Duration::from_secs(30);

/// Options that are the kubelet's to read.
const PASSED_ON: &[&str] = &[
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];

pub(super) async fn log(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let record = call
        .server
        .registry
        .get(call.target(), Read::Latest)
        .await?;
    let pod: Pod = typed(encoding::decode(&**call.kind, &record)?)?;
    let spec = pod.spec.unwrap_or_default();
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let default = annotations
        .get("kubectl.kubernetes.io/default-container")
        .map(String::as_str);
    let container = container(call, &spec, default)?;
    check_numbers(call)?;

    let node = spec.node_name.unwrap_or_default();
    if node.is_empty() {
        // Not scheduled: there is nothing to show yet.
        return Ok(response(StatusCode::OK, "text/plain", Body::empty()));
    }
    let query: String = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(
            PASSED_ON
                .iter()
                .filter_map(|name| call.query.get(name).map(|value| (*name, value))),
        )
        .finish();
    let path = format!(
        "/containerLogs/{}/{}/{container}?{query}",
        call.info.namespace, call.info.name
    );
    let answer = tokio::time::timeout(
        BEGIN,
        call.server.nodes.get(&call.server.registry, &node, &path),
    )
    .await
    .map_err(|_| {
        Status::internal(format!(
            "the kubelet of node {node:?} did not answer in time"
        ))
    })??;

    let (parts, body) = answer.into_parts();
    if parts.status == StatusCode::OK {
        let mut response = response(StatusCode::OK, "text/plain", Body::new(body));
        if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, kind.clone());
        }
        let nosniff = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        return Ok(response);
    }
    let text = crate::request::body::collect(Body::new(body))
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match parts.status {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::failure(
            404,
            "NotFound",
            format!(
                "the server could not find the requested resource ( pods/log {}): {text}",
                call.info.name
            ),
        ),
        code => Status::internal(format!(
            "the kubelet of node {node:?} answered {code}: {text}"
        )),
    })
}

/// Which container is meant.
pub(super) fn container(
    call: &Call<'_>,
    spec: &PodSpec,
    default: Option<&str>,
) -> Result<String, Status> {
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| c.name.as_str());
    let main = spec.containers.iter().map(|c| c.name.as_str());
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|c| c.name.as_str());
    let all: Vec<&str> = main.chain(init).chain(ephemeral).collect();
    let name = &call.info.name;
    match call
        .query
        .get("container")
        .filter(|container| !container.is_empty())
    {
        Some(container) if all.contains(&container) => Ok(container.to_owned()),
        Some(container) => Err(Status::bad_request(format!(
            "container {container} is not valid for pod {name}"
        ))),
        None => match (
            default.filter(|default| all.contains(default)),
            all.as_slice(),
        ) {
            (Some(default), _) => Ok(default.to_owned()),
            (None, [only]) => Ok((*only).to_owned()),
            (None, _) => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            ))),
        },
    }
}

fn check_numbers(call: &Call<'_>) -> Result<(), Status> {
    let mut since = 0;
    for (name, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let number = call.query.number(name)?;
        if number.is_some_and(|number| number < least) {
            return Err(Status::failure(
                422,
                "Invalid",
                format!(
                    "PodLogOptions \"\" is invalid: {name}: Invalid value: must be greater than or equal to {least}"
                ),
            ));
        }
        since += usize::from(name == "sinceSeconds" && number.is_some());
    }
    if let Some(time) = call.query.get("sinceTime").filter(|time| !time.is_empty()) {
        since += 1;
        if time.parse::<jiff::Timestamp>().is_err() {
            return Err(Status::bad_request(format!(
                "sinceTime: Invalid value: {time:?}: must be a time of RFC 3339"
            )));
        }
    }
    if since > 1 {
        return Err(Status::failure(
            422,
            "Invalid",
            "PodLogOptions \"\" is invalid: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    Ok(())
}
