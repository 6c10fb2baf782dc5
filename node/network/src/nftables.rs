//! Tables of nftables by netlink (`linux/netfilter/nf_tables.h`): what our tables need, and no more.
//!
//! A [`Batch`] is made all or not at all, and a packet sees the rules before it or after it. The
//! expressions of a [`Rule`] work on registers of four bytes, counted from 0; a key of several
//! parts is in registers that follow each other. Tables are those of IPv4.

mod rule;
mod set;

use std::io;

use crate::namespace::netlink::{
    BatchError, Message, NLM_F_APPEND, NLM_F_CREATE, Socket, attributes,
};

pub(crate) use rule::{Comparison, Field, Rule};
pub(crate) use set::{ADDRESS, Data, Element, Held, PORT, PROTOCOL, SCRATCH, Set, elements};

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_IPV4: u8 = 2;
const HEADER: usize = 4;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
/// A comment in the data that the kernel keeps for its users, as `nft` has it.
const UDATA_COMMENT: u8 = 0;
/// The bytes that a comment may have: the data has lengths of one byte.
pub(crate) const COMMENT: usize = 250;

/// Where packets meet a chain that translates addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Output = 3,
    Postrouting = 4,
}

/// Changes that are made together.
#[derive(Default)]
pub(crate) struct Batch {
    names: Vec<String>,
    changes: Vec<Message>,
}

/// Why a batch was not made, and at what.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct RulesError {
    /// The change that failed.
    pub(crate) what: String,
    #[source]
    pub(crate) source: io::Error,
}

impl RulesError {
    /// Something that it names is not there (any more).
    pub(crate) fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl From<RulesError> for io::Error {
    fn from(error: RulesError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

impl Batch {
    /// Makes a table; one that is there stays.
    pub(crate) fn table(&mut self, table: &str, comment: Option<&str>) {
        let mut message = message(NFT_MSG_NEWTABLE, NLM_F_CREATE).text(NFTA_TABLE_NAME, table);
        if let Some(comment) = comment.filter(|comment| comment.len() <= COMMENT) {
            message = message.attribute(NFTA_TABLE_USERDATA, &encode_comment(comment));
        }
        self.push(format!("table {table}"), message);
    }

    pub(crate) fn delete_table(&mut self, table: &str) {
        let message = message(NFT_MSG_DELTABLE, 0).text(NFTA_TABLE_NAME, table);
        self.push(format!("deletion of table {table}"), message);
    }

    /// A chain for packets at this point, where they are met in the order of priorities.
    pub(crate) fn nat_chain(&mut self, table: &str, name: &str, hook: Hook, priority: i32) {
        let message = chain(NFT_MSG_NEWCHAIN, table, name)
            .nested(NFTA_CHAIN_HOOK, |message| {
                message
                    .network(NFTA_HOOK_HOOKNUM, hook as u32)
                    .network(NFTA_HOOK_PRIORITY, priority.cast_unsigned())
            })
            .text(NFTA_CHAIN_TYPE, "nat");
        self.push(format!("chain {name}"), message);
    }

    /// A chain to which rules go.
    pub(crate) fn chain(&mut self, table: &str, name: &str) {
        let message = chain(NFT_MSG_NEWCHAIN, table, name);
        self.push(format!("chain {name}"), message);
    }

    pub(crate) fn delete_chain(&mut self, table: &str, name: &str) {
        let message = chain(NFT_MSG_DELCHAIN, table, name);
        self.push(format!("deletion of chain {name}"), message);
    }

    /// Removes all rules of a chain.
    pub(crate) fn empty_chain(&mut self, table: &str, chain: &str) {
        let message = message(NFT_MSG_DELRULE, 0)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain);
        self.push(format!("the rules of chain {chain}"), message);
    }

    /// Appends a rule to a chain.
    pub(crate) fn rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        let message = message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain)
            .nested(NFTA_RULE_EXPRESSIONS, |message| {
                message.append(rule.expressions())
            });
        self.push(format!("a rule of chain {chain}"), message);
    }

    fn push(&mut self, name: String, message: Message) {
        self.names.push(name);
        self.changes.push(message);
    }

