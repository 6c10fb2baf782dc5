//! Reading a log back: the torn tail is cut, damage before it is an error.
//!
//! A frame is begun only when the one before it is durable. So of all frames only the last may
//! be torn, and a header of a later frame anywhere proves that what is unreadable before it had
//! been acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use super::contents::Contents;
use super::disk::{Disk, File};
use super::error::DataError;
use super::frame::{self, ALIGNMENT, Found, LogId, Record};
use super::manifest::Facts;

/// A segment that is written no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) first_sequence: u64,
    /// The highest entry that it holds, or held.
    pub(super) last_index: Option<u64>,
}

/// A log that was read back.
pub(super) struct Recovered {
    pub(super) contents: Contents,
    pub(super) sealed: VecDeque<Sealed>,
    /// The segment that is written on, and where.
    pub(super) current: Sealed,
    pub(super) offset: u64,
    /// Of the next frame.
    pub(super) sequence: u64,
}

/// The name of a segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:016x}.wal")
}

fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}

/// The segments on the disk, in order.
pub(super) fn segments(disk: &Arc<dyn Disk>) -> Result<Vec<u64>, DataError> {
    let names = disk.list().map_err(|source| DataError::Io {
        path: disk.path(""),
        source,
    })?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the segments that the manifest names, and cuts the tail.
pub(super) fn recover(disk: &Arc<dyn Disk>, facts: Facts) -> Result<Recovered, DataError> {
    let mut reading = Reading::new(disk, facts);
    let mut number = facts.first;
    loop {
        let path = disk.path(&name(number));
        let segment = load(disk, number)?;
        let end = reading.frames(number, &segment)?;
        // What stands at the end itself is the torn frame, whatever its header says.
        let found = later_header(&segment, end + ALIGNMENT, facts.log);
        if found.is_some_and(|sequence| sequence > reading.sequence) {
            return Err(reading.corrupt(number, end));
        }
        // The next segment goes on where this one ended, or is not yet in use.
        if number < facts.last {
            let next = load(disk, number + 1)?;
            let found = frame::read(&next, 0, facts.log, reading.sequence);
            if !matches!(found, Found::Nothing) {
                number += 1;
                continue;
            }
        }
        reading.unused(number, end, facts)?;
        let missing = |what| DataError::Corrupt {
            path,
            offset: 0,
            what,
        };
        reading.contents.check().map_err(missing)?;
        // Nothing was changed so far: a log that is refused stays as it is.
        blank(disk, number, &segment, end)?;
        for later in number + 1..=facts.last {
            blank(disk, later, &load(disk, later)?, 0)?;
        }
        return Ok(reading.finish(end as u64));
    }
}

struct Reading<'a> {
    disk: &'a Arc<dyn Disk>,
    log: LogId,
    contents: Contents,
    /// The segments so far; the last is the one being read.
    read: VecDeque<Sealed>,
    /// Of the frame that is expected next.
    sequence: u64,
}

impl<'a> Reading<'a> {
    fn new(disk: &'a Arc<dyn Disk>, facts: Facts) -> Self {
        let contents = Contents::default();
        let sequence = facts.first_sequence;
        Self {
            disk,
            log: facts.log,
            contents,
            read: VecDeque::new(),
            sequence,
        }
    }

    /// Takes in the sound frames of a segment; returns where they end.
    fn frames(&mut self, number: u64, segment: &[u8]) -> Result<usize, DataError> {
        let path = || self.disk.path(&name(number));
        let first_sequence = self.sequence;
        let mut last_index = None;
        let mut offset = 0;
        loop {
            match frame::read(segment, offset, self.log, self.sequence) {
                Found::Frame { records, end } => {
                    let damaged = |what| DataError::Corrupt {
                        path: path(),
                        offset: offset as u64,
                        what,
                    };
                    let records = Record::decode_all(records);
                    for record in records.map_err(|error| damaged(error.to_string()))? {
                        if let Record::Entry(position, _) = &record {
                            last_index = last_index.max(Some(position.index));
                        }
                        self.contents.take(record).map_err(damaged)?;
                    }
                    self.sequence += 1;
                    offset = end;
                }
                Found::Unreadable(what) => {
                    return Err(DataError::Unsupported { path: path(), what });
                }
                Found::Nothing => break,
            }
        }
        self.read.push_back(Sealed {
            number,
            first_sequence,
            last_index,
        });
        Ok(offset)
    }

