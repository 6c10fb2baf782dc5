//! A stub resolver (RFC 1034, 5.3.1): asks one server, which asks others, for addresses.
//!
//! Both families are asked at the same time. An alias whose addresses the server did not add is
//! followed. A Pod has an IPv4 address only, so that addresses of that family come first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{
    DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{Name, RData, RecordType};

use super::forward::exchange;
use super::message::Transport;

/// How long the server has for one answer: more than it takes to try its own resolvers.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked by datagram, one of which may be lost.
const ATTEMPTS: usize = 2;
/// A chain of aliases longer than this is taken for a loop.
const ALIASES: usize = 8;

/// The sockets of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// Nobody listens where the server was.
    #[error("no DNS server listens there: {0}")]
    Gone(#[source] io::Error),
    /// It could not be asked.
    #[error("the DNS server cannot be asked: {0}")]
    Io(#[source] io::Error),
    /// It did not answer.
    #[error("the DNS server did not answer in time")]
    Late,
    /// It could not say.
    #[error("the DNS server answered {0}")]
    Code(ResponseCode),
    /// It said something else.
    #[error("the DNS server's answer does not read, or leads in a circle")]
    Nonsense,
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Gone(error),
            _ => Self::Io(error),
        }
    }
}

/// The addresses of a name, to which no search path is added. None: it has none, or is none.
pub(crate) async fn addresses(server: Server, name: &str) -> Result<Vec<IpAddr>, LookupError> {
    let Ok(mut name) = Name::from_str_relaxed(name) else {
        return Ok(Vec::new());
    };
    name.set_fqdn(true);
    let (v4, v6) = tokio::join!(
        family(server, name.clone(), RecordType::A),
        family(server, name, RecordType::AAAA),
    );
    // Servers that fail for the one family alone are not rare.
    match (v4, v6) {
        (Ok(v4), Ok(v6)) => Ok([v4, v6].concat()),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

async fn family(
    server: Server,
    mut name: Name,
    kind: RecordType,
) -> Result<Vec<IpAddr>, LookupError> {
    for _ in 0..ALIASES {
        let answer = ask(server, &name, kind).await?;
        match conclude(&answer, &name, kind)? {
            Conclusion::Addresses(addresses) => return Ok(addresses),
            Conclusion::Alias(target) => name = target,
        }
    }
    Err(LookupError::Nonsense)
}

async fn ask(server: Server, name: &Name, kind: RecordType) -> Result<Message, LookupError> {
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
    question.edns = Some(edns);
    let mut answer = Err(LookupError::Late);
    for _ in 0..ATTEMPTS {
        question.metadata.id = rand::random();
        answer = once(server.udp, &question, Transport::Udp).await;
        if !matches!(answer, Err(LookupError::Late)) {
            break;
        }
    }
    match answer {
        Ok(cut) if cut.metadata.truncation => once(server.tcp, &question, Transport::Tcp).await,
        answer => answer,
    }
}

async fn once(
    server: SocketAddr,
    question: &Message,
    transport: Transport,
) -> Result<Message, LookupError> {
    let asked = tokio::time::timeout(PATIENCE, exchange(server, question, transport));
    let (bytes, _) = asked.await.map_err(|_| LookupError::Late)??;
    Message::from_vec(&bytes).map_err(|_| LookupError::Nonsense)
}

/// What an answer comes to.
#[derive(Debug, PartialEq, Eq)]
enum Conclusion {
    Addresses(Vec<IpAddr>),
    /// This name has to be asked for.
    Alias(Name),
}

fn conclude(answer: &Message, name: &Name, kind: RecordType) -> Result<Conclusion, LookupError> {
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(LookupError::Code(code)),
    }
    let mut current = name;
    // As many steps as there may be aliases: no circle holds us.
    for _ in 0..=answer.answers.len() {
        let here = || {
            answer
                .answers
                .iter()
                .filter(|record| record.name == *current)
        };
        let addresses: Vec<IpAddr> = here()
            .filter(|record| record.record_type() == kind)
            .filter_map(|record| match record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
            .collect();
        if !addresses.is_empty() {
            return Ok(Conclusion::Addresses(addresses));
        }
        let target = here().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(&target.0),
            _ => None,
        });
        match target {
            Some(target) => current = target,
            None => break,
        }
    }
    // With an authority's word the answer is whole (RFC 2308); the code is that of the last name.
    let is_whole = answer.metadata.response_code == ResponseCode::NXDomain
        || answer
            .authorities
            .iter()
            .any(|record| record.record_type() == RecordType::SOA);
    if current == name || is_whole {
        return Ok(Conclusion::Addresses(Vec::new()));
    }
    Ok(Conclusion::Alias(current.clone()))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 5, data)
    }

    fn alias(owner: &str, target: &str) -> Record {
        record(owner, RData::CNAME(CNAME(name(target))))
    }

    fn v4(owner: &str, last: u8) -> Record {
        record(owner, RData::A(A::new(192, 0, 2, last)))
    }

    #[test]
    fn answers_are_followed_to_their_end() {
        use ResponseCode::{NXDomain, NoError, Refused, ServFail};
        let soa = || {
            let soa = SOA::new(name("ns."), name("x."), 1, 2, 3, 4, 5);
            record("example.", RData::SOA(soa))
        };
        let v6 = record(
            "a.",
            RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        );
        let found = |last: &[u8]| {
            let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last]));
            Some(Conclusion::Addresses(addresses.collect()))
        };
        let ask = |text: &str| Some(Conclusion::Alias(name(text)));
        for (case, code, answers, whole, expected) in [
            (
                "addresses",
                NoError,
                vec![v4("A.", 1), v4("a.", 2)],
                false,
                found(&[1, 2]),
            ),
            (
                "of another name",
                NoError,
                vec![v4("b.", 1)],
                false,
                found(&[]),
            ),
            ("of the other family", NoError, vec![v6], false, found(&[])),
            (
                "a chain in any order",
                NoError,
                vec![v4("c.", 3), alias("b.", "c."), alias("a.", "b.")],
                false,
                found(&[3]),
            ),
            (
                "a chain without its end",
                NoError,
                vec![alias("a.", "b.")],
                false,
                ask("b."),
            ),
            (
                "a chain to no address",
                NoError,
                vec![alias("a.", "b.")],
                true,
                found(&[]),
            ),
            (
                "a chain to nowhere",
                NXDomain,
                vec![alias("a.", "b.")],
                false,
                found(&[]),
            ),
            (
                "a circle",
                NoError,
                vec![alias("a.", "b."), alias("b.", "a.")],
                false,
                ask("b."),
            ),
            ("no such name", NXDomain, vec![], true, found(&[])),
            ("no address", NoError, vec![], false, found(&[])),
            ("a failure", ServFail, vec![], false, None),
            ("a refusal", Refused, vec![], false, None),
        ] {
            let mut answer = Message::response(1, OpCode::Query);
            answer.metadata.response_code = code;
            answer.answers = answers;
            answer.authorities = whole.then(soa).into_iter().collect();
            let concluded = conclude(&answer, &name("a."), RecordType::A).ok();
            assert_eq!(concluded, expected, "{case}");
        }
    }
}