    /// Makes the changes, in the network namespace of the calling thread.
    pub(crate) fn commit(self) -> Result<(), RulesError> {
        let [_, subsystem] = SUBSYSTEM.to_be_bytes();
        let edge = |kind| Message::new(kind, 0).put(&[NFPROTO_UNSPEC, 0, 0, subsystem]);
        let (begin, end) = (edge(NFNL_MSG_BATCH_BEGIN), edge(NFNL_MSG_BATCH_END));
        let sent = socket()
            .map_err(|source| BatchError {
                position: None,
                source,
            })
            .and_then(|mut socket| socket.batch(begin, self.changes, end));
        sent.map_err(|error| {
            let failed = error
                .position
                .and_then(|position| Some((position, self.names.get(position)?)));
            let what = match failed {
                Some((position, name)) => {
                    format!("message {position} of {}, {name}", self.names.len())
                }
                None => format!("the batch of {}", self.names.len()),
            };
            RulesError {
                what,
                source: error.source,
            }
        })
    }
}

/// Whether there is a table of that name.
pub(crate) fn exists(table: &str) -> io::Result<bool> {
    let asked = message(NFT_MSG_GETTABLE, 0).text(NFTA_TABLE_NAME, table);
    match socket()?.request(asked) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a table; that there is none is no error.
pub(crate) fn remove(table: &str) -> io::Result<()> {
    if !exists(table)? {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.delete_table(table);
    match batch.commit() {
        Err(error) if error.is_missing() => Ok(()),
        other => Ok(other?),
    }
}

/// All tables with their comments.
pub(crate) fn tables() -> io::Result<Vec<(String, Option<String>)>> {
    let found = socket()?.dump(|| message(NFT_MSG_GETTABLE, 0))?;
    let table = |payload: &Vec<u8>| {
        let (mut name, mut comment) = (None, None);
        for (attribute, value) in attributes(payload, HEADER) {
            match attribute {
                NFTA_TABLE_NAME => name = text(value),
                NFTA_TABLE_USERDATA => comment = decode_comment(value),
                _ => {}
            }
        }
        Some((name?, comment))
    };
    Ok(found.iter().filter_map(table).collect())
}

fn socket() -> io::Result<Socket> {
    Socket::open(Some(rustix::net::netlink::NETFILTER))
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags).put(&[NFPROTO_IPV4, 0, 0, 0])
}

fn chain(kind: u16, table: &str, name: &str) -> Message {
    let flags = match kind {
        NFT_MSG_NEWCHAIN => NLM_F_CREATE,
        _ => 0,
    };
    message(kind, flags)
        .text(NFTA_CHAIN_TABLE, table)
        .text(NFTA_CHAIN_NAME, name)
}

fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).ok()
}

fn encode_comment(comment: &str) -> Vec<u8> {
    // Its length and that of the final zero are within a byte, see `COMMENT`.
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![UDATA_COMMENT, length];
    data.extend(comment.as_bytes());
    data.push(0);
    data
}

fn decode_comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
        let value = data.get(2..2 + length)?;
        if kind == UDATA_COMMENT {
            return text(value);
        }
        data = data.get(2 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::machine::on_a_machine_of_its_own;

    #[test]
    fn comments_are_those_of_nft() {
        let data = encode_comment("ours");
        assert_eq!(data, b"\0\x05ours\0");
        assert_eq!(decode_comment(&data).as_deref(), Some("ours"));
        let behind = [&[7, 2, 1, 1], &data[..]].concat();
        assert_eq!(decode_comment(&behind).as_deref(), Some("ours"));
        for length in 0..data.len() {
            assert_eq!(decode_comment(&data[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_batch_that_fails_says_where_and_leaves_nothing() {
        on_a_machine_of_its_own(|| {
            let mut batch = Batch::default();
            batch.table("one", Some("whose it is"));
            batch.chain("one", "a");
            batch.delete_chain("one", "absent");
            batch.chain("one", "b");
            let error = batch.commit().unwrap_err();
            assert!(error.is_missing());
            let said = error.to_string();
            assert!(
                said.starts_with("message 2 of 4, deletion of chain absent: "),
                "{said}"
            );
            assert!(!exists("one").unwrap());

            let mut batch = Batch::default();
            batch.table("one", Some("whose it is"));
            batch.table("two", None);
            batch.commit().unwrap();
            let there = [
                ("one".to_owned(), Some("whose it is".to_owned())),
                ("two".to_owned(), None),
            ];
            assert_eq!(tables().unwrap(), there);
            remove("one").unwrap();
            remove("one").unwrap();
            assert!(!exists("one").unwrap() && exists("two").unwrap());
        });
    }
}
