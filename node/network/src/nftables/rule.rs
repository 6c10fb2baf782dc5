//! The expressions of a rule, each of which goes on to the next or ends the rule.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::namespace::netlink::Message;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_DIRECTION: u16 = 3;
const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFTA_NG_OFFSET: u16 = 4;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_DYNSET_SET_NAME: u16 = 1;
const NFTA_DYNSET_OP: u16 = 3;
const NFTA_DYNSET_SREG_KEY: u16 = 4;
const NFTA_DYNSET_SREG_DATA: u16 = 5;
const NFTA_DYNSET_TIMEOUT: u16 = 6;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NFPROTO_IPV4: u32 = 2;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG32_00: u32 = 8;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const NFT_META_PRIORITY: u32 = 2;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_L4PROTO: u32 = 16;
const NFT_META_IIFGROUP: u32 = 21;
const NFT_CT_STATUS: u32 = 2;
const NFT_CT_DST_IP: u32 = 20;
const IP_CT_DIR_ORIGINAL: u8 = 0;
/// Of a connection whose destination was translated (`IPS_DST_NAT`).
const DESTINATION_TRANSLATED: u32 = 0x20;
const NFT_NG_RANDOM: u32 = 1;
const NFT_DYNSET_OP_UPDATE: u32 = 1;
const NFT_DYNSET_OP_DELETE: u32 = 2;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
const NFT_REJECT_TCP_RST: u32 = 1;
const ICMP_PORT_UNREACH: u8 = 3;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_GOTO: i32 = -4;
/// Names of links are compared whole.
const NAME: usize = 16;

/// A part of a packet, or of what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Source,
    Destination,
    Protocol,
    DestinationPort,
    /// `meta priority`: four bytes of the packet that are free for use before it is routed.
    Scratch,
    /// Where the first packet of its connection was sent to.
    OriginalDestination,
}

/// How a field compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Is = 0,
    IsNot = 1,
}

/// The expressions of a rule, in order.
pub(crate) struct Rule(Message);

impl Rule {
    pub(crate) fn new() -> Self {
        Self(Message::new(0, 0))
    }

    pub(super) fn expressions(&self) -> &Message {
        &self.0
    }

    /// Loads fields into registers, one each from `first` on.
    pub(crate) fn load(self, first: u32, fields: &[Field]) -> Self {
        (first..)
            .zip(fields)
            .fold(self, |rule, (register, field)| rule.field(register, *field))
    }

    fn field(self, register: u32, field: Field) -> Self {
        match field {
            Field::Source => self.payload(register, NETWORK_HEADER, 12, 4),
            Field::Destination => self.payload(register, NETWORK_HEADER, 16, 4),
            Field::DestinationPort => self.payload(register, TRANSPORT_HEADER, 2, 2),
            Field::Protocol => self.meta(register, NFT_META_L4PROTO),
            Field::Scratch => self.meta(register, NFT_META_PRIORITY),
            Field::OriginalDestination => self.add("ct", |data| {
                data.network(NFTA_CT_DREG, at(register))
                    .network(NFTA_CT_KEY, NFT_CT_DST_IP)
                    .attribute(NFTA_CT_DIRECTION, &[IP_CT_DIR_ORIGINAL])
            }),
        }
    }

    fn payload(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        self.add("payload", |data| {
            data.network(NFTA_PAYLOAD_DREG, at(register))
                .network(NFTA_PAYLOAD_BASE, base)
                .network(NFTA_PAYLOAD_OFFSET, offset)
                .network(NFTA_PAYLOAD_LEN, length)
        })
    }

    fn meta(self, register: u32, key: u32) -> Self {
        self.add("meta", |data| {
            data.network(NFTA_META_DREG, at(register))
                .network(NFTA_META_KEY, key)
        })
    }

    /// Keeps a register for the rules that follow.
    pub(crate) fn keep(self, register: u32) -> Self {
        self.add("meta", |data| {
            data.network(NFTA_META_SREG, at(register))
                .network(NFTA_META_KEY, NFT_META_PRIORITY)
        })
    }

    /// Goes on if the address is in the range, or is not.
    pub(crate) fn range(self, field: Field, comparison: Comparison, range: Ipv4Net) -> Self {
        self.load(0, &[field])
            .mask(range.netmask().octets())
            .compare(comparison, &range.network().octets())
    }

    /// Goes on if it is a packet of this protocol, by its number.
    pub(crate) fn protocol(self, number: u8) -> Self {
        self.load(0, &[Field::Protocol])
            .compare(Comparison::Is, &[number])
    }

