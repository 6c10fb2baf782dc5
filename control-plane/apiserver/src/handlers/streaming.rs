//! pods/exec, pods/attach and pods/portforward: checked here, and then a byte stream between the
//! client and the kubelet of the Pod's node, whose WebSocket it is.

use std::time::Duration;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use coracle_store::Read;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use url::form_urlencoded;

use super::{Call, log, websocket};
use crate::registry::strategy::Subresource;
use crate::registry::{encoding, typed};

/// How long the kubelet may take to begin its answer.
const BEGIN: Duration = Duration::from_secs(30);

/// Answers for one of the three.
pub(super) async fn answer(
    call: &Call<'_>,
    subresource: Subresource,
) -> Result<Response<Body>, Status> {
    let found = call.server.registry.get(call.target(), Read::Latest);
    let pod: Pod = typed(encoding::decode(&**call.kind, &found.await?)?)?;
    let spec = pod.spec.unwrap_or_default();
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let path = match subresource {
        Subresource::PortForward => format!("/portForward/{namespace}/{name}?{}", ports(call)?),
        _ => {
            let container = log::container(call, &spec, None)?;
            let query = streams(call, subresource)?;
            let verb = subresource.name();
            format!("/{verb}/{namespace}/{name}/{container}?{query}")
        }
    };
    let node = spec.node_name.unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let (server, headers) = (call.server, handshake(&call.parts.headers));
    let asked = server
        .nodes
        .get_with(&server.registry, &node, &path, headers);
    let answer = tokio::time::timeout(BEGIN, asked).await.map_err(|_| {
        Status::internal(format!(
            "the kubelet of node {node:?} did not answer in time"
        ))
    })??;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(answer).await);
    }
    let client = call.parts.extensions.get::<OnUpgrade>().cloned();
    let client = client
        .ok_or_else(|| Status::bad_request("websocket: this connection cannot be upgraded"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in [
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_PROTOCOL,
    ] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let stopping = server.stopping.clone();
    tokio::spawn(async move {
        let carried = async {
            let (client, kubelet) = tokio::try_join!(client, hyper::upgrade::on(answer))?;
            let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
            // How it ended is in what was carried.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut kubelet).await;
            Ok::<_, hyper::Error>(())
        };
        if let Some(Err(error)) = stopping.run_until_cancelled(carried).await {
            tracing::debug!(%error, "a connection was not upgraded");
        }
    });
    Ok(response)
}

/// What of a client's handshake is the kubelet's to answer. A client that asks for something else
/// than a WebSocket is told so by it, after all that may be wrong beside that.
fn handshake(of: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !websocket::is_asked(of) {
        return headers;
    }
    for name in [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
        if let Some(value) = of.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    for protocol in websocket::protocols(of) {
        if let Ok(protocol) = HeaderValue::from_str(protocol) {
            headers.append(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
    }
    headers
}

/// What a process is asked, in the kubelet's words.
fn streams(call: &Call<'_>, subresource: Subresource) -> Result<String, Status> {
    let attach = subresource == Subresource::Attach;
    let flag = |name, default| call.query.flag(name).unwrap_or(default);
    let terminal = flag("tty", false);
    let asked = [
        ("input", flag("stdin", false)),
        ("output", flag("stdout", attach)),
        ("error", flag("stderr", attach) && !terminal),
    ];
    if !asked.iter().any(|(_, asked)| *asked) {
        return Err(Status::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !attach {
        let mut command = call.query.all("command").peekable();
        if command.peek().is_none() {
            return Err(Status::bad_request("you must specify at least one command"));
        }
        query.extend_pairs(command.map(|word| ("command", word)));
    }
    let set = asked.into_iter().chain([("tty", terminal)]);
    query.extend_pairs(set.filter(|(_, set)| *set).map(|(name, _)| (name, "1")));
    Ok(query.finish())
}

/// The ports that clients of the channel form name.
fn ports(call: &Call<'_>) -> Result<String, Status> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for port in call.query.all("ports").flat_map(|ports| ports.split(',')) {
        let number: Option<u16> = port.trim().parse().ok().filter(|port| *port > 0);
        let number = number.ok_or_else(|| {
            Status::bad_request(format!("ports: {port:?} is no number from 1 to 65535"))
        })?;
        query.append_pair("port", &number.to_string());
    }
    Ok(query.finish())
}

/// What the kubelet says instead of an upgrade.
async fn refused(answer: Response<hyper::body::Incoming>) -> Status {
    let (parts, body) = answer.into_parts();
    let text = crate::request::body::collect(Body::new(body)).await;
    let text = String::from_utf8_lossy(&text.unwrap_or_default())
        .trim()
        .to_owned();
    match parts.status {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        _ => Status::internal(format!("unable to upgrade connection: {text}")),
    }
}
