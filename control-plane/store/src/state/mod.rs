//! The state machine: what every replica computes from the same commands.
//!
//! [`State`] is owned by the [`crate::replica::Replica`], which holds the lock around it. It is
//! pure: time comes with the commands, and nothing here waits, sends or stores.
//!
//! Three parts: the objects as they are now, the [`history`] of recent changes with what they
//! replaced (from which lists of the past are reconstructed and watches begin), and the
//! [`sessions`] by which a request that arrives twice is applied once.
//!
//! Deliberately absent: durability. The raft storage drains the oldest history into sled.

mod history;
mod objects;
mod sessions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(crate) use history::{Change, Effect, Group, History, Limits, Position};
pub(crate) use objects::Objects;
pub(crate) use sessions::{Session, Sessions};

use crate::command::{Command, Request};
use crate::types::{Error, List, Precondition, Record, Result, Revision};

/// The key space.
pub(crate) struct State {
    revision: Revision,
    objects: Objects,
    sessions: Sessions,
    pub(crate) history: History,
}

/// What applying a log entry came to.
pub(crate) struct Applied {
    /// One per request, in order; none where the request had been applied before. What the caller
    /// is told of a change is made where there is a caller ([`Change::outcome`]).
    pub(crate) outcomes: Vec<Option<Result<Arc<Change>>>>,
    /// The mutations, in the order of their revisions.
    pub(crate) changes: Vec<Arc<Change>>,
}

/// A page to be read.
pub(crate) struct Page<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) start_after: Option<&'a str>,
    /// 0 is no limit.
    pub(crate) limit: usize,
}

