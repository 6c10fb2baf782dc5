//! Port-forward over a WebSocket, in the two forms that clients speak.
//!
//! `SPDY/3.1+portforward.k8s.io` (kubectl) is a tunnel: messages are a byte stream of SPDY frames,
//! with a pair of streams for each connection, one for its data and one for what went wrong
//! (KEP-4006). `v4.channel.k8s.io` has a pair of channels for each port that the query names, and
//! so one connection to each.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::streaming::PortConnection;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::socket::{Incoming, Outgoing, Socket};
use super::spdy::{Decoder, Encoder, Frame};
use crate::node_context::NodeContext;
use crate::pod;
use crate::pod_dial;

/// A tunnel for SPDY.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocols, see [`super::socket::Sockets::upgrade`].
pub(super) const PROTOCOLS: [&str; 2] = [TUNNEL, "v4.channel.k8s.io"];

/// Bytes in one message.
const CHUNK: usize = 32 << 10;
/// Messages on their way to a connection; one that takes no more holds the tunnel up.
const INBOX: usize = 64;
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
    let (incoming, outgoing, writer) = socket.split();
    let run = async move {
        match protocol {
            TUNNEL => tunnel(incoming, outgoing, target).await,
            _ => channels(incoming, outgoing, target, ports).await,
        }
    };
    writer.beside(run).await;
}

/// Bytes for a connection; none: the client sends no more.
type Inbox = mpsc::Receiver<Bytes>;

/// Carries bytes between a connection and the client. What comes from the connection goes to
/// `send`, which says whether anybody takes it; both halves end by themselves.
async fn carry<F>(stream: PortConnection, mut inbox: Inbox, send: impl Fn(Bytes) -> F)
where
    F: Future<Output = bool>,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let to_pod = async {
        while let Some(bytes) = inbox.recv().await {
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

/// A stream of the tunnel that the client has opened.
enum Opened {
    /// Takes what went wrong with the connection of that number.
    Error { request: String },
    /// Is the connection.
    Data { inbox: Option<mpsc::Sender<Bytes>> },
}

async fn tunnel(mut incoming: Incoming, outgoing: Outgoing, target: Arc<Target>) {
    let (mut decoder, mut encoder) = (Decoder::new(), Encoder::default());
    let mut streams: HashMap<u32, Opened> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            Some(ended) = connections.join_next() => {
                for stream in ended.unwrap_or_default() {
                    streams.remove(&stream);
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
                    if streams.len() >= STREAMS {
                        return;
                    }
                    let header = |name| headers.get(name).map_or("", String::as_str);
                    let request = header("requestid").to_owned();
                    let answered = outgoing.send(encoder.reply(stream)).await;
                    if header("streamtype") == "error" {
                        streams.insert(stream, Opened::Error { request });
                    } else {
                        let of_request = |(number, opened): (&u32, &Opened)| match opened {
                            Opened::Error { request: other } => {
                                (*other == request).then_some(*number)
                            }
                            Opened::Data { .. } => None,
                        };
                        let errors = streams.iter().find_map(of_request);
                        let (sender, inbox) = mpsc::channel(INBOX);
                        let inbox_of = Some(sender);
                        streams.insert(stream, Opened::Data { inbox: inbox_of });
                        let port = header("port").parse().map_err(|_| {
                            format!("port {:?} is no number of a port", header("port"))
                        });
                        let (target, outgoing) = (target.clone(), outgoing.clone());
                        connections.spawn(async move {
                            connection(&target, &outgoing, port, inbox, stream, errors).await;
                            [Some(stream), errors]
                                .into_iter()
                                .flatten()
                                .collect::<Vec<u32>>()
                        });
                    }
                    answered
                }
                Frame::Data {
                    stream,
                    bytes,
                    last,
                } => {
                    if let Some(Opened::Data { inbox }) = streams.get_mut(&stream) {
                        if let Some(inbox) = inbox.as_ref().filter(|_| !bytes.is_empty()) {
                            // It may have ended.
                            let _ = inbox.send(bytes).await;
                        }
                        if last {
                            *inbox = None;
                        }
                    }
                    true
                }
                Frame::Reset { stream } => {
                    if let Some(Opened::Data { inbox }) = streams.get_mut(&stream) {
                        *inbox = None;
                    }
                    true
                }
                Frame::Ping { id } => outgoing.send(Encoder::ping(id)).await,
                Frame::GoAway => return,
                Frame::Other => true,
            };
            if !answered {
                return;
            }
        }
    }
}

/// One connection of the tunnel.
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
    mut incoming: Incoming,
    outgoing: Outgoing,
    target: Arc<Target>,
    ports: Vec<u16>,
) {
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
        let (sender, mut inbox) = mpsc::channel::<Bytes>(INBOX);
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
                    // It may have ended.
                    let _ = inbox.send(bytes).await;
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

fn framed(channel: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(channel);
    message.put_slice(content);
    message.freeze()
}
