//! Calls of gRPC with one message and one answer, over hyper's HTTP/2 (gRPC over HTTP2, the protocol's
//! own description).
//!
//! Deliberately absent: streams of messages, compression, and retries.

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// The other end failed in a way that has no code.
pub const UNKNOWN: u32 = 2;
/// There is no such thing.
pub const NOT_FOUND: u32 = 5;
/// There is no such call.
pub const UNIMPLEMENTED: u32 = 12;
/// What came is not what was agreed on.
pub const INTERNAL: u32 = 13;
/// The other end cannot be reached.
pub const UNAVAILABLE: u32 = 14;
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

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Status {
    /// The code.
    pub code: u32,
    /// What the other end says.
    pub message: String,
}

impl Status {
    /// A status.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn broken(error: hyper::Error) -> Self {
        Self::new(UNAVAILABLE, format!("connection error: {error}"))
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

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The other end's name.
    pub authority: &'a str,
    /// Package, service and call: `/p.v1.Service/Call`.
    pub path: &'a str,
    /// Who asks.
    pub agent: &'a str,
}

/// A connection. What it does beside the calls ends with it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Connection {
    /// Begins to speak over a stream.
    pub async fn open<S>(stream: S) -> Result<Self, Status>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        let executor = Tasks(Arc::downgrade(&tasks));
        let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(Status::broken)?;
        tasks.lock().spawn(async move {
            // How it ends the calls are told.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            _tasks: tasks,
        })
    }

    /// Whether there will be no more answers.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One call: the message of the answer, which is `most` bytes long at most with what is before
    /// it. Dropping the future cancels the call.
    pub async fn call(
        &self,
        target: Target<'_>,
        message: &[u8],
        most: usize,
    ) -> Result<Bytes, Status> {
        let Target {
            scheme,
            authority,
            path,
            agent,
        } = target;
        let request = http::Request::post(format!("{scheme}://{authority}{path}"))
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", agent)
            .body(Full::new(framed(message)));
        let request = request.map_err(|error| Status::new(INTERNAL, error.to_string()))?;
        let mut sender = self.sender.clone();
        let response = sender.send_request(request).await.map_err(Status::broken)?;
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
            match frame.map_err(Status::broken)?.into_data() {
                Ok(data) if answer.len() + data.len() <= most => answer.put(data),
                Ok(_) => return Err(Status::new(INTERNAL, "the answer is too long")),
                Err(frame) => ended = frame.trailers_ref().and_then(status).or(ended),
            }
        }
        match ended {
            Some(Status { code: 0, .. }) => content(answer.freeze())
                .ok_or_else(|| Status::new(INTERNAL, "the answer is not one message")),
            Some(status) => Err(status),
            None => Err(Status::new(
                INTERNAL,
                "server closed the stream without sending trailers",
            )),
        }
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

/// A message in its frame.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + message.len());
    // Not compressed.
    frame.put_u8(0);
    // Nobody sends gigabytes.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The message of a frame; none if it is something else.
fn content(mut frame: Bytes) -> Option<Bytes> {
    let head = frame.first_chunk::<HEAD>()?;
    let [compressed, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let message = frame.split_off(HEAD);
    (compressed == 0 && message.len() == length).then_some(message)
}

/// What a connection does beside the calls, for as long as there is one.
#[derive(Clone)]
struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.lock();
            // Those of earlier calls.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_length_and_no_compression() {
        let long = framed(&[7; 300]);
        assert_eq!(&long[..6], b"\0\0\0\x01\x2c\x07");
        assert_eq!(content(long).unwrap(), vec![7; 300]);
        assert_eq!(content(framed(b"")).unwrap(), b""[..]);
        assert_eq!(content(Bytes::from_static(b"\x01\0\0\0\x02\x08\x01")), None);
        assert_eq!(content(Bytes::from_static(b"\0\0\0\0\x03\x08\x01")), None);
        assert_eq!(content(Bytes::from_static(b"\0\0")), None);
    }

    #[test]
    fn messages_of_errors_are_decoded() {
        for (text, said) in [("a%20b%", "a b%"), ("%zz%e2%82%ac", "%zz€"), ("%+1", "%+1")] {
            assert_eq!(decoded(text), said);
        }
    }
}
