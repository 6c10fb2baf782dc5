//! Messages on the wire (RFC 1035, with EDNS of RFC 6891): what is read of a query, and how an
//! answer is made to fit.

use hickory_proto::op::{
    DEFAULT_MAX_PAYLOAD_LEN, Edns, Header, Message, MessageType, Metadata, OpCode, Query,
    ResponseCode,
};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::answer::Response;

/// The longest query that is read. One has a name of at most 255 bytes and a few options.
pub(super) const MAX_QUERY: usize = 4096;
/// Bytes of a datagram that every client takes (RFC 1035 2.3.4).
const PLAIN: u16 = 512;
/// Records beside the question of a query: options and a signature.
const MAX_ADDITIONALS: u16 = 4;
/// Bytes of the header.
const HEADER: usize = 12;
/// The bit that says that records are missing, in the third byte.
const TRUNCATED: u8 = 0b10;

/// How a message came, and how its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question with what its answer must respect.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) metadata: Metadata,
    pub(super) query: Query,
    pub(super) edns: Option<Edns>,
}

impl Request {
    /// The size that the answer may have. What a client takes in one datagram is bounded to what
    /// passes without fragments (DNS flag day 2020).
    pub(super) fn limit(&self, transport: Transport) -> usize {
        let limit = match (transport, &self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => PLAIN,
            (Transport::Udp, Some(edns)) => {
                edns.max_payload().clamp(PLAIN, DEFAULT_MAX_PAYLOAD_LEN)
            }
        };
        usize::from(limit)
    }
}

/// What is said to bytes that are no question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing: they are no query, and an answer could come back as another one.
    Silence,
    /// This message.
    Reply(Vec<u8>),
}

/// Reads a query.
pub(super) fn decode(bytes: &[u8]) -> Result<Request, Refusal> {
    let Ok(Header {
        metadata, counts, ..
    }) = Header::read(&mut BinDecoder::new(bytes))
    else {
        return Err(Refusal::Silence);
    };
    if metadata.message_type != MessageType::Query {
        return Err(Refusal::Silence);
    }
    let refuse = |code| Refusal::Reply(bare(&metadata, code));
    if metadata.op_code != OpCode::Query {
        return Err(refuse(ResponseCode::NotImp));
    }
    // The decoder makes room for as many records as the header promises: it gets no chance to.
    if counts.queries != 1
        || counts.answers != 0
        || counts.authorities > 1
        || counts.additionals > MAX_ADDITIONALS
    {
        return Err(refuse(ResponseCode::FormErr));
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        return Err(refuse(ResponseCode::FormErr));
    };
    let Some(query) = message.queries.pop() else {
        return Err(refuse(ResponseCode::FormErr));
    };
    let request = Request {
        // The decoder has put the upper bits of a code that queries do not have into it.
        metadata,
        query,
        edns: message.edns,
    };
    match &request.edns {
        Some(edns) if edns.version() != 0 => Err(Refusal::Reply(encode(
            &request,
            &Response::of(ResponseCode::BADVERS),
            usize::from(PLAIN),
        ))),
        _ => Ok(request),
    }
}

/// An answer of at most `limit` bytes: without the additional records if they do not fit, and
/// marked as truncated if the answers do not.
pub(super) fn encode(request: &Request, response: &Response, limit: usize) -> Vec<u8> {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata = Metadata::response_from_request(&request.metadata);
    message.metadata.response_code = response.code;
    message.metadata.authoritative = response.authoritative;
    message.metadata.recursion_available = true;
    message.add_query(request.query.clone());
    message.answers.clone_from(&response.answers);
    message.authorities.clone_from(&response.authorities);
    message.additionals.clone_from(&response.additionals);
    message.edns = request.edns.as_ref().map(|theirs| {
        let mut ours = Edns::new();
        ours.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN)
            .set_dnssec_ok(theirs.flags().dnssec_ok);
        ours
    });
    if let Some(bytes) = fitting(&message, response.truncated, limit) {
        return bytes;
    }
    message.additionals.clear();
    if let Some(bytes) = fitting(&message, response.truncated, limit) {
        return bytes;
    }
    message.authorities.clear();
    // As many answers as fit: a client that does not ask again over TCP can use them.
    let (mut fits, mut too_many) = (0, message.answers.len() + 1);
    let mut best = None;
    while too_many - fits > 1 {
        let count = fits + (too_many - fits) / 2;
        message.answers.clone_from(&response.answers);
        message.answers.truncate(count);
        match fitting(&message, true, limit) {
            Some(bytes) => (fits, best) = (count, Some(bytes)),
            None => too_many = count,
        }
    }
    message.answers.clear();
    best.or_else(|| fitting(&message, true, limit))
        .unwrap_or_else(|| bare(&request.metadata, ResponseCode::ServFail))
}

