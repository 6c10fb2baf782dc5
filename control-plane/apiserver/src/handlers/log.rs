//! pods/log: checked here, read by the kubelet of the Pod's node, streamed through; over a WebSocket
//! where one is asked for.

use axum::body::Body;
use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::gvk::GroupKind;
use coracle_apimachinery::status::Status;
use futures::StreamExt;
use futures::future::ready;
use http::header::{HeaderMap, HeaderValue};
use http::{Response, StatusCode, header};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use url::form_urlencoded;

use super::encode::response;
use super::{Call, newest, websocket};
use crate::nodes::Refusal;
use crate::validation::NEGATIVE;

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
    let pod: Pod = newest(call, &call.info.namespace, &call.info.name).await?;
    let spec = pod.spec.unwrap_or_default();
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let default = annotations
        .get("kubectl.kubernetes.io/default-container")
        .map(String::as_str);
    let container = container(call, &spec, default)?;
    check_options(call)?;

    let headers = &call.parts.headers;
    let messages = websocket::is_asked(headers).then(|| websocket::form_of_bytes(headers));
    let messages = messages.transpose()?;

    let node = spec.node_name.unwrap_or_default();
    if node.is_empty() {
        // Not scheduled: there is nothing to show yet.
        return match messages {
            Some(form) => websocket::answer(call, form, futures::stream::empty()),
            None => Ok(response(StatusCode::OK, "text/plain", Body::empty())),
        };
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
    let asked = call
        .server
        .ask_kubelet(&node, &path, HeaderMap::new(), StatusCode::OK);
    match asked.await? {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            if let Some(form) = messages {
                // One that breaks off ends there, as a body does.
                let pieces = Body::new(body).into_data_stream();
                let pieces = pieces.scan((), |(), piece| ready(piece.ok()));
                return websocket::answer(call, form, pieces);
            }
            let mut response = response(StatusCode::OK, "text/plain", Body::new(body));
            let headers = response.headers_mut();
            if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
                headers.insert(header::CONTENT_TYPE, kind.clone());
            }
            let nosniff = HeaderValue::from_static("nosniff");
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
            Ok(response)
        }
        Err(Refusal { code, text, .. }) => Err(match code {
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
        }),
    }
}

/// Which container is meant: where none is named, the only one that is neither an init nor an
/// ephemeral one.
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
            spec.containers.as_slice(),
        ) {
            (Some(default), _) => Ok(default.to_owned()),
            (None, [only]) => Ok(only.name.clone()),
            (None, _) => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            ))),
        },
    }
}

fn check_options(call: &Call<'_>) -> Result<(), Status> {
    let since_seconds = call.query.number("sinceSeconds")?;
    let since_time = call.query.get("sinceTime").filter(|time| !time.is_empty());
    if let Some(time) = since_time.filter(|time| time.parse::<jiff::Timestamp>().is_err()) {
        return Err(Status::bad_request(format!(
            "sinceTime: Invalid value: {time:?}: must be a time of RFC 3339"
        )));
    }
    let mut errors = ErrorList::default();
    let numbers = [
        ("tailLines", call.query.number("tailLines")?, 0, NEGATIVE),
        (
            "limitBytes",
            call.query.number("limitBytes")?,
            1,
            "must be greater than 0",
        ),
        (
            "sinceSeconds",
            since_seconds.filter(|_| since_time.is_none()),
            1,
            "must be greater than 0",
        ),
    ];
    for (name, number, least, detail) in numbers {
        if let Some(number) = number.filter(|number| *number < least) {
            errors.push(Error::invalid(&Path::new(name), number, detail));
        }
    }
    if since_seconds.is_some() && since_time.is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(Error::forbidden(&Path::root(), detail));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind::new("", "PodLogOptions");
    Err(Status::invalid(&kind, &call.info.name, errors))
}