    /// Goes on if the packet is sent to an address of the machine.
    pub(crate) fn sent_to_machine(self) -> Self {
        self.add("fib", |data| {
            data.network(NFTA_FIB_DREG, at(0))
                .network(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
                .network(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR)
        })
        .compare(Comparison::Is, &RTN_LOCAL.to_ne_bytes())
    }

    /// Goes on if the packet came by this link.
    pub(crate) fn came_by(self, name: &str) -> Self {
        self.meta(0, NFT_META_IIFNAME)
            .compare(Comparison::Is, &padded(name))
    }

    /// Goes on if the packet came by a link of this group, or by one that is not. Neither goes for
    /// one of the machine itself.
    pub(crate) fn came_by_group(self, comparison: Comparison, group: u32) -> Self {
        self.meta(0, NFT_META_IIFGROUP)
            .compare(comparison, &group.to_ne_bytes())
    }

    /// Goes on if the packet leaves by this link, or does not.
    pub(crate) fn leaves_by(self, comparison: Comparison, name: &str) -> Self {
        self.meta(0, NFT_META_OIFNAME)
            .compare(comparison, &padded(name))
    }

    /// Goes on if the destination of the packet's connection was translated.
    pub(crate) fn translated(self) -> Self {
        self.add("ct", |data| {
            data.network(NFTA_CT_DREG, at(0))
                .network(NFTA_CT_KEY, NFT_CT_STATUS)
        })
        .mask(DESTINATION_TRANSLATED.to_ne_bytes())
        .compare(Comparison::IsNot, &[0; 4])
    }

    fn mask(self, mask: [u8; 4]) -> Self {
        self.bitwise(mask, [0; 4])
    }

    /// Makes these bits of the number in the first register those of another one.
    pub(crate) fn set_bits(self, bits: u32, to: u32) -> Self {
        self.bitwise((!bits).to_ne_bytes(), (to & bits).to_ne_bytes())
    }

    fn bitwise(self, mask: [u8; 4], turned: [u8; 4]) -> Self {
        self.add("bitwise", |data| {
            data.network(NFTA_BITWISE_SREG, at(0))
                .network(NFTA_BITWISE_DREG, at(0))
                .network(NFTA_BITWISE_LEN, 4)
                .nested(NFTA_BITWISE_MASK, |data| value(data, &mask))
                .nested(NFTA_BITWISE_XOR, |data| value(data, &turned))
        })
    }

    fn compare(self, comparison: Comparison, with: &[u8]) -> Self {
        self.add("cmp", |data| {
            data.network(NFTA_CMP_SREG, at(0))
                .network(NFTA_CMP_OP, comparison as u32)
                .nested(NFTA_CMP_DATA, |data| value(data, with))
        })
    }

    /// A random number of the `count` from `first` on; these are not none.
    pub(crate) fn random(self, register: u32, first: u32, count: u32) -> Self {
        self.add("numgen", |data| {
            data.network(NFTA_NG_DREG, at(register))
                .network(NFTA_NG_MODULUS, count)
                .network(NFTA_NG_TYPE, NFT_NG_RANDOM)
                .network(NFTA_NG_OFFSET, first)
        })
    }

    /// Goes on if the set has the key that begins at `key`.
    pub(crate) fn contained(self, set: &str, key: u32) -> Self {
        self.add("lookup", |data| {
            data.text(NFTA_LOOKUP_SET, set)
                .network(NFTA_LOOKUP_SREG, at(key))
        })
    }

    /// Loads what a map has for a key. The rule ends where it has nothing.
    pub(crate) fn look_up(self, map: &str, key: u32, register: u32) -> Self {
        self.add("lookup", |data| {
            data.text(NFTA_LOOKUP_SET, map)
                .network(NFTA_LOOKUP_SREG, at(key))
                .network(NFTA_LOOKUP_DREG, at(register))
        })
    }

    /// Goes where a map of verdicts says for a key.
    pub(crate) fn go_by(self, map: &str, key: u32) -> Self {
        self.add("lookup", |data| {
            data.text(NFTA_LOOKUP_SET, map)
                .network(NFTA_LOOKUP_SREG, at(key))
                .network(NFTA_LOOKUP_DREG, NFT_REG_VERDICT)
        })
    }

    /// Adds an entry to a map, or makes the one that is there last longer. The rule ends where the
    /// map is full.
    pub(crate) fn remember(self, map: &str, key: u32, data: u32, seconds: u32) -> Self {
        let milliseconds = u64::from(seconds) * 1000;
        self.add("dynset", |message| {
            dynset(message, map, NFT_DYNSET_OP_UPDATE, key, data)
                .attribute(NFTA_DYNSET_TIMEOUT, &milliseconds.to_be_bytes())
        })
    }

    /// Takes an entry from a map. The kernel wants a register for its data, and does not read it.
    pub(crate) fn forget(self, map: &str, key: u32, data: u32) -> Self {
        self.add("dynset", |message| {
            dynset(message, map, NFT_DYNSET_OP_DELETE, key, data)
        })
    }

    /// Sends to the address and the port in two registers.
    pub(crate) fn send_to(self, address: u32, port: u32) -> Self {
        self.add("nat", |data| {
            data.network(NFTA_NAT_TYPE, NFT_NAT_DNAT)
                .network(NFTA_NAT_FAMILY, NFPROTO_IPV4)
                .network(NFTA_NAT_REG_ADDR_MIN, at(address))
                .network(NFTA_NAT_REG_PROTO_MIN, at(port))
        })
    }

    /// Puts an address into a register.
    pub(crate) fn put(self, register: u32, address: Ipv4Addr) -> Self {
        self.add("immediate", |data| {
            data.network(NFTA_IMMEDIATE_DREG, at(register))
                .nested(NFTA_IMMEDIATE_DATA, |data| value(data, &address.octets()))
        })
    }

    /// Sends from an address.
    pub(crate) fn send_from(self, address: Ipv4Addr) -> Self {
        self.put(0, address).add("nat", |data| {
            data.network(NFTA_NAT_TYPE, NFT_NAT_SNAT)
                .network(NFTA_NAT_FAMILY, NFPROTO_IPV4)
                .network(NFTA_NAT_REG_ADDR_MIN, at(0))
        })
    }

    /// Sends from the machine's address where the packet leaves.
    pub(crate) fn masquerade(self) -> Self {
        self.add("masq", |data| data)
    }

    /// Answers that nobody is there: by a reset.
    pub(crate) fn reset(self) -> Self {
        self.add("reject", |data| {
            data.network(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST)
                .attribute(NFTA_REJECT_ICMP_CODE, &[0])
        })
    }

    /// Answers that nobody is there: by ICMP.
    pub(crate) fn port_unreachable(self) -> Self {
        self.add("reject", |data| {
            data.network(NFTA_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH)
                .attribute(NFTA_REJECT_ICMP_CODE, &[ICMP_PORT_UNREACH])
        })
    }

    pub(crate) fn go_to(self, chain: &str) -> Self {
        self.verdict(NFT_GOTO, Some(chain))
    }

    /// Lets the packet go on to what other chains say of it.
    pub(crate) fn accept(self) -> Self {
        self.verdict(NF_ACCEPT, None)
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(NF_DROP, None)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.add("immediate", |data| {
            data.network(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT)
                .nested(NFTA_IMMEDIATE_DATA, |data| verdict(data, code, chain))
        })
    }

    fn add(self, name: &str, fill: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nested(NFTA_LIST_ELEM, |element| {
            element
                .text(NFTA_EXPR_NAME, name)
                .nested(NFTA_EXPR_DATA, fill)
        }))
    }
}

