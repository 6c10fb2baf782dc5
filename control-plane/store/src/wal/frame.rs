//! The format of the log on disk.
//!
//! A frame is what one fdatasync makes durable: a header, records, and one checksum over both,
//! so that a page lost from an unacknowledged write never looks like damage in the middle. The
//! header names the log by a random number that clients never see: no value that they store can
//! pass for a frame. It also carries the version of the format and the id of the key that the
//! records are encrypted with; 0 is none, and the only one so far.

use crate::codec::{Malformed, Reader, Writer};
use crate::state::Position;

/// Frames begin at multiples of this many bytes.
pub(super) const ALIGNMENT: usize = 64;
pub(super) const HEADER: usize = 40;
const MAGIC: u32 = 0x4c57_5243;
const VERSION: u16 = 3;

/// What tells the frames of this log from any other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogId(pub(super) u64);

/// One change to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Vote(Vote),
    /// An entry with its encoded payload.
    Entry(Position, Vec<u8>),
    /// Entries from this index on are gone.
    Truncate(u64),
    /// Entries up to this one are gone: the applied state has them.
    Purge(Position),
    /// Entries up to this one are committed.
    Committed(Position),
}

/// A raft vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: u64,
    /// Whether a quorum granted it.
    pub(crate) committed: bool,
}

/// What stands at a place in a segment.
pub(super) enum Found<'a> {
    /// The frame that is expected there.
    Frame { records: &'a [u8], end: usize },
    /// A sound frame that this version cannot read.
    Unreadable(String),
    /// Anything else.
    Nothing,
}

/// The bytes of a frame.
pub(super) fn encode(log: LogId, sequence: u64, records: &[Record]) -> Vec<u8> {
    let mut out = Writer::with_capacity(HEADER + 256);
    out.u32(MAGIC);
    out.u64(log.0);
    out.u64(sequence);
    out.u16(VERSION);
    out.u16(0);
    out.u32(0); // Key id.
    out.u32(0); // Nothing yet.
    out.u64(0); // Length and checksum, below.
    for record in records {
        record.encode(&mut out);
    }
    let mut bytes = out.into_bytes();
    let length = u32::try_from(bytes.len() - HEADER).unwrap_or(u32::MAX);
    bytes[32..36].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(&bytes);
    bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads what stands at `offset`, where the frame `sequence` is expected.
pub(super) fn read(segment: &[u8], offset: usize, log: LogId, sequence: u64) -> Found<'_> {
    let Some(header) = segment.get(offset..offset + HEADER) else {
        return Found::Nothing;
    };
    if header_at(segment, offset, log) != Some(sequence) {
        return Found::Nothing;
    }
    let length = u32::from_le_bytes([header[32], header[33], header[34], header[35]]) as usize;
    let Some(records) = segment.get(offset + HEADER..offset + HEADER + length) else {
        return Found::Nothing;
    };
    let mut blank = [0; HEADER];
    blank.copy_from_slice(header);
    blank[36..40].fill(0);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&blank);
    hasher.update(records);
    if hasher.finalize().to_le_bytes() != header[36..40] {
        return Found::Nothing;
    }
    let version = u16::from_le_bytes([header[20], header[21]]);
    let key = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
    if version != VERSION || key != 0 {
        return Found::Unreadable(format!("format version {version} with key {key}"));
    }
    let end = (offset + HEADER + length).next_multiple_of(ALIGNMENT);
    Found::Frame { records, end }
}

/// The sequence number of the header at `offset`, if there is a header of this log.
pub(super) fn header_at(segment: &[u8], offset: usize, log: LogId) -> Option<u64> {
    let header = segment.get(offset..offset + HEADER)?;
    let magic = u32::from_le_bytes(header[0..4].try_into().ok()?);
    let found = u64::from_le_bytes(header[4..12].try_into().ok()?);
    let sequence = u64::from_le_bytes(header[12..20].try_into().ok()?);
    (magic == MAGIC && found == log.0).then_some(sequence)
}

impl Record {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Vote(vote) => {
                out.u8(1);
                out.u64(vote.term);
                out.u64(vote.node);
                out.u8(vote.committed.into());
            }
            Self::Entry(position, payload) => {
                out.u8(2);
                out.position(*position);
                out.bytes(payload);
            }
            Self::Truncate(index) => {
                out.u8(3);
                out.u64(*index);
            }
            Self::Purge(position) => {
                out.u8(4);
                out.position(*position);
            }
            Self::Committed(position) => {
                out.u8(5);
                out.position(*position);
            }
        }
    }

    /// The records of a frame.
    pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut from = Reader::new(bytes);
        let mut records = Vec::new();
        while !from.is_empty() {
            records.push(match from.u8()? {
                1 => {
                    let (term, node) = (from.u64()?, from.u64()?);
                    Self::Vote(Vote {
                        term,
                        node,
                        committed: from.u8()? != 0,
                    })
                }
                2 => Self::Entry(from.position()?, from.bytes()?.to_vec()),
                3 => Self::Truncate(from.u64()?),
                4 => Self::Purge(from.position()?),
                5 => Self::Committed(from.position()?),
                _ => return Err(Malformed),
            });
        }
        Ok(records)
    }

    /// Bytes that the record takes in a frame, at most.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Entry(_, payload) => payload.len() + 32,
            _ => 32,
        }
    }
}
