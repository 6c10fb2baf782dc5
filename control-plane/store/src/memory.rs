//! The store without a disk: for tests of what stands on the store.
//!
//! It shares the state machine, the history and the watches with the raft store; what it lacks
//! is durability and peers. Nothing in it waits, but for a revision that has not come yet.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::MAX_VALUE_BYTES;
use crate::command::{Command, Request, RequestId};
use crate::replica::Replica;
use crate::state::{Change, Limits, Position, State};
use crate::types::{
    Error, List, ListOptions, Precondition, Read, Record, Result, Revision, Store, Value, Watch,
};

/// A [`Store`] in memory.
pub struct MemoryStore {
    replica: Arc<Replica>,
    /// Entries applied so far; held while one is, so that they are in order.
    applied: Mutex<u64>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_limits(Limits::default())
    }

    /// An empty store that retains history up to `bytes`, whatever its age, and no more.
    #[must_use]
    pub fn with_history(bytes: usize) -> Arc<Self> {
        Self::with_limits(Limits {
            kept_bytes: bytes,
            kept_millis: 0,
            most_bytes: bytes,
        })
    }

    fn with_limits(limits: Limits) -> Arc<Self> {
        let replica = Arc::new(Replica::new(State::new(limits)));
        Arc::new(Self {
            replica,
            applied: Mutex::new(0),
        })
    }

    fn apply(&self, command: Command) -> Result<Record> {
        let change = self.change(command)?;
        Ok(change.outcome())
    }

    fn change(&self, command: Command) -> Result<Arc<Change>> {
        let mut applied = self.applied.lock();
        *applied += 1;
        let index = *applied;
        let id = RequestId {
            session: 0,
            sequence: index,
            settled: index,
        };
        let now = unix_millis();
        let position = Position {
            term: 0,
            leader: 0,
            index,
        };
        let outcome = self
            .replica
            .apply(position, now, &[Request { id, command }])
            .outcomes
            .pop();
        self.replica.evict(now, usize::MAX);
        // Sequence numbers are handed out under the lock, each once.
        outcome
            .flatten()
            .unwrap_or_else(|| Err(Error::Unavailable("applied before".to_owned())))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, key: &str, value: Value) -> Result<Record> {
        check_size(&value)?;
        self.apply(Command::Create(Record::draft(key, value.get())))
    }

    async fn get(&self, key: &str, read: Read) -> Result<Option<Record>> {
        self.replica.get(key, read).await
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<List> {
        self.replica.list(prefix, &options).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        precondition: Precondition,
        value: Value,
    ) -> Result<Record> {
        check_size(&value)?;
        let draft = Record::draft(key, value.get());
        self.apply(Command::Swap(precondition, draft))
    }

    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Record> {
        self.apply(Command::Delete(precondition, key.into()))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.replica.watch(prefix, from).await
    }

    fn revision(&self) -> Revision {
        self.replica.revision()
    }
}

/// Refuses a value that is too large.
pub(crate) fn check_size(value: &Value) -> Result<()> {
    let size = value.get().json().len();
    if size > MAX_VALUE_BYTES {
        return Err(Error::TooLarge {
            size,
            limit: MAX_VALUE_BYTES,
        });
    }
    Ok(())
}

/// Milliseconds since 1970: the time that goes with a proposal.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
