//! What the cluster's names answer: a function of the zone and the question.
//!
//! The names of Services and endpoints are in the zone; those of Pods (`a-b-c-d.ns.pod`), which
//! exist for every address, and the zone's own records are made here. A question that the zone
//! does not decide, or whose alias leads out of it, says in [`Response::outside`] what is left to
//! be asked elsewhere.

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record as ResourceRecord, RecordType};

use crate::zone::{Record, Zone};

/// Seconds for which an answer may be kept, also one that says that there is none. It bounds how
/// long a client dials an endpoint that is gone or misses one that has come, so it is far below
/// CoreDNS's 30; the answer to a repeated question is in memory on the same node, so that nothing
/// is gained by keeping it longer. CoreDNS's `kubernetes` plugin has the same default.
pub(super) const TTL: u32 = 5;
/// A chain of aliases longer than this is taken for a loop.
const ALIASES: usize = 8;
/// Every target of a port is as good as the others. RFC 2782 keeps zero for where there is no
/// choice: clients that weigh would always take the first.
const WEIGHT: u16 = 100;
/// The Service of the cluster's DNS.
const SERVER: &str = "kube-dns.kube-system.svc";

/// An answer, or the part of it that the zone decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) code: ResponseCode,
    /// Whether the zone decides about the name that was asked for.
    pub(super) authoritative: bool,
    /// Whether records are missing.
    pub(super) truncated: bool,
    pub(super) answers: Vec<ResourceRecord>,
    pub(super) authorities: Vec<ResourceRecord>,
    pub(super) additionals: Vec<ResourceRecord>,
    /// What is left to be asked outside: the question itself, or where an alias leads.
    pub(super) outside: Option<Query>,
}

impl Response {
    /// Nothing but a code.
    pub(super) fn of(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            truncated: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            outside: None,
        }
    }
}

/// Answers a question.
pub(super) fn answer(zone: &Zone, query: &Query) -> Response {
    let kind = query.query_type();
    match (query.query_class(), kind) {
        (_, RecordType::OPT) => return Response::of(ResponseCode::FormErr),
        // The zone is not given away as a whole.
        (_, RecordType::AXFR | RecordType::IXFR) => return Response::of(ResponseCode::Refused),
        (DNSClass::IN | DNSClass::ANY, _) => {}
        _ => return Response::of(ResponseCode::Refused),
    }
    let mut response = Response::of(ResponseCode::NoError);
    let mut name = query.name().clone();
    for _ in 0..ALIASES {
        let key = key(&name);
        let records = match find(zone, &key) {
            Found::Outside => {
                let mut outside = query.clone();
                outside.set_name(name);
                response.outside = Some(outside);
                return response;
            }
            Found::Unknown => return Response::of(ResponseCode::ServFail),
            Found::Nothing => {
                response.authoritative = true;
                response.code = ResponseCode::NXDomain;
                response.authorities.extend(authority(zone, &key));
                return response;
            }
            Found::Records(records) => records,
        };
        response.authoritative = true;
        let alias = records
            .iter()
            .find(|data| matches!(data, RData::CNAME(_)))
            .filter(|_| !wants(kind, RecordType::CNAME));
        if let Some(RData::CNAME(CNAME(target))) = alias {
            let target = target.clone();
            response.answers.push(owned(
                std::mem::replace(&mut name, target.clone()),
                RData::CNAME(CNAME(target)),
            ));
            continue;
        }
        let found = records
            .into_iter()
            .filter(|data| wants(kind, data.record_type()))
            .map(|data| owned(name.clone(), data));
        let before = response.answers.len();
        response.answers.extend(found);
        if response.answers.len() == before {
            response.authorities.extend(authority(zone, &key));
        }
        response.additionals = addresses_of_targets(zone, &response.answers);
        return response;
    }
    Response::of(ResponseCode::ServFail)
}

fn wants(asked: RecordType, kind: RecordType) -> bool {
    asked == kind || asked == RecordType::ANY
}

fn owned(name: Name, data: RData) -> ResourceRecord {
    ResourceRecord::from_rdata(name, TTL, data)
}

/// What the zone says of a name.
enum Found {
    /// It exists, perhaps without records.
    Records(Vec<RData>),
    /// It does not exist.
    Nothing,
    /// It is not for this zone to say.
    Outside,
    /// It would be for this zone to say, which is not known yet.
    Unknown,
}