impl Page<'_> {
    /// How many records it takes.
    fn most(&self) -> usize {
        match self.limit {
            0 => usize::MAX,
            limit => limit,
        }
    }
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            revision: 0,
            objects: Objects::default(),
            sessions: Sessions::default(),
            history: History::new(0, limits),
        }
    }

    /// A state that begins at a checkpoint; the changes before it are not retained.
    pub(crate) fn restore(
        revision: Revision,
        objects: Objects,
        sessions: Sessions,
        limits: Limits,
    ) -> Self {
        let history = History::new(revision, limits);
        Self {
            revision,
            objects,
            sessions,
            history,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Applies one log entry. `time` is in milliseconds since 1970, read by the proposer.
    pub(crate) fn apply(&mut self, position: Position, time: u64, requests: &[Request]) -> Applied {
        let mut changes = Vec::with_capacity(requests.len());
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            outcomes.push(self.sessions.admit(request.id).then(|| {
                let change = Arc::new(self.mutate(&request.command)?);
                changes.push(change.clone());
                Ok(change)
            }));
        }
        self.history.push(Group {
            position,
            revision: self.revision,
            time,
            requests: requests.iter().map(|request| request.id).collect(),
            changes: changes.clone(),
        });
        Applied { outcomes, changes }
    }

    fn mutate(&mut self, command: &Command) -> Result<Change> {
        let key = command.key();
        let current = self.objects.get(key);
        let effect = match command {
            Command::Create(draft) => match current {
                Some(current) => {
                    return Err(Error::Exists {
                        key: key.to_owned(),
                        current: Box::new(current.clone()),
                    });
                }
                None => self.put(draft, self.revision + 1),
            },
            Command::Swap(precondition, draft) => {
                let created = admitted(key, current, precondition)?.created();
                self.put(draft, created)
            }
            Command::Delete(precondition, _) => {
                let previous = admitted(key, current, precondition)?.clone();
                self.objects.remove(key);
                Effect::Delete { previous }
            }
        };
        self.revision += 1;
        Ok(Change {
            revision: self.revision,
            effect,
        })
    }

    fn put(&mut self, draft: &Record, created: Revision) -> Effect {
        let record = draft.written(self.revision + 1, created);
        let previous = self.objects.insert(record.clone());
        Effect::Put { record, previous }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Record> {
        self.objects.get(key).cloned()
    }

    /// The object as it was at `revision`.
    pub(crate) fn get_at(&self, key: &str, revision: Revision) -> Result<Option<Record>> {
        let later = self.history.after(revision)?;
        Ok(match later.into_iter().find(|change| change.key() == key) {
            Some(change) => change.previous().cloned(),
            None => self.get(key),
        })
    }

    /// A page of the state as it is.
    pub(crate) fn list(&self, page: &Page<'_>) -> List {
        let (range, count) = self.range(page);
        let records = range.take(page.most()).cloned().collect();
        List::of(records, self.revision, count)
    }

    /// A page of the state as it was at `revision`: today's, with later changes undone.
    pub(crate) fn list_at(&self, page: &Page<'_>, revision: Revision) -> Result<List> {
        if revision == self.revision {
            return Ok(self.list(page));
        }
        // The first change of a key after the revision tells what was there.
        let mut then: BTreeMap<&str, Option<&Record>> = BTreeMap::new();
        for change in self.history.after(revision)? {
            let key = change.key();
            let past_start = page.start_after.is_none_or(|start| key > start);
            if past_start && key.starts_with(page.prefix) {
                then.entry(key).or_insert(change.previous());
            }
        }
        let (now, count) = self.range(page);
        // Each of these is there now, or was there then, or both.
        let there = then.keys().filter(|key| self.objects.get(key).is_some());
        let count = count - there.count() + then.values().flatten().count();
        let unchanged = now.filter(|record| !then.contains_key(record.key()));
        let restored = then.values().filter_map(|previous| *previous);
        let merged = Merge {
            left: unchanged.peekable(),
            right: restored.peekable(),
        };
        let records = merged.take(page.most()).cloned().collect();
        Ok(List::of(records, revision, count))
    }

    /// What there is now from where a page begins to the end of its prefix, and how many.
    fn range<'a>(&'a self, page: &Page<'_>) -> (impl Iterator<Item = &'a Record> + use<'a>, usize) {
        let Page { prefix, .. } = *page;
        let begin = match page.start_after {
            Some(start) if start >= prefix => self.objects.place(|key| key <= start),
            _ => self.objects.place(|key| key < prefix),
        };
        let within = |key: &str| key < prefix || key.starts_with(prefix);
        let end = self.objects.place(within);
        let count = self
            .objects
            .rank(end)
            .saturating_sub(self.objects.rank(begin));
        (self.objects.from(begin).take(count), count)
    }

    /// The changes after `from` to keys that begin with `prefix`.
    pub(crate) fn changes(&self, prefix: &str, from: Revision) -> Result<VecDeque<Arc<Change>>> {
        let changes = self.history.after(from)?;
        Ok(changes
            .into_iter()
            .filter(|change| change.key().starts_with(prefix))
            .cloned()
            .collect())
    }
}

/// The record that is to be changed, if it is there and as the precondition wants it.
fn admitted<'a>(
    key: &str,
    current: Option<&'a Record>,
    precondition: &Precondition,
) -> Result<&'a Record> {
    let Some(current) = current else {
        return Err(Error::NotFound(key.to_owned()));
    };
    let uid = precondition.uid.as_ref();
    let fits = uid.is_none_or(|uid| *uid == current.value().uid())
        && precondition
            .revision
            .is_none_or(|revision| revision == current.revision());
    if fits {
        return Ok(current);
    }
    Err(Error::Conflict {
        key: key.to_owned(),
        current: Box::new(current.clone()),
    })
}

/// Two sequences of records in key order, as one.
struct Merge<L: Iterator, R: Iterator> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<'a, L, R> Iterator for Merge<L, R>
where
    L: Iterator<Item = &'a Record>,
    R: Iterator<Item = &'a Record>,
{
    type Item = &'a Record;

    fn next(&mut self) -> Option<&'a Record> {
        match (self.left.peek(), self.right.peek()) {
            (Some(left), Some(right)) if right.key() < left.key() => self.right.next(),
            (Some(_), _) => self.left.next(),
            (None, _) => self.right.next(),
        }
    }
}

#[cfg(test)]
mod tests;
