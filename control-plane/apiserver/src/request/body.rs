//! Reading bodies: bounded in size; JSON, YAML, protobuf or CBOR.
//!
//! Deliberately absent: bodies in a content coding. Kubernetes decodes none either, and where
//! nothing is unpacked no small body becomes a large one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use coracle_apimachinery::{cbor, protobuf, yaml};
use futures::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;

use super::media;

/// The largest body that is read.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// What a body may become as JSON: in protobuf little bytes can stand for much.
const MAX_JSON: usize = 8 * MAX_BODY;

/// How long the rest of a body is read that nobody wants.
const DRAINING: Duration = Duration::from_secs(1);

const ACCEPTED: &[&str] = &[
    "application/json",
    "application/yaml",
    protobuf::MEDIA_TYPE,
    cbor::MEDIA_TYPE,
];

/// Reads the body of a request whole.
///
/// # Errors
/// 415 where it is compressed, and those of [`collect`].
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Status> {
    for coding in headers.get_all(CONTENT_ENCODING) {
        let coding = String::from_utf8_lossy(coding.as_bytes());
        let plain = |one: &str| one.is_empty() || one.eq_ignore_ascii_case("identity");
        if !coding.split(',').map(str::trim).all(plain) {
            return Err(Status::unsupported_content_encoding(&coding));
        }
    }
    collect(body).await
}

/// Collects a body, whatever it is.
///
/// # Errors
/// 413 where it is too large, 400 where the client broke off.
pub async fn collect(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Status::request_entity_too_large(MAX_BODY))
        }
        Err(error) => Err(Status::bad_request(format!(
            "the body could not be read: {error}"
        ))),
    }
}

/// Turns a body of a served media type into JSON.
///
/// # Errors
/// 415 for another media type, 400 for a body that is not what its type says.
pub fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Status> {
    // Media types are compared without regard to case (RFC 9110, 8.3.1).
    match media::content_type(headers).to_ascii_lowercase().as_str() {
        "" | "application/json" | "*/*" => Ok(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml_to_json(&body),
        protobuf::MEDIA_TYPE => protobuf::to_json(&body, MAX_JSON)
            .map(Bytes::from)
            .map_err(|error| undecodable("protobuf", &error)),
        cbor::MEDIA_TYPE => cbor_to_json(&body),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

fn undecodable(format: &str, error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!("the {format} body cannot be decoded: {error}"))
}

/// Turns CBOR into JSON.
///
/// # Errors
/// 400 with the position of what is malformed or has no form in JSON.
pub fn cbor_to_json(body: &[u8]) -> Result<Bytes, Status> {
    cbor::to_json(body, MAX_JSON)
        .map(Bytes::from)
        .map_err(|error| undecodable("CBOR", &error))
}

/// Turns YAML into JSON.
///
/// # Errors
/// 400 with the position of what does not parse.
pub fn yaml_to_json(yaml: &[u8]) -> Result<Bytes, Status> {
    let text = std::str::from_utf8(yaml)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
    let value = yaml::read_one("body", text).map_err(|error| {
        let column = error.column.map(|column| format!(" column {column}"));
        Status::bad_request(format!(
            "error converting YAML to JSON: yaml: line {}{}: {}",
            error.line,
            column.unwrap_or_default(),
            error.reason
        ))
    })?;
    let json = serde_json::to_vec(&value)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
    Ok(json.into())
}

/// Where a body is left that is not wanted any more.
type Left = Arc<Mutex<Option<Body>>>;

/// What nobody has read of a body; nothing where there is none, as with most requests.
pub struct Rest(Option<Left>);

/// A body that is given to who answers. What is not read of it comes back.
struct Lent {
    body: Option<Body>,
    left: Left,
}

/// Lends a body to who answers.
pub fn lend(body: Body) -> (Body, Rest) {
    if body.is_end_stream() {
        return (body, Rest(None));
    }
    let left = Left::default();
    let lent = Lent {
        body: Some(body),
        left: left.clone(),
    };
    (Body::new(lent), Rest(Some(left)))
}

impl Rest {
    /// Reads the rest, but not much of it and not for long: some clients of HTTP/2 do not see an
    /// answer that comes while they send.
    pub async fn drain(self) {
        let Some(rest) = self.0.and_then(|left| left.lock().take()) else {
            return;
        };
        let mut left = MAX_BODY;
        let mut chunks = rest.into_data_stream();
        let read = async {
            while let Some(Ok(chunk)) = chunks.next().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    return;
                }
            }
        };
        // Whether it came to its end or not, it is over.
        let _ = tokio::time::timeout(DRAINING, read).await;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.left.lock() = self.body.take();
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.body.as_ref().map(Body::size_hint);
        left.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}
