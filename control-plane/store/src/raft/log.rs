//! Raft's log storage over the write-ahead log.
//!
//! What is not purged is also in memory: the entries share their values with the state and its
//! history, which retain about the same span. The write-ahead log is never read while it runs.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::types::{Entry, EntryId, TypeConfig, decode_entry, encode_entry, entry_id, position};
use crate::codec::Malformed;
use crate::wal::{AppendError, Contents, Record, Wal};

type Result<T> = std::result::Result<T, StorageError<u64>>;

/// Bytes that are read for a peer at once.
const READ: usize = 4 << 20;

/// A handle on the log; clones share it.
#[derive(Clone)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    wal: Arc<Wal>,
    log: RwLock<Log>,
}

struct Log {
    vote: Option<Vote<u64>>,
    purged: Option<EntryId>,
    committed: Option<EntryId>,
    /// Whether `committed` is in the write-ahead log too. It goes there with the next entry.
    committed_written: bool,
    entries: VecDeque<Entry>,
}

impl LogStore {
    pub(super) fn new(wal: Arc<Wal>, contents: Contents) -> std::result::Result<Self, Malformed> {
        let entries = contents.entries.into_iter();
        let entries = entries.map(|(position, payload)| decode_entry(position, &payload));
        let log = Log {
            vote: contents.vote.map(Into::into),
            purged: contents.purged.map(entry_id),
            committed: contents.committed.map(entry_id),
            committed_written: true,
            entries: entries.collect::<std::result::Result<_, _>>()?,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                wal,
                log: RwLock::new(log),
            }),
        })
    }

    /// Appends records and waits until they are durable.
    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let done = Box::new(move |result: std::result::Result<(), AppendError>| {
            // The core that asked may have been shut down.
            let _ = done.send(result);
        });
        self.shared.wal.append(records, done);
        match written.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the log is closed")),
        }
    }
}

impl Log {
    fn first_index(&self) -> u64 {
        self.entries.front().map_or(0, |first| first.log_id.index)
    }

    fn range(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = &Entry> {
        let first = self.first_index();
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let place = |index: u64| {
            let place = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
            place.min(self.entries.len())
        };
        let (start, end) = (place(start), place(end));
        self.entries.range(start..end.max(start))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>> {
        Ok(self.shared.log.read().range(range).cloned().collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>> {
        let log = self.shared.log.read();
        let mut taken = 0;
        let entries = log.range(start..end).take_while(|entry| {
            let first = taken == 0;
            taken += weight(entry);
            first || taken <= READ
        });
        Ok(entries.cloned().collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>> {
        let log = self.shared.log.read();
        let last = log.entries.back().map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: last.or(log.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<()> {
        let written = self.write(vec![Record::Vote(vote.into())]).await;
        written.map_err(|error| StorageIOError::write_vote(&error))?;
        self.shared.log.write().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>> {
        Ok(self.shared.log.read().vote)
    }

    async fn save_committed(&mut self, committed: Option<EntryId>) -> Result<()> {
        let mut log = self.shared.log.write();
        log.committed = committed;
        log.committed_written = false;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<EntryId>> {
        let log = self.shared.log.read();
        // A crash may have kept the word and lost entries that were never acknowledged.
        let last = log.entries.back().map(|entry| entry.log_id).or(log.purged);
        Ok(log.committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut log = self.shared.log.write();
            if !log.committed_written {
                records.extend(log.committed.map(|id| Record::Committed(position(id))));
                log.committed_written = true;
            }
            for entry in entries {
                let record = encode_entry(&entry);
                records.push(record.map_err(|error| StorageIOError::write_logs(&error))?);
                log.entries.push_back(entry);
            }
        }
        let done = move |result: std::result::Result<(), AppendError>| {
            callback.log_io_completed(result.map_err(io::Error::other));
        };
        self.shared.wal.append(records, Box::new(done));
        Ok(())
    }

    async fn truncate(&mut self, since: EntryId) -> Result<()> {
        let written = self.write(vec![Record::Truncate(since.index)]).await;
        written.map_err(|error| StorageIOError::write_logs(&error))?;
        let mut log = self.shared.log.write();
        while log
            .entries
            .back()
            .is_some_and(|last| last.log_id.index >= since.index)
        {
            log.entries.pop_back();
        }
        Ok(())
    }

    async fn purge(&mut self, upto: EntryId) -> Result<()> {
        let written = self.write(vec![Record::Purge(position(upto))]).await;
        written.map_err(|error| StorageIOError::write_logs(&error))?;
        let mut log = self.shared.log.write();
        while log
            .entries
            .front()
            .is_some_and(|first| first.log_id.index <= upto.index)
        {
            log.entries.pop_front();
        }
        log.purged = log.purged.max(Some(upto));
        Ok(())
    }
}

fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(batch) => {
            64 + batch
                .0
                .requests
                .iter()
                .map(|request| request.command.weight())
                .sum::<usize>()
        }
        _ => 64,
    }
}
