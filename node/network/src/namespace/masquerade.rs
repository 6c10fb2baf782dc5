//! The one table of nftables: what Pods send to elsewhere leaves under the machine's address
//! (`linux/netfilter/nf_tables.h`).
//!
//! ```text
//! table ip coracle-XXXXXXXX {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat
//!         ip saddr CLUSTER ip daddr != CLUSTER oifname != "coracle-*" masquerade
//!     }
//! }
//! ```
//!
//! What goes to a namespace of Pods stays as it is: containers' questions to the DNS server there,
//! whose address is in no range of Pods. Of several nodes on one machine each has such a table.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::netlink::{Message, NLM_F_CREATE, Socket};
use super::plan::LINKS;

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_IPV4: u8 = 2;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
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
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;

const NF_INET_POST_ROUTING: u32 = 4;
/// `srcnat`, where source addresses are translated.
const PRIORITY: u32 = 100;
const REGISTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
/// Offsets in the IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// The name of the link by which a packet leaves.
const OIFNAME: u32 = 7;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const CHAIN: &str = "postrouting";

/// Makes the table, in the place of one of that name.
pub(super) fn set(table: &str, cluster: Ipv4Net) -> io::Result<()> {
    batch(vec![
        // Deleting wants it to be there.
        table_message(NFT_MSG_NEWTABLE, table),
        table_message(NFT_MSG_DELTABLE, table),
        table_message(NFT_MSG_NEWTABLE, table),
        message(NFT_MSG_NEWCHAIN, NLM_F_CREATE)
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, CHAIN)
            .nested(NFTA_CHAIN_HOOK, |hook| {
                hook.network(NFTA_HOOK_HOOKNUM, NF_INET_POST_ROUTING)
                    .network(NFTA_HOOK_PRIORITY, PRIORITY)
            })
            .text(NFTA_CHAIN_TYPE, "nat"),
        message(NFT_MSG_NEWRULE, NLM_F_CREATE)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, CHAIN)
            .nested(NFTA_RULE_EXPRESSIONS, |rule| {
                let rule = in_range(rule, SOURCE, EQUAL, cluster);
                let rule = in_range(rule, DESTINATION, NOT_EQUAL, cluster);
                let rule = not_to(rule, LINKS);
                expression(rule, "masq", |data| data)
            }),
    ])
}

/// Removes the table; that there is none is no error.
pub(super) fn remove(table: &str) -> io::Result<()> {
    if !exists(table)? {
        return Ok(());
    }
    match batch(vec![table_message(NFT_MSG_DELTABLE, table)]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether there is a table of that name.
pub(super) fn exists(table: &str) -> io::Result<bool> {
    let asked = message(NFT_MSG_GETTABLE, 0).text(NFTA_TABLE_NAME, table);
    match Socket::open(Some(rustix::net::netlink::NETFILTER))?.request(asked) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn batch(changes: Vec<Message>) -> io::Result<()> {
    let [_, subsystem] = SUBSYSTEM.to_be_bytes();
    let edge = |kind| Message::new(kind, 0).put(&[NFPROTO_UNSPEC, 0, 0, subsystem]);
    let (begin, end) = (edge(NFNL_MSG_BATCH_BEGIN), edge(NFNL_MSG_BATCH_END));
    Socket::open(Some(rustix::net::netlink::NETFILTER))?.batch(begin, changes, end)
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags).put(&[NFPROTO_IPV4, 0, 0, 0])
}

fn table_message(kind: u16, table: &str) -> Message {
    let flags = if kind == NFT_MSG_NEWTABLE {
        NLM_F_CREATE
    } else {
        0
    };
    message(kind, flags).text(NFTA_TABLE_NAME, table)
}

fn expression(rule: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    rule.nested(NFTA_LIST_ELEM, |element| {
        element
            .text(NFTA_EXPR_NAME, name)
            .nested(NFTA_EXPR_DATA, fill)
    })
}

/// Goes on unless the packet leaves by a link whose name begins so.
fn not_to(rule: Message, links: &str) -> Message {
    let rule = expression(rule, "meta", |data| {
        data.network(NFTA_META_DREG, REGISTER)
            .network(NFTA_META_KEY, OIFNAME)
    });
    // As many bytes are compared as there are here.
    expression(rule, "cmp", |data| {
        data.network(NFTA_CMP_SREG, REGISTER)
            .network(NFTA_CMP_OP, NOT_EQUAL)
            .nested(NFTA_CMP_DATA, |data| {
                data.attribute(NFTA_DATA_VALUE, links.as_bytes())
            })
    })
}

/// Goes on if the address at `offset` compares so with the range.
fn in_range(rule: Message, offset: u32, comparison: u32, range: Ipv4Net) -> Message {
    let value =
        |bytes: Ipv4Addr| move |data: Message| data.attribute(NFTA_DATA_VALUE, &bytes.octets());
    let rule = expression(rule, "payload", |data| {
        data.network(NFTA_PAYLOAD_DREG, REGISTER)
            .network(NFTA_PAYLOAD_BASE, NETWORK_HEADER)
            .network(NFTA_PAYLOAD_OFFSET, offset)
            .network(NFTA_PAYLOAD_LEN, 4)
    });
    let rule = expression(rule, "bitwise", |data| {
        data.network(NFTA_BITWISE_SREG, REGISTER)
            .network(NFTA_BITWISE_DREG, REGISTER)
            .network(NFTA_BITWISE_LEN, 4)
            .nested(NFTA_BITWISE_MASK, value(range.netmask()))
            .nested(NFTA_BITWISE_XOR, value(Ipv4Addr::UNSPECIFIED))
    });
    expression(rule, "cmp", |data| {
        data.network(NFTA_CMP_SREG, REGISTER)
            .network(NFTA_CMP_OP, comparison)
            .nested(NFTA_CMP_DATA, value(range.network()))
    })
}
