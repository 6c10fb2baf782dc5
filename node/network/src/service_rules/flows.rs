//! Flows that the kernel remembers (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Where a flow goes is decided by its first packet. A flow of UDP has no end but silence: a
//! client that keeps sending from one port would send to an endpoint that is gone, for ever.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use coracle_runtime::Protocol;

use super::plan::Frontend;
use crate::namespace::netlink::{Message, Socket, attribute};

const SUBSYSTEM: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const AF_INET: u8 = 2;
const HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// The kernel's `CTA_FILTER_FLAG(CTA_PROTO_NUM)`.
const BY_PROTOCOL: u32 = 1 << 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const IPPROTO_UDP: u8 = 17;

/// One direction of a flow of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

/// A flow of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    sent: Tuple,
    answered: Tuple,
}

impl Flow {
    pub(super) fn client(&self) -> SocketAddrV4 {
        self.sent.source
    }

    /// Where the client sends to.
    pub(super) fn frontend(&self) -> Frontend {
        Frontend {
            address: *self.sent.destination.ip(),
            protocol: Protocol::Udp,
            port: self.sent.destination.port(),
        }
    }

    /// Whether nothing of it is translated.
    pub(super) fn is_plain(&self) -> bool {
        let Tuple {
            source,
            destination,
        } = self.sent;
        self.answered
            == Tuple {
                source: destination,
                destination: source,
            }
    }

    /// Who answers it.
    pub(super) fn server(&self) -> SocketAddrV4 {
        self.answered.source
    }
}

/// Makes the kernel forget the flows of UDP for which that is said, and says how many there were.
pub(super) fn forget(stale: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
    let found = socket.dump(|| {
        message(IPCTNL_MSG_CT_GET)
            .nested(CTA_TUPLE_ORIG, |message| {
                message.nested(CTA_TUPLE_PROTO, |message| {
                    message.attribute(CTA_PROTO_NUM, &[IPPROTO_UDP])
                })
            })
            .nested(CTA_FILTER, |message| {
                message
                    .native(CTA_FILTER_ORIG_FLAGS, BY_PROTOCOL)
                    .native(CTA_FILTER_REPLY_FLAGS, 0)
            })
    })?;
    let flows = found.iter().filter_map(|payload| decode(payload));
    let mut forgotten = 0;
    for flow in flows.filter(stale) {
        let message = message(IPCTNL_MSG_CT_DELETE)
            .nested(CTA_TUPLE_ORIG, |message| put(message, &flow.sent));
        match socket.request(message) {
            Ok(()) => forgotten += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

fn message(kind: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, 0).put(&[AF_INET, 0, 0, 0])
}

fn put(message: Message, tuple: &Tuple) -> Message {
    message
        .nested(CTA_TUPLE_IP, |message| {
            message
                .attribute(CTA_IP_V4_SRC, &tuple.source.ip().octets())
                .attribute(CTA_IP_V4_DST, &tuple.destination.ip().octets())
        })
        .nested(CTA_TUPLE_PROTO, |message| {
            message
                .attribute(CTA_PROTO_NUM, &[IPPROTO_UDP])
                .attribute(CTA_PROTO_SRC_PORT, &tuple.source.port().to_be_bytes())
                .attribute(CTA_PROTO_DST_PORT, &tuple.destination.port().to_be_bytes())
        })
}

/// A flow of UDP; a kernel that does not filter lists others too.
fn decode(payload: &[u8]) -> Option<Flow> {
    Some(Flow {
        sent: tuple(attribute(payload, HEADER, CTA_TUPLE_ORIG)?)?,
        answered: tuple(attribute(payload, HEADER, CTA_TUPLE_REPLY)?)?,
    })
}

fn tuple(payload: &[u8]) -> Option<Tuple> {
    let (ip, protocol) = (
        attribute(payload, 0, CTA_TUPLE_IP)?,
        attribute(payload, 0, CTA_TUPLE_PROTO)?,
    );
    if attribute(protocol, 0, CTA_PROTO_NUM)? != [IPPROTO_UDP] {
        return None;
    }
    let end = |address, port| {
        let address: [u8; 4] = attribute(ip, 0, address)?.try_into().ok()?;
        let port: [u8; 2] = attribute(protocol, 0, port)?.try_into().ok()?;
        Some(SocketAddrV4::new(
            Ipv4Addr::from(address),
            u16::from_be_bytes(port),
        ))
    };
    Some(Tuple {
        source: end(CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?,
        destination: end(CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?,
    })
}
