//! pods/exec, pods/attach and pods/portforward: checked here, and then a byte stream between the
//! client and the kubelet of the Pod's node, whose WebSocket it is, or whose connection of SPDY.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use url::form_urlencoded;

use super::{Call, encode, log, newest, websocket};
use crate::nodes::Refusal;
use crate::registry::strategy::Subresource;
use crate::server::Inner;

/// What a connection of SPDY is called.
const SPDY: &str = "SPDY/3.1";
/// Where its protocols are offered, and the one that is spoken is told; and where a kubelet tells those
/// that it knows if it is offered none of them.
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Answers for one of the three.
pub(super) async fn answer(
    call: &Call<'_>,
    subresource: Subresource,
) -> Result<Response<Body>, Status> {
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let pod: Pod = newest(call, namespace, name).await?;
    let spec = pod.spec.unwrap_or_default();
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
    let headers = &call.parts.headers;
    // Nothing is begun for a client that could not be connected with it.
    let client = is_asked(headers).then(|| websocket::upgrade(call));
    let client = client.transpose()?;
    let server = call.server;
    let (headers, wanted) = (handshake(headers), StatusCode::SWITCHING_PROTOCOLS);
    let answer = match server.ask_kubelet(&node, &path, headers, wanted).await? {
        Ok(answer) => answer,
        Err(refusal) => return refused(refusal),
    };
    let client = client.ok_or_else(|| {
        Status::internal(format!(
            "the kubelet of node {node:?} upgraded a connection unasked"
        ))
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in [
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_PROTOCOL,
        PROTOCOL,
    ] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    join(server, client, answer);
    Ok(response)
}

/// Carries bytes between a client and whoever answered it, once both connections are upgraded.
pub(super) fn join(server: &Inner, client: OnUpgrade, answer: Response<Incoming>) {
    let stopping = server.stopping.clone();
    tokio::spawn(async move {
        let carried = async {
            let (client, other) = tokio::try_join!(client, hyper::upgrade::on(answer))?;
            let (client, other) = (TokioIo::new(client), TokioIo::new(other));
            carry(client, other, websocket::GOODBYE).await;
            Ok::<_, hyper::Error>(())
        };
        if let Some(Err(error)) = stopping.run_until_cancelled(carried).await {
            tracing::debug!(%error, "a connection was not upgraded");
        }
    });
}

fn is_asked(headers: &HeaderMap) -> bool {
    websocket::is_asked(headers) || websocket::is_asked_for(headers, SPDY)
}

/// What of a client's handshake is the kubelet's to answer. A client that asks for something else
/// than a WebSocket or SPDY is told so by it, after all that may be wrong beside that.
fn handshake(of: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if websocket::is_asked(of) {
        for name in [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
            if let Some(value) = of.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        for protocol in websocket::protocols(of) {
            if let Ok(protocol) = HeaderValue::from_str(protocol) {
                headers.append(SEC_WEBSOCKET_PROTOCOL, protocol);
            }
        }
    } else if is_asked(of) {
        headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
        for protocols in of.get_all(PROTOCOL) {
            headers.append(PROTOCOL, protocols.clone());
        }
    } else {
        return headers;
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers
}

/// What a client is told that the kubelet refuses. One that offers no protocol which is known is told
/// as the kubelet says it, with those that are.
fn refused(refusal: Refusal) -> Result<Response<Body>, Status> {
    let Refusal {
        code,
        text,
        headers,
    } = refusal;
    if code == StatusCode::FORBIDDEN && headers.contains_key(ACCEPTED) {
        let text = Body::from(format!("{text}\n"));
        let mut response = encode::response(code, "text/plain; charset=utf-8", text);
        for known in headers.get_all(ACCEPTED) {
            response.headers_mut().append(ACCEPTED, known.clone());
        }
        return Ok(response);
    }
    Err(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        _ => Status::internal(format!("unable to upgrade connection: {text}")),
    })
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

/// Carries bytes both ways until one side ends. What the other has still to say it says within the
/// grace.
async fn carry(
    client: impl AsyncRead + AsyncWrite,
    kubelet: impl AsyncRead + AsyncWrite,
    grace: Duration,
) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_kubelet, to_kubelet) = tokio::io::split(kubelet);
    let mut up = pin!(copy(from_client, to_kubelet));
    let mut down = pin!(copy(from_kubelet, to_client));
    let _ = tokio::select! {
        () = &mut up => timeout(grace, down).await,
        () = &mut down => timeout(grace, up).await,
    };
}

/// Carries bytes one way until that ends.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // How it ended is in what was carried.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// More than a test takes.
    const LONG: Duration = Duration::from_secs(60);

    /// What is said last arrives, whichever side ends, though the other stays.
    #[tokio::test]
    async fn a_stream_ends_with_its_first_end() {
        for client_ends in [true, false] {
            let (mut client, near) = duplex(64);
            let (mut kubelet, far) = duplex(64);
            let carried = tokio::spawn(carry(near, far, Duration::ZERO));
            let (ending, staying) = if client_ends {
                (&mut client, &mut kubelet)
            } else {
                (&mut kubelet, &mut client)
            };
            ending.write_all(b"bye").await.unwrap();
            ending.shutdown().await.unwrap();
            let mut said = String::new();
            staying.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "bye");
            timeout(LONG, carried).await.unwrap().unwrap();
        }
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = of.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        named.collect()
    }

    #[test]
    fn handshakes_are_passed_on() {
        let spdy = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            (
                "x-stream-protocol-version",
                "v4.channel.k8s.io, v3.channel.k8s.io",
            ),
        ];
        let websocket = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "a2V5"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ];
        for passed in [&spdy[..], &websocket] {
            let asked = [passed, &[("authorization", "Bearer t"), ("accept", "a/b")]].concat();
            let asked = headers(&asked);
            assert!(is_asked(&asked));
            assert_eq!(handshake(&asked), headers(passed));
        }
        for other in [
            &[("connection", "Upgrade"), ("upgrade", "h2c")][..],
            &[("connection", "close"), ("upgrade", "SPDY/3.1")],
            &[],
        ] {
            let other = headers(other);
            assert!(!is_asked(&other));
            assert!(handshake(&other).is_empty());
        }
    }

    #[test]
    fn known_protocols_are_told_to_who_offers_others() {
        let known = [
            ("x-accepted-stream-protocol-versions", "v4.channel.k8s.io"),
            ("x-accepted-stream-protocol-versions", "v3.channel.k8s.io"),
        ];
        let refusal = |code, known: &[_]| Refusal {
            code,
            text: "no".to_owned(),
            headers: headers(known),
        };
        let told = refused(refusal(StatusCode::FORBIDDEN, &known)).unwrap();
        assert_eq!(told.status(), StatusCode::FORBIDDEN);
        let values: Vec<_> = told.headers().get_all(ACCEPTED).iter().collect();
        assert_eq!(values, ["v4.channel.k8s.io", "v3.channel.k8s.io"]);
        for (code, expected) in [
            (StatusCode::FORBIDDEN, 500),
            (StatusCode::NOT_FOUND, 500),
            (StatusCode::BAD_REQUEST, 400),
        ] {
            let status = refused(refusal(code, &[])).unwrap_err();
            assert_eq!(status.code(), expected);
        }
    }

    #[tokio::test]
    async fn what_is_left_to_say_has_its_grace() {
        let (mut client, near) = duplex(64);
        let (mut kubelet, far) = duplex(64);
        let carried = tokio::spawn(carry(near, far, LONG));
        kubelet.shutdown().await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        client.write_all(b"bye").await.unwrap();
        drop(client);
        kubelet.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "bye");
        timeout(LONG, carried).await.unwrap().unwrap();
    }
}
