//! Port-forward, in the two forms that clients speak.
//!
//! `portforward.k8s.io` is SPDY, with a pair of streams for each connection, one for its data and one
//! for what went wrong. Its bytes are those of the connection itself, or of messages of a WebSocket,
//! which is a tunnel then (`SPDY/3.1+portforward.k8s.io`, KEP-4006). `v4.channel.k8s.io`, in a
//! WebSocket alone, has a pair of channels for each port that the query names, and so one connection
//! to each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_runtime::spdy::{Decoder, Encoder, Frame};
use coracle_runtime::streaming::PortConnection;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use super::socket::{CHUNK, FINISH, GOODBYE, Incoming, MAX_MESSAGE, Outgoing, Socket, framed};
use super::upgrade::Protocols;
use crate::node_context::NodeContext;
use crate::pod;
use crate::pod_dial;

const CHANNELS: &str = "v4.channel.k8s.io";
/// The protocols, see [`super::upgrade::Sockets::upgrade`].
pub(super) const PROTOCOLS: Protocols = Protocols {
    websocket: &["SPDY/3.1+portforward.k8s.io", CHANNELS],
    spdy: &["portforward.k8s.io"],
};

/// Messages on their way to a connection, and bytes on their way to all of a client's; where there is
/// no more room, the client is not read.
const INBOX: usize = 64;
const UNDER_WAY: usize = MAX_MESSAGE;
/// How long a client may not read.
const PATIENCE: Duration = Duration::from_secs(60);
/// Streams that a client may have open.
const STREAMS: usize = 1024;
/// Ports of the channel form at most, by which a byte numbers its channels.
const PORTS: usize = 100;

/// The Pod whose ports are meant.
pub(super) struct Target {
    pub(super) node: Arc<NodeContext>,
    pub(super) pod: Arc<Pod>,
}

impl Target {
    async fn connect(&self, port: u16) -> Result<PortConnection, String> {
        let (name, uid) = (pod::name(&self.pod), pod::uid(&self.pod));
        let ips = pod::reported_ips(&self.pod);
        let connected = pod_dial::connect(&self.node, uid, &ips, port).await;
        connected.map_err(|error| {
            format!("error forwarding port {port} to pod {name}, uid {uid}: {error}")
        })
    }
}

/// Serves a client until it ends, or all its connections have.
pub(super) async fn serve(socket: Socket, protocol: &str, target: Arc<Target>, ports: Vec<u16>) {
    let (mut incoming, outgoing, writer) = socket.split(PATIENCE);
    let run = async move {
        let farewell = if protocol == CHANNELS {
            channels(&mut incoming, outgoing, target, ports).await;
            FINISH
        } else {
            // The client has ended it, or is not understood.
            streams(&mut incoming, outgoing, target).await;
            GOODBYE
        };
        (incoming, farewell)
    };
    writer.beside(run).await;
}

/// Bytes for a connection, with their part of what may be under way; none: the client sends no more.
type Inbox = mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>;
type ToInbox = mpsc::Sender<(Bytes, OwnedSemaphorePermit)>;

/// Bytes that a client may have under way.
struct Budget(Arc<Semaphore>);

impl Budget {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(UNDER_WAY)))
    }

    /// Gives bytes to a connection as soon as there is room for them.
    async fn give(&self, inbox: &ToInbox, bytes: Bytes) {
        let size = bytes.len().min(UNDER_WAY) as u32;
        // Nobody closes it.
        if let Ok(part) = self.0.clone().acquire_many_owned(size).await {
            // The connection may have ended.
            let _ = inbox.send((bytes, part)).await;
        }
    }
}

/// Carries bytes between a connection and the client. What comes from the connection goes to
/// `send`, which says whether anybody takes it; both halves end by themselves.
async fn carry<F>(stream: PortConnection, mut inbox: Inbox, send: impl Fn(Bytes) -> F)
where
    F: Future<Output = bool>,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let to_pod = async {
        while let Some((bytes, _part)) = inbox.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // It may have closed already. Whoever asks and has no more to say still hears the answer.
        let _ = writer.shutdown().await;
        std::future::pending().await
    };
    let to_client = async {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            match reader.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if !send(bytes.freeze()).await {
                return;
            }
        }
    };
    tokio::select! {
        // Nobody waits any more for what is asked.
        () = to_client => {}
        () = to_pod => {}
    }
}

/// A stream that the client has opened.
enum Opened {
    /// Takes what went wrong with the connection of that number.
    Error { request: String },
    /// Is the connection.
    Data {
        inbox: Option<ToInbox>,
        task: AbortHandle,
        /// Its stream for what goes wrong.
        errors: Option<u32>,
    },
}

