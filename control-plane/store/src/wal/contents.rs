//! What the records of a log amount to.

use std::collections::VecDeque;

use super::frame::{Record, Vote};
use crate::state::Position;

/// The log as its records left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) vote: Option<Vote>,
    /// Everything up to this entry was purged.
    pub(crate) purged: Option<Position>,
    pub(crate) committed: Option<Position>,
    /// The rest, without holes, with their encoded payloads.
    pub(crate) entries: VecDeque<(Position, Vec<u8>)>,
}

impl Contents {
    /// Takes a record in; says what is wrong where it cannot follow what was there.
    pub(super) fn take(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Vote(vote) => {
                if let Some(before) = self.vote
                    && vote < before
                {
                    return Err(format!("the vote goes back from {before:?} to {vote:?}"));
                }
                self.vote = Some(vote);
            }
            Record::Entry(position, payload) => {
                if let Some((last, _)) = self.entries.back()
                    && position.index != last.index + 1
                {
                    let (found, wanted) = (position.index, last.index + 1);
                    return Err(format!("entry {found} stands where {wanted} should"));
                }
                self.entries.push_back((position, payload));
            }
            Record::Truncate(index) => {
                while self
                    .entries
                    .back()
                    .is_some_and(|(last, _)| last.index >= index)
                {
                    self.entries.pop_back();
                }
            }
            Record::Purge(upto) => {
                while self
                    .entries
                    .front()
                    .is_some_and(|(first, _)| first.index <= upto.index)
                {
                    self.entries.pop_front();
                }
                self.purged = self.purged.max(Some(upto));
            }
            Record::Committed(position) => self.committed = self.committed.max(Some(position)),
        }
        Ok(())
    }

    /// Says what is missing between what was purged and the first entry.
    ///
    /// Only the whole log can be judged: its oldest segment may have been written before the
    /// entries ahead of it were purged.
    pub(super) fn check(&self) -> Result<(), String> {
        let expected = self.purged.map_or(0, |purged| purged.index + 1);
        match self.entries.front() {
            Some((first, _)) if first.index != expected => Err(format!(
                "the entries from {expected} up to {} are missing",
                first.index
            )),
            _ => Ok(()),
        }
    }
}
