//! The log itself, without threads: frames appended to segments.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::contents::Contents;
use super::disk::{Disk, File};
use super::error::{AppendError, DataError};
use super::frame::{self, LogId, Record, Vote};
use super::manifest::{Facts, Manifest};
use super::recover::{Sealed, name, recover, segments};
use super::segments::{Keeper, Pool};
use crate::state::Position;

/// Room in a segment for the records that each begins with.
const BASE: usize = 256;

/// An open log. One at a time appends to it.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    manifest: Arc<Mutex<Manifest>>,
    pool: Arc<Pool>,
    id: LogId,
    segment_bytes: u64,
    sealed: VecDeque<Sealed>,
    current: Sealed,
    file: Box<dyn File>,
    offset: u64,
    /// Of the next frame.
    sequence: u64,
    vote: Option<Vote>,
    purged: Option<Position>,
    committed: Option<Position>,
}

/// What opening gave.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) keeper: Keeper,
    pub(super) contents: Contents,
}

impl Log {
    /// Opens the log on `disk`, or makes one where there is nothing at all. `id` is drawn at
    /// random, for a new log.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        node: u64,
        segment_bytes: u64,
        id: u64,
    ) -> Result<Opened, DataError> {
        let failed = |source| DataError::Io {
            path: disk.path(""),
            source,
        };
        let manifest = match Manifest::open(&disk)? {
            Some(manifest) => manifest,
            None => {
                if let Some(first) = segments(&disk)?.first() {
                    let what = "there are segments, but no manifest".to_owned();
                    return Err(DataError::Corrupt {
                        path: disk.path(&name(*first)),
                        offset: 0,
                        what,
                    });
                }
                let (log, first_sequence) = (LogId(id), 1);
                let facts = Facts {
                    log,
                    node,
                    first: 1,
                    first_sequence,
                    last: 0,
                    vote: None,
                };
                Manifest::create(&disk, facts).map_err(failed)?
            }
        };
        let facts = manifest.facts();
        if facts.node != node {
            let path = disk.path("manifest");
            return Err(DataError::OtherNode {
                path,
                found: facts.node,
                wanted: node,
            });
        }
        // Segments beside those of the manifest were being made or removed.
        for number in segments(&disk)? {
            if number < facts.first || number > facts.last {
                disk.remove(&name(number)).map_err(failed)?;
            }
        }
        let manifest = Arc::new(Mutex::new(manifest));
        let mut keeper = Keeper {
            disk: disk.clone(),
            manifest: manifest.clone(),
            pool: Arc::new(Pool::new(facts.first, facts.last, 0)),
            segment_bytes,
        };
        if facts.last == 0 {
            keeper.prepare(1).and_then(|made| made).map_err(failed)?;
        }
        let facts = manifest.lock().facts();
        let mut recovered = recover(&disk, facts)?;
        let contents = &mut recovered.contents;
        contents.vote = contents.vote.max(facts.vote);
        let current = recovered.current;
        let file = disk.open(&name(current.number)).map_err(failed)?;
        let length = file.size().map_err(failed)?;
        let left = length.saturating_sub(recovered.offset);
        keeper.pool = Arc::new(Pool::new(current.number, facts.last, left));
        let log = Self {
            manifest,
            pool: keeper.pool.clone(),
            id: facts.log,
            segment_bytes: length,
            sealed: recovered.sealed,
            current,
            file,
            offset: recovered.offset,
            sequence: recovered.sequence,
            vote: contents.vote,
            purged: contents.purged,
            committed: contents.committed,
            disk,
        };
        Ok(Opened {
            log,
            keeper,
            contents: recovered.contents,
        })
    }

    /// Appends the records as one frame, durably.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        let mut bytes = frame::encode(self.id, self.sequence, records);
        let full = self.offset + bytes.len() as u64 > self.segment_bytes;
        // What a segment begins with stands without those before it.
        if full || self.offset == 0 {
            let based: Vec<_> = self
                .base()
                .into_iter()
                .chain(records.iter().cloned())
                .collect();
            bytes = frame::encode(self.id, self.sequence, &based);
        }
        if full {
            self.rotate(bytes.len())?;
        }
        self.file.write_at(&bytes, self.offset)?;
        self.file.sync_data()?;
        self.offset += bytes.len().next_multiple_of(frame::ALIGNMENT) as u64;
        self.sequence += 1;
        self.pool
            .note_left(self.segment_bytes.saturating_sub(self.offset));
        self.note(records)?;
        Ok(())
    }

    fn rotate(&mut self, length: usize) -> Result<(), AppendError> {
        let next = self.pool.take_next().ok_or(AppendError::NoSpace)?;
        self.file = self.disk.open(&name(next))?;
        self.segment_bytes = self.file.size()?;
        if length as u64 > self.segment_bytes {
            let message = format!("a frame of {length} bytes fits no segment");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message).into());
        }
        let sealed = Sealed {
            number: next,
            first_sequence: self.sequence,
            last_index: None,
        };
        self.sealed
            .push_back(std::mem::replace(&mut self.current, sealed));
        self.offset = 0;
        Ok(())
    }

    /// What a segment begins with, so that it stands without those before it.
    fn base(&self) -> Vec<Record> {
        let vote = self.vote.map(Record::Vote);
        let purged = self.purged.map(Record::Purge);
        let committed = self.committed.map(Record::Committed);
        vote.into_iter().chain(purged).chain(committed).collect()
    }

    /// Follows what the records did to the log.
    fn note(&mut self, records: &[Record]) -> io::Result<()> {
        for record in records {
            match record {
                Record::Vote(vote) => {
                    self.vote = Some(*vote);
                    self.manifest
                        .lock()
                        .update(|facts| facts.vote = Some(*vote))?;
                }
                Record::Entry(position, _) => {
                    self.current.last_index = self.current.last_index.max(Some(position.index));
                }
                Record::Truncate(_) => {}
                Record::Purge(upto) => {
                    self.purged = self.purged.max(Some(*upto));
                    self.release(upto.index);
                }
                Record::Committed(position) => {
                    self.committed = self.committed.max(Some(*position));
                }
            }
        }
        Ok(())
    }

    /// Lets go of the oldest segments whose entries are all purged.
    fn release(&mut self, purged: u64) {
        let mut released = false;
        while self
            .sealed
            .front()
            .is_some_and(|oldest| oldest.last_index <= Some(purged))
        {
            self.sealed.pop_front();
            released = true;
        }
        if released {
            let first = self.sealed.front().unwrap_or(&self.current);
            self.pool.release(first.number, first.first_sequence);
        }
    }
}

/// The most that the records of one frame may take, in segments of this size.
pub(super) fn frame_room(segment_bytes: u64) -> usize {
    let room = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
    room.saturating_sub(frame::HEADER + BASE)
}