/// The message if it has at most `limit` bytes.
fn fitting(message: &Message, truncated: bool, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = message.to_vec().ok()?;
    let flags = bytes.get_mut(2)?;
    // The encoder drops what does not fit into the longest of all messages, and marks that.
    let whole = *flags & TRUNCATED == 0;
    if truncated {
        *flags |= TRUNCATED;
    }
    (whole && bytes.len() <= limit).then_some(bytes)
}

/// A header with a code, for who asked nothing that could be repeated.
fn bare(metadata: &Metadata, code: ResponseCode) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..2].copy_from_slice(&metadata.id.to_be_bytes());
    bytes[2] = 0x80 | (u8::from(metadata.op_code) << 3) | u8::from(metadata.recursion_desired);
    bytes[3] = 0x80 | code.low();
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn query(payload: Option<u16>) -> Message {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii("Many.Example.").unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_dnssec_ok(true);
            edns
        });
        message
    }

    fn addresses(count: u32) -> Response {
        let mut response = Response::of(ResponseCode::NoError);
        response.answers = (0..count)
            .map(|n| {
                let name = Name::from_ascii("Many.Example.").unwrap();
                Record::from_rdata(name, 5, RData::A(A(Ipv4Addr::from(n))))
            })
            .collect();
        response.additionals.clone_from(&response.answers);
        response
    }

    #[test]
    fn answers_fit_what_the_client_takes() {
        for (transport, payload, count, limit, whole, additionals) in [
            (Transport::Udp, None, 2, 512, true, true),
            (Transport::Udp, None, 20, 512, true, false),
            (Transport::Udp, None, 40, 512, false, false),
            (Transport::Udp, Some(0), 40, 512, false, false),
            (Transport::Udp, Some(1000), 40, 1000, true, false),
            (Transport::Udp, Some(u16::MAX), 90, 1232, false, false),
            (Transport::Tcp, None, 900, 65_535, true, true),
            (Transport::Tcp, Some(1232), 5000, 65_535, false, false),
        ] {
            let request = decode(&query(payload).to_vec().unwrap()).unwrap();
            assert_eq!(request.limit(transport), limit);
            let bytes = encode(&request, &addresses(count), limit);
            assert!(bytes.len() <= limit, "{count}");
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(
                reply.metadata.truncation, !whole,
                "{transport:?} {payload:?} {count}"
            );
            assert_eq!(reply.answers.len() == count as usize, whole, "{count}");
            assert!(reply.answers.len() > 20 || whole, "{count}");
            assert_eq!(!reply.additionals.is_empty(), additionals, "{count}");
            assert_eq!(reply.edns.is_some(), payload.is_some(), "{count}");
            assert!(reply.edns.is_none_or(|edns| edns.flags().dnssec_ok));
        }
    }

    #[test]
    fn the_question_comes_back_as_it_was_asked() {
        let request = decode(&query(None).to_vec().unwrap()).unwrap();
        let bytes = encode(&request, &addresses(1), 512);
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.id, 0x1234);
        assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
        assert_eq!(reply.queries[0].name().to_string(), "Many.Example.");
        assert_eq!(reply.answers[0].name.to_string(), "Many.Example.");
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let bytes = |change: fn(&mut Message)| {
            let mut message = query(Some(1232));
            change(&mut message);
            message.to_vec().unwrap()
        };
        let two = bytes(|message| {
            let again = message.queries[0].clone();
            message.add_query(again);
        });
        for (bytes, expected) in [
            (
                bytes(|m| m.metadata.op_code = OpCode::Notify),
                Some(ResponseCode::NotImp),
            ),
            (bytes(|m| m.queries.clear()), Some(ResponseCode::FormErr)),
            (two, Some(ResponseCode::FormErr)),
            (bytes(|_| ())[..20].to_vec(), Some(ResponseCode::FormErr)),
            (
                bytes(|m| {
                    m.edns.as_mut().unwrap().set_version(1);
                }),
                Some(ResponseCode::BADVERS),
            ),
            (
                bytes(|m| m.metadata.message_type = MessageType::Response),
                None,
            ),
            (vec![0; 11], None),
            (Vec::new(), None),
        ] {
            match (decode(&bytes).map(|request| request.query), expected) {
                (Err(Refusal::Reply(reply)), Some(code)) => {
                    let reply = Message::from_vec(&reply).unwrap();
                    // BADVERS and BADSIG share a number.
                    assert_eq!(u16::from(reply.metadata.response_code), u16::from(code));
                    assert_eq!(reply.metadata.id, 0x1234);
                    assert_eq!(reply.metadata.message_type, MessageType::Response);
                }
                (Err(Refusal::Silence), None) => {}
                (other, expected) => panic!("{other:?} instead of {expected:?} for {bytes:?}"),
            }
        }
    }
}
