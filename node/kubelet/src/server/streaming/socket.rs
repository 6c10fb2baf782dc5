//! The connection of a client once it is upgraded, in halves: what comes is one sequence of messages,
//! and so is what is sent, from however many tasks.
//!
//! A WebSocket has messages. Over a connection of SPDY each message that is sent is a frame, and one
//! that comes a piece of the bytes, wherever frames begin in it: so do they come through a tunnel too
//! that is a WebSocket (see [`super::port_forward`]), and nobody need know of which kind a socket is.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::spdy::Encoder;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

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
/// The number of pings of SPDY; a server's are even.
const PING: u32 = 2;
/// How long a client may take to hear what was sent last, and to close then, as Kubernetes'
/// `finishTimeout` is: it may read slowly, and most of that is in buffers on its way by now.
pub(super) const FINISH: Duration = Duration::from_secs(15 * 60);
/// How long where there is nothing more to hear.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

type Stream = TokioIo<Upgraded>;
type WebSocket = WebSocketStream<Stream>;

/// A connection of a client.
pub(super) enum Socket {
    WebSocket(Box<WebSocket>),
    Spdy(Stream),
}

/// What the client sends.
pub(super) enum Incoming {
    WebSocket(SplitStream<WebSocket>),
    Spdy {
        reader: ReadHalf<Stream>,
        came: BytesMut,
    },
}

/// What is sent to the client; clones share it.
#[derive(Clone)]
pub(super) struct Outgoing(mpsc::Sender<Bytes>);

/// Sends what [`Outgoing`] is given.
pub(super) struct Writer {
    sink: Sink,
    outbox: mpsc::Receiver<Bytes>,
    /// How long the client may not read.
    patience: Duration,
}

enum Sink {
    WebSocket(SplitSink<WebSocket, Message>),
    Spdy(WriteHalf<Stream>),
}

/// A message of a protocol in which each begins with the number of a channel.
pub(super) fn framed(channel: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(channel);
    message.put_slice(content);
    message.freeze()
}

impl Socket {
    pub(super) async fn websocket(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self::WebSocket(Box::new(socket))
    }

    pub(super) fn spdy(upgraded: Upgraded) -> Self {
        Self::Spdy(TokioIo::new(upgraded))
    }

    /// Its halves; a client that reads nothing for longer than `patience` is given up.
    pub(super) fn split(self, patience: Duration) -> (Incoming, Outgoing, Writer) {
        let (incoming, sink) = match self {
            Self::WebSocket(socket) => {
                let (sink, stream) = (*socket).split();
                (Incoming::WebSocket(stream), Sink::WebSocket(sink))
            }
            Self::Spdy(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                let came = BytesMut::new();
                (Incoming::Spdy { reader, came }, Sink::Spdy(writer))
            }
        };
        let (outgoing, outbox) = mpsc::channel(OUTBOX);
        let writer = Writer {
            sink,
            outbox,
            patience,
        };
        (incoming, Outgoing(outgoing), writer)
    }
}

impl Incoming {
    /// The next message with content; none at the client's end. Whoever stops to wait for it loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::WebSocket(stream) => loop {
                match stream.next().await? {
                    Ok(Message::Binary(bytes)) => return Some(bytes),
                    Ok(Message::Text(text)) => return Some(text.into()),
                    // Pings are answered by the library.
                    Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                    Ok(Message::Close(_)) | Err(_) => return None,
                }
            },
            Self::Spdy { reader, came } => {
                came.reserve(CHUNK);
                let read = reader.read_buf(came).await;
                match read {
                    Ok(1..) => Some(came.split().freeze()),
                    Ok(0) | Err(_) => None,
                }
            }
        }
    }
}

impl Outgoing {
    /// Sends a message; false if the client is gone.
    pub(super) async fn send(&self, message: Bytes) -> bool {
        self.0.send(message).await.is_ok()
    }
}

impl Sink {
    /// Sends a message; false if the client is gone.
    async fn send(&mut self, message: Bytes) -> bool {
        match self {
            Self::WebSocket(sink) => sink.send(Message::Binary(message)).await.is_ok(),
            Self::Spdy(writer) => {
                writer.write_all(&message).await.is_ok() && writer.flush().await.is_ok()
            }
        }
    }

    async fn ping(&mut self) -> bool {
        match self {
            Self::WebSocket(sink) => sink.send(Message::Ping(Bytes::new())).await.is_ok(),
            Self::Spdy(_) => self.send(Encoder::ping(PING)).await,
        }
    }

    /// Says that nothing more comes, where that is not said in what was sent.
    async fn close(&mut self) {
        if let Self::WebSocket(sink) = self {
            let close = Message::Close(Some(CloseFrame {
                code: CloseCode::Normal,
                reason: Utf8Bytes::default(),
            }));
            // A client that is gone hears nothing of it.
            let _ = sink.send(close).await;
        }
    }
}