/// The kernel's number of a register.
fn at(register: u32) -> u32 {
    NFT_REG32_00 + register
}

fn value(message: Message, bytes: &[u8]) -> Message {
    message.attribute(NFTA_DATA_VALUE, bytes)
}

/// The data that goes to a chain.
pub(super) fn to_chain(message: Message, chain: &str) -> Message {
    verdict(message, NFT_GOTO, Some(chain))
}

fn verdict(message: Message, code: i32, chain: Option<&str>) -> Message {
    message.nested(NFTA_DATA_VERDICT, |message| {
        let message = message.network(NFTA_VERDICT_CODE, code.cast_unsigned());
        match chain {
            Some(chain) => message.text(NFTA_VERDICT_CHAIN, chain),
            None => message,
        }
    })
}

fn dynset(message: Message, map: &str, operation: u32, key: u32, data: u32) -> Message {
    message
        .text(NFTA_DYNSET_SET_NAME, map)
        .network(NFTA_DYNSET_OP, operation)
        .network(NFTA_DYNSET_SREG_KEY, at(key))
        .network(NFTA_DYNSET_SREG_DATA, at(data))
}

fn padded(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    for (byte, of_name) in bytes.iter_mut().zip(name.bytes()) {
        *byte = of_name;
    }
    bytes
}
