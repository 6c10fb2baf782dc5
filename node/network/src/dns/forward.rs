//! Questions about names outside the cluster, put to the machine's resolvers.
//!
//! A question goes on by the transport by which it came: if the answer does not fit into a
//! datagram the resolver says so, and the client comes again over TCP. Options of EDNS concern two
//! neighbours only, so that the client's are not passed on; what is passed on is the size that it
//! takes and whether it wants signatures. Every try has a socket and an identifier of its own,
//! which whoever would forge an answer has to guess.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{
    DEFAULT_MAX_PAYLOAD_LEN, Edns, Header, Message, MessageType, OpCode, Query, ResponseCode,
};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::message::{Request, Transport};
use super::resolvers::Resolvers;

/// How long a resolver has. Three of them end before a client that waits five seconds, as most do,
/// gives up.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);
/// Resolvers are tried in turn, so often in all.
const TRIES: usize = 3;
/// What a resolver is told that it may send in one datagram, with room to notice more.
const DATAGRAM: usize = 4096;

/// Asks the resolvers.
pub(super) struct Forwarder {
    pub(super) resolvers: Resolvers,
    /// Where this server itself is found.
    pub(super) own: Vec<SocketAddr>,
    /// How long one resolver has for an answer.
    pub(super) patience: Duration,
}

impl Forwarder {
    /// The answer of a resolver to a question, as it came but for its identifier, which is that
    /// of the request. None if no resolver answers.
    pub(super) async fn ask(
        &self,
        request: &Request,
        query: &Query,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut others: VecDeque<SocketAddr> = self
            .resolvers
            .current()
            .iter()
            .copied()
            .filter(|resolver| !self.is_own(*resolver))
            .collect();
        if others.is_empty() {
            tracing::warn!(
                "no resolver is known but this server itself: name another one in /etc/resolv.conf"
            );
        }
        let mut last = None;
        for _ in 0..TRIES {
            let Some(resolver) = others.pop_front() else {
                break;
            };
            let question = question(request, query);
            let asked = exchange(resolver, &question, transport);
            match tokio::time::timeout(self.patience, asked).await {
                // Another one may know better; this one would say the same again.
                Ok(Ok((answer, ResponseCode::ServFail | ResponseCode::Refused))) => {
                    last = Some(answer);
                    continue;
                }
                Ok(Ok((answer, _))) => {
                    last = Some(answer);
                    break;
                }
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver failed"),
                Err(_) => tracing::debug!(%resolver, "a resolver did not answer in time"),
            }
            others.push_back(resolver);
        }
        let mut answer = last?;
        answer
            .get_mut(..2)?
            .copy_from_slice(&request.metadata.id.to_be_bytes());
        Some(answer)
    }

    fn is_own(&self, resolver: SocketAddr) -> bool {
        let ip = resolver.ip().to_canonical();
        self.own.iter().any(|own| {
            own.port() == resolver.port()
                && (own.ip() == ip || own.ip().is_unspecified() && ip.is_loopback())
        })
    }
}

/// Asks one server; its answer to this very question, and the code of it.
pub(super) async fn exchange(
    resolver: SocketAddr,
    question: &Message,
    transport: Transport,
) -> io::Result<(Vec<u8>, ResponseCode)> {
    let bytes = question.to_vec().map_err(io::Error::other)?;
    match transport {
        Transport::Udp => {
            let any = match resolver {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
            socket.connect(resolver).await?;
            socket.send(&bytes).await?;
            let mut buffer = vec![0; DATAGRAM];
            loop {
                let length = socket.recv(&mut buffer).await?;
                // What does not answer the question may be forged: the answer may still come.
                if let Some(code) = answers(&buffer[..length], question) {
                    buffer.truncate(length);
                    return Ok((buffer, code));
                }
            }
        }
        Transport::Tcp => {
            let mut stream = TcpStream::connect(resolver).await?;
            stream.write_all(&framed(&bytes)).await?;
            let answer = read_framed(&mut stream, usize::from(u16::MAX)).await?;
            let code = answers(&answer, question)
                .ok_or_else(|| io::Error::other("the answer is to another question"))?;
            Ok((answer, code))
        }
    }
}

fn question(request: &Request, query: &Query) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    let theirs = &request.metadata;
    message.metadata.recursion_desired = theirs.recursion_desired;
    message.metadata.checking_disabled = theirs.checking_disabled;
    message.metadata.authentic_data = theirs.authentic_data;
    message.add_query(query.clone());
    message.edns = request.edns.as_ref().map(|theirs| {
        let mut ours = Edns::new();
        ours.set_max_payload(theirs.max_payload().min(DEFAULT_MAX_PAYLOAD_LEN))
            .set_dnssec_ok(theirs.flags().dnssec_ok);
        ours
    });
    message
}

/// The code of a message that answers our question; the name must have the very case in which it
/// was asked.
fn answers(bytes: &[u8], question: &Message) -> Option<ResponseCode> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    if header.metadata.id != question.metadata.id
        || header.metadata.message_type != MessageType::Response
        || header.counts.queries != 1
    {
        return None;
    }
    let asked = Query::read(&mut decoder).ok()?;
    let same = question.queries.iter().all(|query| {
        asked.name().eq_case(query.name())
            && asked.query_type() == query.query_type()
            && asked.query_class() == query.query_class()
    });
    same.then_some(header.metadata.response_code)
}

/// A message with its length before it, as TCP carries it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    // The encoder makes no message that is longer.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(2 + usize::from(length));
    bytes.extend(length.to_be_bytes());
    bytes.extend(&message[..usize::from(length)]);
    bytes
}

/// Reads a message with its length before it, of at most `most` bytes.
pub(super) async fn read_framed(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > most {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long",
        ));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