impl Writer {
    /// Sends while `run` has anything to send, and closes the socket when it has ended; a client
    /// that is gone or does not read ends it. `run` says how long the client has for what was sent
    /// last, and to close then: no longer, however patient one is while there is more to come.
    pub(super) async fn beside(self, run: impl Future<Output = (Incoming, Duration)>) {
        let mut sending = std::pin::pin!(self.send());
        let mut run = std::pin::pin!(run);
        let mut is_sent = false;
        let (mut incoming, farewell) = tokio::select! {
            ended = &mut run => ended,
            all = &mut sending => {
                if !all {
                    return;
                }
                // Whoever had anything to send has ended, and so does `run`.
                is_sent = true;
                run.await
            }
        };
        // A connection that is closed with something unread is reset, and what was sent last may be
        // lost with it: the client closes first. It is read meanwhile, for it may hear nothing before
        // it has sent what it has to send.
        let rest = async { while incoming.next().await.is_some() {} };
        let sending = async {
            if !is_sent {
                sending.await;
            }
        };
        let finishing = async { tokio::join!(sending, rest) };
        let _ = tokio::time::timeout(farewell, finishing).await;
    }

    /// Sends until there is nobody left who has anything to send; false if the client is gone, or
    /// does not read.
    async fn send(mut self) -> bool {
        loop {
            let sent = match tokio::time::timeout(QUIET, self.outbox.recv()).await {
                Ok(Some(message)) => {
                    tokio::time::timeout(self.patience, self.sink.send(message)).await
                }
                Ok(None) => break,
                Err(_) => tokio::time::timeout(self.patience, self.sink.ping()).await,
            };
            if !matches!(sent, Ok(true)) {
                return false;
            }
        }
        // One that does not read hears nothing of it either.
        let closing = tokio::time::timeout(self.patience, self.sink.close());
        closing.await.is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Empty;
    use hyper::header::{CONNECTION, UPGRADE};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response, StatusCode};
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    /// More than a test takes.
    const LONG: Duration = Duration::from_secs(60 * 60);
    const DEADLINE: Duration = Duration::from_secs(20);
    /// Bytes on their way: far fewer than are sent here.
    const ROOM: usize = 1 << 10;
    const MUCH: usize = 64 << 10;

    /// The client's end of a connection of SPDY, and the server's.
    async fn connected() -> (DuplexStream, Socket) {
        let (mut client, server) = duplex(ROOM);
        let (sender, mut upgrades) = mpsc::channel(1);
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            sender.try_send(hyper::upgrade::on(&mut request)).unwrap();
            let response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "Upgrade")
                .header(UPGRADE, "SPDY/3.1")
                .body(Empty::<Bytes>::new());
            std::future::ready(Ok::<_, Infallible>(response.unwrap()))
        });
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(server), service)
            .with_upgrades();
        tokio::spawn(connection);
        let request =
            b"GET / HTTP/1.1\r\nhost: node\r\nconnection: upgrade\r\nupgrade: SPDY/3.1\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let upgrade = upgrades.recv().await.unwrap();
        (client, Socket::spdy(upgrade.await.unwrap()))
    }

    /// Sends much and ends.
    async fn last(
        incoming: Incoming,
        outgoing: Outgoing,
        farewell: Duration,
    ) -> (Incoming, Duration) {
        assert!(outgoing.send(Bytes::from(vec![b'x'; MUCH])).await);
        (incoming, farewell)
    }

    #[tokio::test]
    async fn who_has_to_send_before_it_hears_is_read() {
        let (mut client, socket) = connected().await;
        let (incoming, outgoing, writer) = socket.split(LONG);
        let served = tokio::spawn(writer.beside(last(incoming, outgoing, LONG)));
        let talk = async {
            client.write_all(&[b'y'; MUCH]).await.unwrap();
            let mut heard = vec![0; MUCH];
            client.read_exact(&mut heard).await.unwrap();
            drop(client);
            served.await.unwrap();
        };
        timeout(DEADLINE, talk).await.unwrap();
    }

    #[tokio::test]
    async fn the_client_closes_first_whoever_of_the_others_ends_first() {
        let (mut client, socket) = connected().await;
        let (incoming, outgoing, writer) = socket.split(LONG);
        let (end, ended) = oneshot::channel();
        let run = async move {
            drop(outgoing);
            ended.await.unwrap();
            (incoming, LONG)
        };
        let served = tokio::spawn(writer.beside(run));
        let talk = async {
            let ends = async {
                // Nothing is sent any more by then.
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                end.send(()).unwrap();
            };
            let (sent, ()) = tokio::join!(client.write_all(&[b'y'; MUCH]), ends);
            sent.unwrap();
            drop(client);
            served.await.unwrap();
        };
        timeout(DEADLINE, talk).await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_read_what_is_sent_last_is_given_up() {
        let (_client, socket) = connected().await;
        let (incoming, outgoing, writer) = socket.split(LONG);
        let farewell = Duration::from_millis(50);
        let served = writer.beside(last(incoming, outgoing, farewell));
        timeout(DEADLINE, served).await.unwrap();
    }
}
