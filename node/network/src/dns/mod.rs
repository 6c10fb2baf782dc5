//! DNS over the wire, for guests that speak it themselves.
//!
//! Most guests ask for addresses by WASI's own interface, which their process answers from the
//! snapshot. SRV, PTR and TXT records, and resolvers that a guest brings along, need a server: it
//! answers for the cluster's domain from the [`Zone`], after the Kubernetes DNS-based service
//! discovery specification, version 1.1.0, and puts all other questions to the machine's
//! resolvers. Every node has one, and guests reach it under one address in the whole cluster.
//!
//! `answer` decides, `message` reads and writes, `forward` asks others, `client` asks this server
//! for guests that do not speak DNS; this module owns the sockets and the tasks, of which there is a bounded number.
//!
//! Messages are hickory-proto's, which the field's Rust servers and resolvers use, and which adds
//! one small crate beside itself. Its companion hickory-server is left alone: it is made for zones that are
//! objects behind asynchronous look-ups, with signing, transfers and updates; a zone that is one
//! immutable value would be wrapped into that and unwrapped again, and it brings a second network
//! stack (hickory-net), tries and the `time` crate, for two accept loops.
//!
//! Deliberately absent: a cache (the machine's resolvers have one), transfers, DNSSEC (answers for
//! the cluster's domain never leave the node), and names of endpoints of Services that have an
//! address of their own, which the specification does not ask for. Names of addresses that the
//! cluster does not have are asked outside, as CoreDNS does it (`fallthrough`).

mod answer;
pub(crate) mod client;
mod forward;
mod message;
mod resolvers;
mod shares;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record as ResourceRecord};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::answer::{Response, answer};
use self::forward::{Forwarder, PATIENCE, framed, read_framed};
use self::message::{MAX_QUERY, Refusal, Request, Transport, decode, encode};
use self::resolvers::Resolvers;
use self::shares::Shares;
use crate::zone::Zone;

/// Datagrams that wait for a resolver at a time. Past it, a client is told at once that its
/// question failed.
const WAITING: usize = 512;
/// Those of one client: half, for guests that share a namespace ask under one address.
const WAITING_OF_ONE: usize = WAITING / 2;
/// Connections at a time. Past it, they wait to be accepted.
const CONNECTIONS: usize = 128;
/// Those of one client. Past it, they are closed.
const CONNECTIONS_OF_ONE: usize = CONNECTIONS / 2;
/// How long a client may take for a question or for taking its answer, before its connection is
/// closed.
const IDLE: Duration = Duration::from_secs(10);
/// How long to wait after an error of a socket, so that one that stays costs nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts to find a port that is free for both protocols.
const ATTEMPTS: usize = 16;

/// A DNS server with its sockets.
pub struct DnsServer {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    address: SocketAddr,
    forwarder: Forwarder,
}

impl DnsServer {
    /// Takes an address for UDP and TCP; with port 0, a port that is free for both. The address
    /// should be one of the machine's own and not a wildcard, as answers to datagrams leave from
    /// whichever address the route has then.
    ///
    /// # Errors
    /// The address is not the machine's, or is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let udp = std::net::UdpSocket::bind(address)?;
            let bound = udp.local_addr()?;
            let tcp = match std::net::TcpListener::bind(bound) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && address.port() == 0
                        && attempts < ATTEMPTS =>
                {
                    continue;
                }
                tcp => tcp?,
            };
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            return Ok(Self {
                udp,
                tcp,
                address: bound,
                forwarder: Forwarder {
                    resolvers: Resolvers::default(),
                    own: vec![bound],
                    patience: PATIENCE,
                },
            });
        }
    }

    /// Says that the server is also found at another address, so that it does not ask itself if
    /// the machine names that one as its resolver.
    #[must_use]
    pub fn known_as(mut self, address: SocketAddr) -> Self {
        self.forwarder.own.push(address);
        self
    }

    /// Asks these resolvers about names outside the cluster instead of the machine's.
    #[must_use]
    pub fn forward_to(mut self, resolvers: &[SocketAddr]) -> Self {
        self.forwarder.resolvers = Resolvers::Given(resolvers.into());
        self
    }

    /// Gives a resolver so long for an answer.
    #[cfg(test)]
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.forwarder.patience = patience;
        self
    }

    /// The address, the same one for UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `cancel`. Questions about the cluster's names fail while the zone is not
    /// known.
    ///
    /// # Errors
    /// The sockets cannot be watched.
    pub async fn run(
        self,
        zone: watch::Receiver<Arc<Zone>>,
        cancel: CancellationToken,
    ) -> io::Result<()> {
        let udp = Arc::new(UdpSocket::from_std(self.udp)?);
        let tcp = TcpListener::from_std(self.tcp)?;
        let desk = Arc::new(Desk {
            zone,
            forwarder: self.forwarder,
        });
        let both = async {
            tokio::join!(
                serve_datagrams(udp, desk.clone()),
                serve_connections(tcp, desk.clone())
            );
        };
        cancel.run_until_cancelled(both).await;
        Ok(())
    }
}

