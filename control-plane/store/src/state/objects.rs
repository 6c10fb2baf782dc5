//! The objects as they are now, in the order of their keys.
//!
//! One sorted sequence, cut into chunks. To find a key is a search among the chunks and one in a
//! chunk; to count what lies before a place is to add up the lengths of the chunks before it. So a
//! page of a list knows how many objects come after it without looking at them, and no object pays
//! for that with a byte.

use crate::types::Record;

/// Records of a chunk, at most. What is moved by an insertion is a few kilobytes then, and what is
/// added up by a count a few thousand numbers for a million objects. Tests want many chunks.
const MOST: usize = if cfg!(test) { 4 } else { 512 };

/// The objects.
#[derive(Default)]
pub(crate) struct Objects {
    /// None is empty, and none has more than [`MOST`] records. A record knows its key: a map would
    /// hold it a second time.
    chunks: Vec<Vec<Record>>,
}

/// Where a record is, or would be.
#[derive(Clone, Copy)]
pub(super) struct Place {
    chunk: usize,
    /// The chunk's length where the record is the first of the next one.
    index: usize,
}

impl Objects {
    pub(super) fn get(&self, key: &str) -> Option<&Record> {
        let (chunk, found) = self.find(key);
        self.chunks.get(chunk)?.get(found.ok()?)
    }

    /// Puts a record at its key; returns what it replaces.
    pub(crate) fn insert(&mut self, record: Record) -> Option<Record> {
        let (chunk, found) = self.find(record.key());
        match found {
            Ok(index) => Some(std::mem::replace(&mut self.chunks[chunk][index], record)),
            Err(index) => {
                self.insert_at(Place { chunk, index }, record);
                None
            }
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        let (chunk, Ok(index)) = self.find(key) else {
            return;
        };
        let records = &mut self.chunks[chunk];
        records.remove(index);
        if records.is_empty() {
            self.chunks.remove(chunk);
            return;
        }
        if records.capacity() > 4 * records.len() {
            records.shrink_to(2 * records.len());
        }
        self.join(chunk);
        if let Some(before) = chunk.checked_sub(1) {
            self.join(before);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.chunks.iter().flatten()
    }

    /// The place behind all records whose keys are `before` it, which must be so of all keys up to
    /// one and of none after it.
    pub(super) fn place(&self, before: impl Fn(&str) -> bool) -> Place {
        let begun = self.chunks.partition_point(|chunk| before(first(chunk)));
        let chunk = begun.saturating_sub(1);
        let index = self
            .chunks
            .get(chunk)
            .map_or(0, |records| records.partition_point(|r| before(r.key())));
        Place { chunk, index }
    }

    /// From a place on.
    pub(super) fn from(&self, place: Place) -> impl Iterator<Item = &Record> {
        let chunks = self.chunks.get(place.chunk..).unwrap_or_default();
        chunks.iter().flatten().skip(place.index)
    }

    /// How many records lie before a place.
    pub(super) fn rank(&self, place: Place) -> usize {
        let whole = self.chunks.iter().take(place.chunk);
        whole.map(Vec::len).sum::<usize>() + place.index
    }

    /// The chunk in which a key belongs, and where it is in there or would be.
    fn find(&self, key: &str) -> (usize, Result<usize, usize>) {
        let begun = self.chunks.partition_point(|chunk| first(chunk) <= key);
        let chunk = begun.saturating_sub(1);
        let found = self.chunks.get(chunk).map_or(Err(0), |records| {
            records.binary_search_by(|record| record.key().cmp(key))
        });
        (chunk, found)
    }

    fn insert_at(&mut self, mut place: Place, record: Record) {
        let Some(records) = self.chunks.get_mut(place.chunk) else {
            self.chunks.push(vec![record]);
            return;
        };
        if records.len() < MOST {
            records.insert(place.index, record);
            return;
        }
        // Keys that come in their order leave full chunks behind: the first of them that has no room
        // begins the next one, or a new one where that is full as well.
        let next = place.chunk + 1;
        if place.index == MOST {
            match self.chunks.get_mut(next).filter(|c| c.len() < MOST) {
                Some(records) => records.insert(0, record),
                None => self.chunks.insert(next, vec![record]),
            }
            return;
        }
        let at = MOST / 2;
        let rest = self.chunks[place.chunk].split_off(at);
        self.chunks.insert(place.chunk + 1, rest);
        if place.index >= at {
            place.chunk += 1;
            place.index -= at;
        }
        self.chunks[place.chunk].insert(place.index, record);
    }

    /// Makes one chunk of two neighbours that have become small.
    fn join(&mut self, chunk: usize) {
        let small = self
            .chunks
            .get(chunk..chunk + 2)
            .is_some_and(|two| two.iter().map(Vec::len).sum::<usize>() <= MOST / 2);
        if small {
            let mut rest = self.chunks.remove(chunk + 1);
            self.chunks[chunk].append(&mut rest);
        }
    }
}

/// The key with which a chunk begins.
fn first(chunk: &[Record]) -> &str {
    chunk.first().map_or("", Record::key)
}