async fn streams(incoming: &mut Incoming, outgoing: Outgoing, target: Arc<Target>) {
    let budget = Budget::new();
    let (mut decoder, mut encoder) = (Decoder::new(), Encoder::default());
    let mut opened: HashMap<u32, Opened> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            Some(ended) = connections.join_next() => {
                for stream in ended.unwrap_or_default() {
                    opened.remove(&stream);
                }
                continue;
            }
        };
        let Some(message) = message else { return };
        decoder.put(&message);
        loop {
            let frame = match decoder.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a client of port-forward speaks no SPDY");
                    return;
                }
            };
            let answered = match frame {
                Frame::Open {
                    stream, headers, ..
                } => {
                    // A client opens each number once; one that ends is counted until it has.
                    if opened.len().max(connections.len()) >= STREAMS
                        || opened.contains_key(&stream)
                    {
                        return;
                    }
                    let header = |name| headers.get(name).map_or("", String::as_str);
                    let is_error = header("streamtype") == "error";
                    let request = match header("requestid") {
                        // Old clients open the two of a pair one after the other.
                        "" if is_error => stream.to_string(),
                        "" => stream.saturating_sub(2).to_string(),
                        request => request.to_owned(),
                    };
                    let answered = outgoing.send(encoder.reply(stream)).await;
                    if is_error {
                        opened.insert(stream, Opened::Error { request });
                    } else {
                        let of_request = |(number, stream): (&u32, &Opened)| match stream {
                            Opened::Error { request: other } => {
                                (*other == request).then_some(*number)
                            }
                            Opened::Data { .. } => None,
                        };
                        let errors = opened.iter().find_map(of_request);
                        let (sender, inbox) = mpsc::channel(INBOX);
                        let port = header("port").parse().map_err(|_| {
                            format!("port {:?} is no number of a port", header("port"))
                        });
                        let (target, outgoing) = (target.clone(), outgoing.clone());
                        let task = connections.spawn(async move {
                            connection(&target, &outgoing, port, inbox, stream, errors).await;
                            [Some(stream), errors]
                                .into_iter()
                                .flatten()
                                .collect::<Vec<u32>>()
                        });
                        let data = Opened::Data {
                            inbox: Some(sender),
                            task,
                            errors,
                        };
                        opened.insert(stream, data);
                    }
                    answered
                }
                Frame::Data {
                    stream,
                    bytes,
                    last,
                } => {
                    if let Some(Opened::Data { inbox, .. }) = opened.get_mut(&stream) {
                        if let Some(inbox) = inbox.as_ref().filter(|_| !bytes.is_empty()) {
                            budget.give(inbox, bytes).await;
                        }
                        if last {
                            *inbox = None;
                        }
                    }
                    true
                }
                // Nobody is there any more for the connection. The client waits for the end of its
                // errors.
                Frame::Reset { stream } => match opened.remove(&stream) {
                    Some(Opened::Data { task, errors, .. }) => {
                        task.abort();
                        match errors.filter(|errors| opened.remove(errors).is_some()) {
                            Some(errors) => outgoing.send(Encoder::data(errors, &[], true)).await,
                            None => true,
                        }
                    }
                    Some(Opened::Error { .. }) | None => true,
                },
                // An even one is the answer to one of ours.
                Frame::Ping { id } if id % 2 == 1 => outgoing.send(Encoder::ping(id)).await,
                Frame::GoAway => return,
                Frame::Ping { .. } | Frame::Other => true,
            };
            if !answered {
                return;
            }
        }
    }
}

/// One connection, and its pair of streams.
async fn connection(
    target: &Target,
    outgoing: &Outgoing,
    port: Result<u16, String>,
    inbox: Inbox,
    stream: u32,
    errors: Option<u32>,
) {
    let connected = match port {
        Ok(port) => target.connect(port).await,
        Err(error) => Err(error),
    };
    let error = match connected {
        Ok(connected) => {
            let send = |bytes: Bytes| async move {
                outgoing.send(Encoder::data(stream, &bytes, false)).await
            };
            carry(connected, inbox, send).await;
            String::new()
        }
        Err(error) => error,
    };
    if let Some(errors) = errors {
        outgoing
            .send(Encoder::data(errors, error.as_bytes(), true))
            .await;
    }
    outgoing.send(Encoder::data(stream, &[], true)).await;
}

async fn channels(
    incoming: &mut Incoming,
    outgoing: Outgoing,
    target: Arc<Target>,
    ports: Vec<u16>,
) {
    let budget = Budget::new();
    let mut inboxes = Vec::new();
    let mut connections = JoinSet::new();
    for (index, port) in ports.into_iter().take(PORTS).enumerate() {
        let data = (2 * index) as u8;
        // Each channel begins with its port, little endian.
        for channel in [data, data + 1] {
            let message = framed(channel, &port.to_le_bytes());
            if !outgoing.send(message).await {
                return;
            }
        }
        let (sender, mut inbox) = mpsc::channel(INBOX);
        inboxes.push(sender);
        let (target, outgoing) = (target.clone(), outgoing.clone());
        connections.spawn(async move {
            // There is no telling a connection that is not wanted yet from one that says nothing:
            // it is made at once.
            let connected = target.connect(port).await;
            match connected {
                Ok(connected) => {
                    let outgoing = &outgoing;
                    let send =
                        |bytes: Bytes| async move { outgoing.send(framed(data, &bytes)).await };
                    carry(connected, inbox, send).await;
                }
                Err(error) => {
                    inbox.close();
                    outgoing.send(framed(data + 1, error.as_bytes())).await;
                }
            }
        });
    }
    drop(outgoing);
    loop {
        tokio::select! {
            message = incoming.next() => {
                let Some(mut message) = message else { return };
                if message.is_empty() {
                    continue;
                }
                let bytes = message.split_off(1);
                let channel = usize::from(message[0]);
                let inbox = inboxes.get(channel / 2).filter(|_| channel % 2 == 0);
                if let Some(inbox) = inbox.filter(|_| !bytes.is_empty()) {
                    budget.give(inbox, bytes).await;
                }
            }
            ended = connections.join_next() => {
                if ended.is_none() {
                    return;
                }
            }
        }
    }
}