/// What all questions share.
struct Desk {
    zone: watch::Receiver<Arc<Zone>>,
    forwarder: Forwarder,
}

/// What becomes of a message.
enum Step {
    Silence,
    Reply(Vec<u8>),
    /// Somebody else has to be asked first.
    Ask(Box<Pending>),
}

/// A question with as much of its answer as the zone has.
struct Pending {
    request: Request,
    response: Response,
}

impl Desk {
    /// Goes as far as the zone leads, which takes no time.
    fn begin(&self, bytes: &[u8], transport: Transport) -> Step {
        let request = match decode(bytes) {
            Ok(request) => request,
            Err(Refusal::Silence) => return Step::Silence,
            Err(Refusal::Reply(reply)) => return Step::Reply(reply),
        };
        let zone = self.zone.borrow().clone();
        let mut response = answer(&zone, &request.query);
        if response.outside.is_some() {
            return Step::Ask(Box::new(Pending { request, response }));
        }
        rotate(&mut response.answers, rand::random::<u16>().into());
        let limit = request.limit(transport);
        Step::Reply(encode(&request, &response, limit))
    }

    /// Asks the resolvers for what is missing.
    async fn finish(&self, pending: Pending, transport: Transport) -> Vec<u8> {
        let Pending { request, response } = &pending;
        let limit = request.limit(transport);
        let failed = || encode(request, &Response::of(ResponseCode::ServFail), limit);
        let Some(outside) = &response.outside else {
            return encode(request, response, limit);
        };
        let Some(bytes) = self.forwarder.ask(request, outside, transport).await else {
            return failed();
        };
        if response.answers.is_empty() {
            if bytes.len() <= limit {
                return bytes;
            }
            let mut cut = Response::of(ResponseCode::NoError);
            cut.truncated = true;
            return encode(request, &cut, limit);
        }
        match Message::from_vec(&bytes) {
            Ok(theirs) => encode(request, &continued(pending.response.clone(), theirs), limit),
            Err(_) => failed(),
        }
    }
}

/// Our alias with what a resolver says of where it leads.
fn continued(mut ours: Response, theirs: Message) -> Response {
    ours.code = theirs.metadata.response_code;
    ours.truncated = theirs.metadata.truncation;
    ours.answers.extend(theirs.answers);
    ours.authorities = theirs.authorities;
    ours
}

/// Turns the addresses among answers, so that clients, which take the first, spread.
fn rotate(answers: &mut [ResourceRecord], by: usize) {
    let is_address = |record: &ResourceRecord| matches!(record.data, RData::A(_) | RData::AAAA(_));
    // Aliases that lead to them stay before them.
    let first = answers.iter().position(is_address).unwrap_or(answers.len());
    let addresses = &mut answers[first..];
    if !addresses.is_empty() {
        let by = by % addresses.len();
        addresses.rotate_left(by);
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let shares = Shares::new(WAITING_OF_ONE);
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "a DNS query was not received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let reply = match desk.begin(&buffer[..length], Transport::Udp) {
            Step::Silence => continue,
            Step::Reply(reply) => reply,
            Step::Ask(pending) => {
                if let Some(share) = shares.take(client.ip())
                    && let Ok(permit) = waiting.clone().try_acquire_owned()
                {
                    let (socket, desk) = (socket.clone(), desk.clone());
                    tasks.spawn(async move {
                        let reply = desk.finish(*pending, Transport::Udp).await;
                        drop((permit, share));
                        send(&socket, &reply, client).await;
                    });
                    continue;
                }
                let failed = Response::of(ResponseCode::ServFail);
                let request = &pending.request;
                encode(request, &failed, request.limit(Transport::Udp))
            }
        };
        send(&socket, &reply, client).await;
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "a DNS answer was not sent");
    }
}

async fn serve_connections(listener: TcpListener, desk: Arc<Desk>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let shares = Shares::new(CONNECTIONS_OF_ONE);
    let mut tasks = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = connections.clone().acquire_owned().await {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let Some(share) = shares.take(client.ip()) else {
                    tracing::debug!(%client, "a client has too many DNS connections");
                    continue;
                };
                let desk = desk.clone();
                tasks.spawn(async move {
                    if let Err(error) = serve_connection(stream, &desk).await {
                        tracing::debug!(%error, %client, "a DNS connection ended");
                    }
                    drop((permit, share));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a DNS connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the questions of one connection in their order.
async fn serve_connection(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let question = in_time(read_framed(&mut stream, MAX_QUERY)).await?;
        let reply = match desk.begin(&question, Transport::Tcp) {
            Step::Silence => return Ok(()),
            Step::Reply(reply) => reply,
            Step::Ask(pending) => desk.finish(*pending, Transport::Tcp).await,
        };
        in_time(stream.write_all(&framed(&reply))).await?;
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(IDLE, work).await?
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