    /// Looks for frames in the segments that are not in use, if `number` is the last that is.
    fn unused(&self, number: u64, end: usize, facts: Facts) -> Result<(), DataError> {
        for later in number + 1..=facts.last {
            let segment = load(self.disk, later)?;
            let sequence = later_header(&segment, 0, self.log);
            let Some(sequence) = sequence.filter(|sequence| *sequence > self.sequence) else {
                continue;
            };
            tracing::debug!(segment = later, sequence, "a frame where none should be");
            // Where the first frame after the gap begins a segment, the gap is before it.
            let first = load(self.disk, number + 1)?;
            let begins = frame::header_at(&first, 0, self.log).is_some_and(|sequence| {
                sequence > self.sequence
                    && !matches!(frame::read(&first, 0, self.log, sequence), Found::Nothing)
            });
            let (number, offset) = if begins {
                (number, end)
            } else {
                (number + 1, 0)
            };
            return Err(self.corrupt(number, offset));
        }
        Ok(())
    }

    fn corrupt(&self, number: u64, offset: usize) -> DataError {
        let what = format!("frame {} is damaged, and later ones exist", self.sequence);
        DataError::Corrupt {
            path: self.disk.path(&name(number)),
            offset: offset as u64,
            what,
        }
    }

    fn finish(mut self, offset: u64) -> Recovered {
        let sequence = self.sequence;
        let unread = Sealed {
            number: 0,
            first_sequence: sequence,
            last_index: None,
        };
        let current = self.read.pop_back().unwrap_or(unread);
        Recovered {
            contents: self.contents,
            sealed: self.read,
            current,
            offset,
            sequence,
        }
    }
}

/// The highest sequence number of any header from `offset` on.
fn later_header(segment: &[u8], offset: usize, log: LogId) -> Option<u64> {
    let places = (offset..segment.len()).step_by(ALIGNMENT);
    places
        .filter_map(|place| frame::header_at(segment, place, log))
        .max()
}

/// The bytes of a segment.
fn load(disk: &Arc<dyn Disk>, number: u64) -> Result<Vec<u8>, DataError> {
    let path = disk.path(&name(number));
    let read = || {
        let file = disk.open(&name(number))?;
        let length = usize::try_from(file.size()?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|source: std::io::Error| {
        if source.kind() == std::io::ErrorKind::NotFound {
            return DataError::Corrupt {
                path,
                offset: 0,
                what: "the segment is missing".to_owned(),
            };
        }
        DataError::Io { path, source }
    })
}

/// Zeroes what is left of a torn frame, so that it is never found again.
fn blank(disk: &Arc<dyn Disk>, number: u64, segment: &[u8], from: usize) -> Result<(), DataError> {
    const BLOCK: usize = 4096;
    let clean = [0; BLOCK];
    let failed = |source| DataError::Io {
        path: disk.path(&name(number)),
        source,
    };
    let mut file: Option<Box<dyn File>> = None;
    let mut offset = from;
    while let Some(rest) = segment.get(offset..).filter(|rest| !rest.is_empty()) {
        let length = (BLOCK - offset % BLOCK).min(rest.len());
        if rest[..length] != clean[..length] {
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(disk.open(&name(number)).map_err(failed)?),
            };
            file.write_at(&clean[..length], offset as u64)
                .map_err(failed)?;
        }
        offset += length;
    }
    if let Some(file) = file {
        tracing::warn!(file = %disk.path(&name(number)).display(), offset = from, "cut a torn tail");
        file.sync_data().map_err(failed)?;
    }
    Ok(())
}
