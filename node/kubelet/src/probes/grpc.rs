//! gRPC probes: one call of `Check` of `grpc.health.v1.Health` (the gRPC health checking protocol).
//!
//! Its two messages are of one field each, and framed here by hand over hyper's HTTP/2. Only
//! `SERVING` is a success. The messages are those of the kubelet's probe (`pkg/probe/grpc`).

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dial::{Address, secure};
use crate::node_context::NodeContext;

/// Where the call goes.
const PATH: &str = "/grpc.health.v1.Health/Check";
/// What is read of an answer, bytes: it is a few.
const MAX_ANSWER: usize = 16 << 10;
const UNKNOWN: u32 = 2;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
/// The codes of gRPC by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What a gRPC probe asks.
#[derive(Clone, Debug)]
pub(crate) struct GrpcCheck {
    pub(super) address: Address,
    /// Whether it speaks TLS (`mode: TLS`); certificates are not verified.
    pub(super) tls: bool,
    pub(super) service: String,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    code: u32,
    message: String,
}

impl Status {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = usize::try_from(self.code).ok();
        let known = known.and_then(|code| CODES.get(code));
        match known {
            Some(name) => write!(f, "rpc error: code = {name} desc = {}", self.message),
            None => write!(
                f,
                "rpc error: code = Code({}) desc = {}",
                self.code, self.message
            ),
        }
    }
}

impl GrpcCheck {
    /// Asks once within a time; the error is the message of the event.
    pub(super) async fn probe(
        &self,
        node: &NodeContext,
        uid: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let until = Instant::now() + timeout;
        let address = self.address.text();
        let connect = async {
            let stream = self.address.dial(node, uid).await?;
            Ok(match self.tls {
                false => Stream::Plain(stream),
                true => Stream::Tls(Box::new(
                    secure(stream, &self.address.host, &[b"h2"]).await?,
                )),
            })
        };
        let stream = match tokio::time::timeout_at(until, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let error: String = error;
                return Err(format!(
                    "error: failed to connect service at {address:?}: {error}"
                ));
            }
            Err(_) => {
                return Err(format!(
                    "timeout: failed to connect service {address:?} within {}s: context deadline \
                     exceeded",
                    timeout.as_secs()
                ));
            }
        };
        let call = async {
            match stream {
                Stream::Plain(stream) => check(stream, &address, "http", &self.service).await,
                Stream::Tls(stream) => check(stream, &address, "https", &self.service).await,
            }
        };
        match tokio::time::timeout_at(until, call).await {
            Ok(answer) => verdict(answer),
            Err(_) => Err(format!(
                "timeout: health rpc did not complete within {}s",
                timeout.as_secs()
            )),
        }
    }
}

enum Stream<P, T> {
    Plain(P),
    Tls(T),
}

/// What an answer means.
fn verdict(answer: Result<u64, Status>) -> Result<(), String> {
    match answer {
        Ok(1) => Ok(()),
        Ok(other) => {
            let name = match other {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                number => number.to_string(),
            };
            Err(format!("service unhealthy (responded with {name:?})"))
        }
        Err(status) if status.code == UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {}",
            status.message
        )),
        Err(status) => Err(format!("error: health rpc probe failed: {status}")),
    }
}

/// One call: the number of the serving status.
async fn check<S>(stream: S, authority: &str, scheme: &str, service: &str) -> Result<u64, Status>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed =
        |error: hyper::Error| Status::new(UNAVAILABLE, format!("connection error: {error}"));
    // Ends with this call, whatever the other end does.
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let executor = Tasks(Arc::downgrade(&tasks));
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(failed)?;
    tasks.lock().spawn(async move {
        // How it ends the call is told.
        let _ = connection.await;
    });
    let request = http::Request::post(format!("{scheme}://{authority}{PATH}"))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(request(service)));
    let request = request.map_err(|error| Status::new(INTERNAL, error.to_string()))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let (head, mut body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Status::new(
            code_of_http(head.status),
            format!(
                "unexpected HTTP status code received from server: {} ({})",
                head.status.as_u16(),
                head.status.canonical_reason().unwrap_or_default()
            ),
        ));
    }
    let mut answer = BytesMut::new();
    // An answer without a message has its status in the headers.
    let mut ended = status(&head.headers);
    while let Some(frame) = body.frame().await {
        match frame.map_err(failed)?.into_data() {
            Ok(data) if answer.len() + data.len() <= MAX_ANSWER => answer.put(data),
            Ok(_) => return Err(Status::new(INTERNAL, "the answer is too long")),
            Err(frame) => ended = frame.trailers_ref().and_then(status).or(ended),
        }
    }
    match ended {
        Some(Status { code: 0, .. }) => serving(&answer)
            .ok_or_else(|| Status::new(INTERNAL, "the answer is no HealthCheckResponse")),
        Some(status) => Err(status),
        None => Err(Status::new(
            INTERNAL,
            "server closed the stream without sending trailers",
        )),
    }
}

/// The code for an HTTP status of something that speaks no gRPC (gRPC over HTTP2, status mapping).
fn code_of_http(status: http::StatusCode) -> u32 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The status that ends a call.
fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")?;
    // A number that is none is an error of the other end's.
    let code = code.parse().unwrap_or(UNKNOWN);
    Some(Status::new(
        code,
        decoded(text("grpc-message").unwrap_or_default()),
    ))
}

/// A message, in which characters stand as percent signs and their bytes.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// `HealthCheckRequest { string service = 1 }` with its frame.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    // Not compressed.
    framed.put_u8(0);
    // Names of services are short: a manifest has at most a few megabytes.
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1 }` of a frame; none if it is something else.
fn serving(frame: &[u8]) -> Option<u64> {
    let (head, mut message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => varint(&mut message)?,
            kind => {
                let length = match kind {
                    1 => 8,
                    2 => usize::try_from(varint(&mut message)?).ok()?,
                    5 => 4,
                    _ => return None,
                };
                message = message.get(length..)?;
                continue;
            }
        };
        if tag >> 3 == 1 {
            status = value;
        }
    }
    Some(status)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What a connection does beside the call, for as long as somebody waits for that.
#[derive(Clone)]
struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().spawn(task);
        }
    }
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
