//! Recent changes with what they replaced, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::command::RequestId;
use crate::encodings::Encodings;
use crate::types::{Error, Event, Record, Result, Revision};

/// Where in the log an entry stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) index: u64,
}

/// One mutation.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) effect: Effect,
}

/// What a mutation did.
#[derive(Debug)]
pub(crate) enum Effect {
    Put {
        record: Record,
        previous: Option<Record>,
    },
    Delete {
        previous: Record,
    },
}

/// The changes of one log entry.
pub(crate) struct Group {
    pub(crate) position: Position,
    /// Of the key space after this entry.
    pub(crate) revision: Revision,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) requests: Vec<RequestId>,
    pub(crate) changes: Vec<Arc<Change>>,
}

/// How much history is retained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Up to this many bytes are kept whatever their age.
    pub(crate) kept_bytes: usize,
    /// Beyond `kept_bytes`, what is younger than this many milliseconds is kept …
    pub(crate) kept_millis: u64,
    /// … unless it takes the whole to more than this.
    pub(crate) most_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Five minutes is what etcd's compaction leaves to the clients of Kubernetes.
        Self {
            kept_bytes: 8 << 20,
            kept_millis: 5 * 60 * 1000,
            most_bytes: 64 << 20,
        }
    }
}

/// The ring of changes.
pub(crate) struct History {
    groups: VecDeque<Group>,
    bytes: usize,
    /// The revision just before the oldest change.
    floor: Revision,
    limits: Limits,
}

impl History {
    pub(super) fn new(floor: Revision, limits: Limits) -> Self {
        Self {
            groups: VecDeque::new(),
            bytes: 0,
            floor,
            limits,
        }
    }

    pub(super) fn push(&mut self, group: Group) {
        self.bytes += group.weight();
        self.groups.push_back(group);
    }

    /// The oldest revision that can be watched from or listed.
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    /// Bytes that the ring holds, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes the oldest groups that the limits no longer keep, but not many more than
    /// `at_most` bytes of them.
    pub(crate) fn evict(&mut self, now: u64, at_most: usize) -> Vec<Group> {
        let limits = self.limits;
        self.evict_while(at_most, |bytes, oldest| {
            let old = oldest.time.saturating_add(limits.kept_millis) <= now;
            bytes > limits.most_bytes || (bytes > limits.kept_bytes && old)
        })
    }

    /// Removes the oldest groups whatever the limits keep: space is wanted.
    pub(crate) fn evict_all(&mut self, at_most: usize) -> Vec<Group> {
        self.evict_while(at_most, |_, _| true)
    }

    fn evict_while(
        &mut self,
        at_most: usize,
        mut evictable: impl FnMut(usize, &Group) -> bool,
    ) -> Vec<Group> {
        let mut evicted = Vec::new();
        let mut taken = 0;
        while taken < at_most
            && let Some(oldest) = self.groups.front()
            && evictable(self.bytes, oldest)
            && let Some(group) = self.groups.pop_front()
        {
            let weight = group.weight();
            self.bytes -= weight;
            taken += weight;
            self.floor = group.revision;
            evicted.push(group);
        }
        evicted
    }

    /// The changes after `revision`, oldest first.
    pub(super) fn after(&self, revision: Revision) -> Result<Vec<&Arc<Change>>> {
        if revision < self.floor {
            return Err(Error::Expired {
                requested: revision,
                oldest: self.floor,
            });
        }
        let first = self
            .groups
            .partition_point(|group| group.revision <= revision);
        let changes = self.groups.range(first..).flat_map(|group| &group.changes);
        Ok(changes
            .filter(|change| change.revision > revision)
            .collect())
    }
}

impl Group {
    fn weight(&self) -> usize {
        let changes: usize = self.changes.iter().map(|change| change.weight()).sum();
        changes + self.requests.len() * size_of::<RequestId>() + 64
    }
}

impl Change {
    pub(crate) fn key(&self) -> &str {
        match &self.effect {
            Effect::Put { record, .. } => record.key(),
            Effect::Delete { previous } => previous.key(),
        }
    }

    /// What was there before.
    pub(super) fn previous(&self) -> Option<&Record> {
        match &self.effect {
            Effect::Put { previous, .. } => previous.as_ref(),
            Effect::Delete { previous } => Some(previous),
        }
    }

    /// What the caller of the mutation is told. Of a removal that is a copy of the object: it is
    /// made for the one who asked, and under no lock.
    pub(crate) fn outcome(&self) -> Record {
        match &self.effect {
            Effect::Put { record, .. } => record.clone(),
            Effect::Delete { previous } => previous.at(self.revision),
        }
    }

    /// The change as a watch tells it.
    pub(crate) fn event(&self, encodings: Encodings) -> Event {
        match &self.effect {
            Effect::Put { record, previous } => Event::Put {
                record: record.clone(),
                previous: previous.clone(),
                encodings,
            },
            Effect::Delete { previous } => Event::Delete {
                previous: previous.clone(),
                revision: self.revision,
                encodings,
            },
        }
    }

    fn weight(&self) -> usize {
        let current = match &self.effect {
            Effect::Put { record, .. } => record.weight(),
            Effect::Delete { .. } => 0,
        };
        let previous = self.previous().map_or(0, Record::weight);
        current + previous + 96
    }
}
