//! Sets and maps, and what is in them.

use std::io;
use std::time::Duration;

use super::rule::{NFTA_DATA_VALUE, to_chain};
use super::{Batch, HEADER, message, socket};
use crate::namespace::netlink::{Message, NLM_F_CREATE, attribute, attributes};

const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_DESC_SIZE: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;

const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;

/// Types of `nft`, for who lists a table; the kernel keeps the numbers only. Parts of a key are
/// put together six bits each.
pub(crate) const ADDRESS: u32 = 7;
pub(crate) const PROTOCOL: u32 = 12;
pub(crate) const PORT: u32 = 13;
pub(crate) const SCRATCH: u32 = 23;

/// Bytes of a part of a key.
const PART: u32 = 4;
/// Elements of one message, whose list has a length of two bytes.
const CHUNK: usize = 256;

/// What a set has for each of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing: it is a set and no map.
    None,
    /// A chain to go to.
    Chain,
    /// Parts of these types.
    Parts(&'static [u32]),
}

/// A set or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// Types of the key's parts.
    pub(crate) key: &'static [u32],
    pub(crate) data: Data,
    /// Rules add elements to it, which have a time to live: at most so many.
    pub(crate) filled_by_rules: Option<u32>,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) data: Held,
    /// How long it lives when it is used, and how long it has left.
    pub(crate) life: Option<(Duration, Duration)>,
}

/// What an element has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    Chain(String),
    Bytes(Vec<u8>),
}

impl Element {
    pub(crate) fn new(key: Vec<u8>, data: Held) -> Self {
        Self {
            key,
            data,
            life: None,
        }
    }
}

impl Batch {
    /// Makes a set, which is told apart from others of its table by `id` within the batch.
    pub(crate) fn set(&mut self, table: &str, set: &Set, id: u32) {
        let mut flags = match set.data {
            Data::None => 0,
            Data::Chain | Data::Parts(_) => NFT_SET_MAP,
        };
        if set.filled_by_rules.is_some() {
            flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
        }
        let mut message = message(NFT_MSG_NEWSET, NLM_F_CREATE)
            .text(NFTA_SET_TABLE, table)
            .text(NFTA_SET_NAME, set.name)
            .network(NFTA_SET_FLAGS, flags)
            .network(NFTA_SET_KEY_TYPE, kind(set.key))
            .network(NFTA_SET_KEY_LEN, length(set.key))
            .network(NFTA_SET_ID, id);
        match set.data {
            Data::None => {}
            Data::Chain => {
                message = message
                    .network(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT)
                    .network(NFTA_SET_DATA_LEN, 0);
            }
            Data::Parts(parts) => {
                message = message
                    .network(NFTA_SET_DATA_TYPE, kind(parts))
                    .network(NFTA_SET_DATA_LEN, length(parts));
                if parts == [SCRATCH] {
                    // For who lists it: the bytes are in the machine's order.
                    message = message.attribute(NFTA_SET_USERDATA, &host_order_of_data());
                }
            }
        }
        if let Some(size) = set.filled_by_rules {
            message = message.nested(NFTA_SET_DESC, |message| {
                message.network(NFTA_SET_DESC_SIZE, size)
            });
        }
        self.push(format!("set {}", set.name), message);
    }

    pub(crate) fn add_elements(&mut self, table: &str, set: &str, elements: &[Element]) {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, set, elements);
    }

    pub(crate) fn remove_elements(&mut self, table: &str, set: &str, elements: &[Element]) {
        self.elements(NFT_MSG_DELSETELEM, 0, table, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, table: &str, set: &str, elements: &[Element]) {
        for chunk in elements.chunks(CHUNK) {
            let message = message(kind, flags)
                .text(NFTA_SET_ELEM_LIST_TABLE, table)
                .text(NFTA_SET_ELEM_LIST_SET, set)
                .nested(NFTA_SET_ELEM_LIST_ELEMENTS, |message| {
                    chunk.iter().fold(message, put)
                });
            self.push(format!("elements of {set}"), message);
        }
    }
}

