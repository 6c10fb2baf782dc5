//! A watch, or a log, over a WebSocket (RFC 6455), as browsers hold one: each event is a message, of
//! text where the format is JSON, and each piece of a log one of bytes, or in base64 of text.
//!
//! Nothing is read but the end: a client that sends anything else is ignored. The task that holds
//! the socket ends with the stream, with the client, or when the server stops.

use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use futures::{Stream, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::Call;
use crate::request::media::Format;

/// What a client may send: it has nothing to say.
const MAX_MESSAGE: usize = 16 * 1024;
/// What waits to be sent at most: the largest event, and answers to pings.
const MAX_UNSENT: usize = 64 << 20;
/// How long a client may not read an event.
const STALL: Duration = Duration::from_secs(60);
/// How long the end of a watch or a stream may take to reach the client.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);
/// A protocol that is no protocol, but carries a token.
pub(crate) const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    is_asked_for(headers, "websocket")
}

/// Whether a request asks for an upgrade of its connection to that protocol.
pub(super) fn is_asked_for(headers: &HeaderMap, protocol: &str) -> bool {
    has(headers, &CONNECTION, "upgrade") && has(headers, &UPGRADE, protocol)
}

/// The words of a header, which may come as several and in lists.
pub(crate) fn words<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

fn has(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// The protocols that a client offers.
pub(super) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    words(headers, &SEC_WEBSOCKET_PROTOCOL).filter(|word| !word.starts_with(BEARER))
}

/// The connection of a call, once it has been upgraded.
///
/// # Errors
/// 400 over connections that cannot be.
pub(super) fn upgrade(call: &Call<'_>) -> Result<OnUpgrade, Status> {
    let upgrade = call.parts.extensions.get::<OnUpgrade>().cloned();
    upgrade.ok_or_else(|| Status::bad_request("this connection cannot be upgraded"))
}

/// How what is sent becomes messages.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    Binary,
    /// In base64, as text.
    Base64,
}

impl From<Format> for Form {
    fn from(format: Format) -> Self {
        match format {
            Format::Json | Format::Yaml => Self::Text,
            Format::Protobuf | Format::Cbor => Self::Binary,
        }
    }
}

/// How a client wants a stream of bytes: by the protocol that it offers, or as they are.
///
/// # Errors
/// 400 where that is none that is known.
pub(super) fn form_of_bytes(headers: &HeaderMap) -> Result<Form, Status> {
    const KNOWN: [(&str, Form); 2] = [
        ("binary.k8s.io", Form::Binary),
        ("base64.binary.k8s.io", Form::Base64),
    ];
    // The client is told the first that it offers.
    let Some(first) = protocols(headers).next() else {
        return Ok(Form::Binary);
    };
    let known = KNOWN.iter().find(|(name, _)| *name == first);
    known.map(|(_, form)| *form).ok_or_else(|| {
        let names = KNOWN.map(|(name, _)| name).join(", ");
        Status::bad_request(format!("websocket: protocol {first} is none of {names}"))
    })
}

/// Answers with the upgrade to the first protocol that the client offers, and sends what there is
/// once it is done.
///
/// # Errors
/// 400 for a handshake that is none, and over connections that cannot be upgraded.
pub(super) fn answer(
    call: &Call<'_>,
    form: Form,
    events: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<Body>, Status> {
    let headers = &call.parts.headers;
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|_| has(headers, &SEC_WEBSOCKET_VERSION, "13"))
        .ok_or_else(|| Status::bad_request("websocket: the handshake is not that of version 13"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Status::bad_request("websocket: the key is malformed"))?;
    let upgrade = upgrade(call)?;
    let stopping = call.server.stopping.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => hold(upgraded, form, events, stopping).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocols(headers).next()
        && let Ok(protocol) = HeaderValue::from_str(protocol)
    {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

async fn hold(
    upgraded: Upgraded,
    form: Form,
    events: impl Stream<Item = Bytes> + Send,
    stopping: CancellationToken,
) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .max_write_buffer_size(MAX_UNSENT);
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let code = tokio::select! {
        // The events end then as well.
        biased;
        () = stopping.cancelled() => CloseCode::Away,
        () = send(&mut socket, form, events) => CloseCode::Normal,
    };
    let reason = Utf8Bytes::default();
    let goodbye = socket.close(Some(CloseFrame { code, reason }));
    // A client that is gone, or does not read, hears nothing of it.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Sends the events until there are no more, or the client ends.
async fn send(
    socket: &mut WebSocketStream<TokioIo<Upgraded>>,
    form: Form,
    events: impl Stream<Item = Bytes> + Send,
) {
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            said = socket.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        let Some(event) = event else { return };
        let sent = futures::SinkExt::send(socket, message(form, event));
        if !matches!(tokio::time::timeout(STALL, sent).await, Ok(Ok(()))) {
            return;
        }
    }
}

fn message(form: Form, event: Bytes) -> Message {
    match form {
        Form::Text => match Utf8Bytes::try_from(event) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Close(None),
        },
        Form::Binary => Message::Binary(event),
        Form::Base64 => Message::Text(STANDARD.encode(event).into()),
    }
}
