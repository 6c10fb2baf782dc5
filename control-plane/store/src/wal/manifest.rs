//! The manifest: which segments there must be, so that a missing one is seen.
//!
//! One small file of two slots, written in turn and in place: a torn slot leaves the other, and
//! an update takes no space on a full disk. It also keeps a second copy of the vote, because a
//! damaged last frame is cut like a torn one, and a vote must never go back.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, File};
use super::error::DataError;
use super::frame::{LogId, Vote};
use crate::codec::{Malformed, Reader, Writer};

const NAME: &str = "manifest";
const SLOT: u64 = 4096;
const MAGIC: u32 = 0x4c57_4d43;
const VERSION: u32 = 1;

/// What the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) log: LogId,
    /// The raft node whose log this is.
    pub(super) node: u64,
    /// The oldest segment, and the sequence number of its first frame.
    pub(super) first: u64,
    pub(super) first_sequence: u64,
    /// The newest segment, prepared for use if not used; 0 where there is none yet.
    pub(super) last: u64,
    pub(super) vote: Option<Vote>,
}

/// The manifest of an open log.
pub(super) struct Manifest {
    file: Box<dyn File>,
    generation: u64,
    facts: Facts,
}

impl Manifest {
    pub(super) fn create(disk: &Arc<dyn Disk>, facts: Facts) -> io::Result<Self> {
        let new = "manifest.new";
        let file = disk.create(new)?;
        // Both slots, so that neither is ever written past the end of the file.
        file.write_at(&[0; 2 * SLOT as usize], 0)?;
        let mut manifest = Self {
            file,
            generation: 0,
            facts,
        };
        manifest.update(|_| ())?;
        disk.rename(new, NAME)?;
        disk.sync_names()?;
        Ok(manifest)
    }

    /// The manifest on the disk; none where there is no such file.
    pub(super) fn open(disk: &Arc<dyn Disk>) -> Result<Option<Self>, DataError> {
        let path = disk.path(NAME);
        let failed = |source| DataError::Io {
            path: path.clone(),
            source,
        };
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut slots = Vec::new();
        for slot in 0..2 {
            let mut bytes = [0; 512];
            match file.read_at(&mut bytes, slot * SLOT) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(failed(error)),
            }
            slots.extend(decode(&bytes, &path)?);
        }
        let newest = slots.into_iter().max_by_key(|(generation, _)| *generation);
        let Some((generation, facts)) = newest else {
            let what = "neither slot is readable".to_owned();
            return Err(DataError::Corrupt {
                path,
                offset: 0,
                what,
            });
        };
        Ok(Some(Self {
            file,
            generation,
            facts,
        }))
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// Changes the facts, durably.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Facts)) -> io::Result<()> {
        let mut facts = self.facts;
        change(&mut facts);
        let generation = self.generation + 1;
        self.file
            .write_at(&encode(generation, &facts), generation % 2 * SLOT)?;
        self.file.sync_data()?;
        self.generation = generation;
        self.facts = facts;
        Ok(())
    }
}

fn encode(generation: u64, facts: &Facts) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(MAGIC);
    out.u32(VERSION);
    out.u32(0); // Key id.
    out.u64(generation);
    out.u64(facts.log.0);
    out.u64(facts.node);
    out.u64(facts.first);
    out.u64(facts.first_sequence);
    out.u64(facts.last);
    let vote = facts.vote.unwrap_or_default();
    out.u8(u8::from(facts.vote.is_some()));
    out.u64(vote.term);
    out.u64(vote.node);
    out.u8(vote.committed.into());
    let mut bytes = out.into_bytes();
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The slot's content; none where it is torn or was never written.
fn decode(bytes: &[u8], path: &Path) -> Result<Option<(u64, Facts)>, DataError> {
    let body = 78;
    let sound = bytes.get(body..body + 4) == Some(&crc32fast::hash(&bytes[..body]).to_le_bytes());
    let parsed = parse(bytes);
    match parsed {
        Ok((version, key, generation, facts)) if sound => {
            if version != VERSION || key != 0 {
                let what = format!("format version {version} with key {key}");
                return Err(DataError::Unsupported {
                    path: path.to_owned(),
                    what,
                });
            }
            Ok(Some((generation, facts)))
        }
        _ => Ok(None),
    }
}

fn parse(bytes: &[u8]) -> Result<(u32, u32, u64, Facts), Malformed> {
    let mut from = Reader::new(bytes);
    if from.u32()? != MAGIC {
        return Err(Malformed);
    }
    let (version, key, generation) = (from.u32()?, from.u32()?, from.u64()?);
    let log = LogId(from.u64()?);
    let (node, first, first_sequence, last) = (from.u64()?, from.u64()?, from.u64()?, from.u64()?);
    let voted = from.u8()? != 0;
    let vote = Vote {
        term: from.u64()?,
        node: from.u64()?,
        committed: from.u8()? != 0,
    };
    let vote = voted.then_some(vote);
    Ok((
        version,
        key,
        generation,
        Facts {
            log,
            node,
            first,
            first_sequence,
            last,
            vote,
        },
    ))
}
