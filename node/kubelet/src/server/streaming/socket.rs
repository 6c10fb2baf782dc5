//! Requests that become WebSockets (RFC 6455), or bare streams of bytes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Refused;

/// WebSockets and bare streams at a time.
const SOCKETS: usize = 1024;
/// What a bare stream of bytes is called when it is asked for.
const BYTES: &str = "tcp";
/// Bytes of a message at most: a tunnel's largest frame with what is around it. Clients send tens of
/// kilobytes.
pub(super) const MAX_MESSAGE: usize = 2 << 20;
/// Bytes of output in one message.
pub(super) const CHUNK: usize = 32 << 10;
/// Messages on their way to the client.
const OUTBOX: usize = 16;
/// How long nothing may be sent. Then a ping shows whether the client is still there: nobody may be
/// reading from it, such as while its input waits for a process.
const QUIET: Duration = Duration::from_secs(30);
/// How long the end may take to reach the client.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

/// The tasks that serve WebSockets and bare streams.
#[derive(Clone)]
pub(crate) struct Sockets {
    tasks: TaskTracker,
    cancel: CancellationToken,
    slots: Arc<Semaphore>,
}

impl Sockets {
    /// Those of `tasks`, which end when cancelled.
    pub(crate) fn new(tasks: TaskTracker, cancel: CancellationToken) -> Self {
        let slots = Arc::new(Semaphore::new(SOCKETS));
        Self {
            tasks,
            cancel,
            slots,
        }
    }

    /// Answers with the upgrade to the first protocol of the client's that is among `known`, and
    /// serves it by `serve` once that is done.
    pub(super) fn upgrade<F>(
        &self,
        mut request: Request,
        known: &[&'static str],
        serve: impl FnOnce(Socket, &'static str) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(protocol) = protocol(request.headers(), known) else {
            let text = format!(
                "the client speaks none of the protocols {}",
                known.join(", ")
            );
            return (StatusCode::BAD_REQUEST, text).into_response();
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let mut response = match create_response_with_body(&request, Body::empty) {
            Ok(response) => response,
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        };
        let serve = move |upgraded| async move {
            serve(Socket::new(upgraded).await, protocol).await;
        };
        if let Err(refused) = self.spawn(upgrade, serve) {
            return refused.into_response();
        }
        let name = HeaderValue::from_static(protocol);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
        response
    }

    /// Answers with the upgrade to a bare stream of bytes, and serves it by `serve` once that is
    /// done.
    ///
    /// # Errors
    /// 503 where there is no room.
    pub(super) fn upgrade_to_bytes<F>(
        &self,
        mut request: Request,
        serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Result<Response, Refused>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        self.spawn(upgrade, move |upgraded| serve(TokioIo::new(upgraded)))?;
        let headers = [(CONNECTION, "Upgrade"), (UPGRADE, BYTES)];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    }

    /// Serves a connection once it is upgraded.
    fn spawn<F>(
        &self,
        upgrade: OnUpgrade,
        serve: impl FnOnce(Upgraded) -> F + Send + 'static,
    ) -> Result<(), Refused>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            let text = format!("this node serves {SOCKETS} streams already");
            return Err((StatusCode::SERVICE_UNAVAILABLE, text));
        };
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            let served = async {
                match upgrade.await {
                    Ok(upgraded) => serve(upgraded).await,
                    Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
                }
            };
            cancel.run_until_cancelled(served).await;
        });
        Ok(())
    }
}

/// Whether a request asks for a bare stream of bytes.
pub(super) fn wants_bytes(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE);
    upgrade.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(BYTES.as_bytes()))
}

/// The first protocol that the client offers and that is known.
fn protocol(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let texts = offers.filter_map(|value| value.to_str().ok());
    let mut words = texts.flat_map(|text| text.split(',')).map(str::trim);
    words.find_map(|word| known.iter().copied().find(|known| *known == word))
}

type Inner = WebSocketStream<TokioIo<Upgraded>>;

/// A WebSocket of a client.
pub(super) struct Socket(Inner);

/// What the client sends.
pub(super) struct Incoming(SplitStream<Inner>);

/// What is sent to the client; clones share it.
#[derive(Clone)]
pub(super) struct Outgoing(mpsc::Sender<Bytes>);

/// Sends what [`Outgoing`] is given.
pub(super) struct Writer {
    sink: SplitSink<Inner, Message>,
    outbox: mpsc::Receiver<Bytes>,
    /// How long the client may not read.
    patience: Duration,
}

/// A message of a protocol in which each begins with the number of a channel.
pub(super) fn framed(channel: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(channel);
    message.put_slice(content);
    message.freeze()
}

impl Socket {
    async fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        Self(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
    }

    /// Its halves; a client that reads nothing for longer than `patience` is given up.
    pub(super) fn split(self, patience: Duration) -> (Incoming, Outgoing, Writer) {
        let (sink, stream) = self.0.split();
        let (outgoing, outbox) = mpsc::channel(OUTBOX);
        let writer = Writer {
            sink,
            outbox,
            patience,
        };
        (Incoming(stream), Outgoing(outgoing), writer)
    }
}

impl Incoming {
    /// The next message with content; none at the client's end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.next().await? {
                Ok(Message::Binary(bytes)) => return Some(bytes),
                Ok(Message::Text(text)) => return Some(text.into()),
                // Pings are answered by the library.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) | Err(_) => return None,
            }
        }
    }
}

impl Outgoing {
    /// Sends a binary message; false if the client is gone.
    pub(super) async fn send(&self, message: Bytes) -> bool {
        self.0.send(message).await.is_ok()
    }
}

impl Writer {
    /// Sends while `run` has anything to send, and closes the socket when it has ended; a client
    /// that is gone or does not read ends it.
    pub(super) async fn beside(self, run: impl Future<Output = Incoming>) {
        let mut sending = std::pin::pin!(self.send());
        let mut incoming = tokio::select! {
            incoming = run => incoming,
            () = &mut sending => return,
        };
        sending.await;
        // A connection that is closed with something unread is reset, and what was sent last may be
        // lost with it: the client closes first.
        let rest = async { while incoming.next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, rest).await;
    }

    /// Sends until there is nobody left who has anything to send.
    async fn send(mut self) {
        loop {
            let message = match tokio::time::timeout(QUIET, self.outbox.recv()).await {
                Ok(Some(message)) => Message::Binary(message),
                Ok(None) => break,
                Err(_) => Message::Ping(Bytes::new()),
            };
            let sent = self.sink.send(message);
            if !matches!(tokio::time::timeout(self.patience, sent).await, Ok(Ok(()))) {
                return;
            }
        }
        let close = Message::Close(Some(CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        }));
        let goodbye = self.sink.send(close);
        // A client that is gone, or does not read, hears nothing of it.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_order_decides() {
        let known = ["v5", "v4"];
        for (offered, expected) in [
            (&["v5, v4"][..], Some("v5")),
            (&["v4,v5"], Some("v4")),
            (&["v9", "v4"], Some("v4")),
            (&["v9"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for offer in offered {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            assert_eq!(protocol(&headers, &known), expected, "{offered:?}");
        }
    }
}