fn find(zone: &Zone, key: &str) -> Found {
    if key == zone.domain && zone.is_known() {
        let own = [
            start_of_authority(zone),
            server(zone).map(NS).map(RData::NS),
        ];
        return Found::Records(own.into_iter().flatten().collect());
    }
    if let Some(records) = zone.names.get(key) {
        return Found::Records(records.iter().filter_map(data).collect());
    }
    if !zone.contains(key) {
        return Found::Outside;
    }
    if !zone.is_known() {
        return Found::Unknown;
    }
    let below = key
        .strip_suffix(&zone.domain)
        .and_then(|rest| rest.strip_suffix('.'));
    match below {
        Some("pod") => Found::Records(Vec::new()),
        Some(rest) => rest.strip_suffix(".pod").map_or(Found::Nothing, pod),
        None => Found::Nothing,
    }
}

/// The name of a Pod by its address (section 2.6), without what all of them end with. It says
/// nothing about whether there is such a Pod, as in CoreDNS's `pods insecure`.
fn pod(name: &str) -> Found {
    let address = match name.split_once('.') {
        None => return Found::Records(Vec::new()),
        Some((_, namespace)) if namespace.contains('.') => return Found::Nothing,
        Some((address, _)) => address,
    };
    let parsed = match address.replace('-', ".").parse() {
        Ok(v4) => Some(IpAddr::V4(v4)),
        Err(_) => address.replace('-', ":").parse().ok().map(IpAddr::V6),
    };
    match parsed {
        Some(address) => Found::Records(vec![address_data(address)]),
        None => Found::Nothing,
    }
}

/// The addresses of the hosts to which answers lead, which clients ask for next.
fn addresses_of_targets(zone: &Zone, answers: &[ResourceRecord]) -> Vec<ResourceRecord> {
    let mut targets: Vec<&Name> = answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(&srv.target),
            RData::NS(NS(target)) => Some(target),
            _ => None,
        })
        .collect();
    targets.sort();
    targets.dedup();
    let addresses = |target: &Name| {
        let records = zone.names.get(&key(target)).into_iter().flatten();
        let data = records.filter_map(|record| match record {
            Record::Address(address) => Some(address_data(*address)),
            _ => None,
        });
        data.map(|data| owned(target.clone(), data))
            .collect::<Vec<_>>()
    };
    targets.into_iter().flat_map(addresses).collect()
}

/// The record that goes with an answer of nothing (RFC 2308): whose zone says so, for how long.
fn authority(zone: &Zone, key: &str) -> Option<ResourceRecord> {
    // Names of addresses lie in zones of their own.
    let apex = ["in-addr.arpa", "ip6.arpa"]
        .into_iter()
        .find(|reverse| key.ends_with(reverse) && !zone.contains(key))
        .unwrap_or(&zone.domain);
    Some(owned(self::name(apex)?, start_of_authority(zone)?))
}

fn start_of_authority(zone: &Zone) -> Option<RData> {
    let mailbox = name(&format!("hostmaster.{}", zone.domain))?;
    // Nobody transfers the zone, so that serial and intervals are looked at by nobody.
    let soa = SOA::new(server(zone)?, mailbox, 1, 7200, 1800, 86_400, TTL);
    Some(RData::SOA(soa))
}

fn server(zone: &Zone) -> Option<Name> {
    name(&format!("{SERVER}.{}", zone.domain))
}

/// The data of a record, unless it holds a name that DNS cannot carry.
fn data(record: &Record) -> Option<RData> {
    Some(match record {
        Record::Address(address) => address_data(*address),
        Record::Service { port, target } => RData::SRV(SRV::new(0, WEIGHT, *port, name(target)?)),
        Record::Alias(target) => RData::CNAME(CNAME(name(target)?)),
        Record::Pointer(target) => RData::PTR(PTR(name(target)?)),
        Record::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
    })
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A::from(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA::from(v6)),
    }
}

/// A name of the zone as it goes over the wire.
fn name(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

/// A name as the zone has it: names are compared without regard to case. Bytes that are in no
/// name of the zone become characters that are in none.
fn key(name: &Name) -> String {
    let mut key = String::with_capacity(name.len());
    for label in name.iter() {
        if !key.is_empty() {
            key.push('.');
        }
        key.extend(label.iter().map(|byte| match byte {
            b'.' => '\\',
            byte => char::from(byte.to_ascii_lowercase()),
        }));
    }
    key
}

#[cfg(test)]
mod tests;