fn put(message: Message, element: &Element) -> Message {
    message.nested(NFTA_LIST_ELEM, |message| {
        let message = message.nested(NFTA_SET_ELEM_KEY, |message| {
            message.attribute(NFTA_DATA_VALUE, &element.key)
        });
        let message = match &element.data {
            Held::Nothing => message,
            Held::Chain(chain) => {
                message.nested(NFTA_SET_ELEM_DATA, |message| to_chain(message, chain))
            }
            Held::Bytes(bytes) => message.nested(NFTA_SET_ELEM_DATA, |message| {
                message.attribute(NFTA_DATA_VALUE, bytes)
            }),
        };
        match element.life {
            None => message,
            Some((whole, left)) => message
                .attribute(NFTA_SET_ELEM_TIMEOUT, &milliseconds(whole))
                .attribute(NFTA_SET_ELEM_EXPIRATION, &milliseconds(left)),
        }
    })
}

/// The elements of a set whose data are bytes.
pub(crate) fn elements(table: &str, set: &str) -> io::Result<Vec<Element>> {
    let asked = || {
        message(NFT_MSG_GETSETELEM, 0)
            .text(NFTA_SET_ELEM_LIST_TABLE, table)
            .text(NFTA_SET_ELEM_LIST_SET, set)
    };
    let found = socket()?.dump(asked)?;
    let lists = found.iter().flat_map(|payload| attributes(payload, HEADER));
    Ok(lists
        .filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS)
        .flat_map(|(_, list)| attributes(list, 0))
        .filter_map(|(_, element)| decode(element))
        .collect())
}

fn decode(element: &[u8]) -> Option<Element> {
    let of = |wanted: u16| attribute(element, 0, wanted);
    let bytes = |wanted: u16| Some(attribute(of(wanted)?, 0, NFTA_DATA_VALUE)?.to_vec());
    let time = |wanted: u16| {
        let milliseconds: [u8; 8] = of(wanted)?.try_into().ok()?;
        Some(Duration::from_millis(u64::from_be_bytes(milliseconds)))
    };
    let life = match (time(NFTA_SET_ELEM_TIMEOUT), time(NFTA_SET_ELEM_EXPIRATION)) {
        (Some(whole), Some(left)) => Some((whole, left)),
        _ => None,
    };
    Some(Element {
        key: bytes(NFTA_SET_ELEM_KEY)?,
        data: match bytes(NFTA_SET_ELEM_DATA) {
            Some(bytes) => Held::Bytes(bytes),
            None => Held::Nothing,
        },
        life,
    })
}

fn kind(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |kind, part| kind << 6 | part)
}

fn length(parts: &[u32]) -> u32 {
    parts.iter().map(|_| PART).sum()
}

fn milliseconds(time: Duration) -> [u8; 8] {
    u64::try_from(time.as_millis())
        .unwrap_or(u64::MAX)
        .to_be_bytes()
}

/// `NFTNL_UDATA_SET_DATABYTEORDER` with the value for the machine's.
fn host_order_of_data() -> [u8; 6] {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [1, 4, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::machine::on_a_machine_of_its_own;

    #[test]
    fn elements_with_a_life_are_read_as_they_were_written() {
        on_a_machine_of_its_own(|| {
            let set = Set {
                name: "clients",
                key: &[ADDRESS, PORT],
                data: Data::Parts(&[SCRATCH]),
                filled_by_rules: Some(1000),
            };
            let element = |number: u16| Element {
                key: [number.to_be_bytes(), [0; 2], number.to_be_bytes(), [0; 2]].concat(),
                data: Held::Bytes(u32::from(number).to_ne_bytes().to_vec()),
                life: Some((Duration::from_secs(600), Duration::from_secs(500))),
            };
            let written: Vec<Element> = (0..600).map(element).collect();
            let mut batch = Batch::default();
            batch.table("one", None);
            batch.set("one", &set, 1);
            batch.add_elements("one", set.name, &written);
            batch.remove_elements("one", set.name, &written[..1]);
            batch.commit().unwrap();
            let mut read = elements("one", set.name).unwrap();
            read.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(read.len(), 599);
            for (read, written) in read.iter().zip(&written[1..]) {
                assert_eq!((&read.key, &read.data), (&written.key, &written.data));
                let (whole, left) = read.life.unwrap();
                assert_eq!(whole, Duration::from_secs(600));
                assert!(left <= Duration::from_secs(500) && left > Duration::from_secs(400));
            }
            assert!(elements("one", "absent").is_err());
        });
    }
}
