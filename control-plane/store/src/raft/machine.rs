//! Raft's state machine: committed entries go to the replica, and outcomes to who waits for them.
//!
//! What is on disk of it is the [`Base`], which lags behind; the [`super::checkpoint`] moves it
//! on. After a start openraft applies the log's entries after the base again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::storage::RaftStateMachine;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StorageIOError,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::base::{Base, Image};
use super::proposals::Waiters;
use super::reserve::Reserve;
use super::types::{Entry, EntryId, Membership, TypeConfig, position};
use crate::replica::Replica;
use crate::state::{Limits, State};

type Result<T> = std::result::Result<T, StorageError<u64>>;

/// What the machine shares with the rest of the store.
pub(super) struct Shared {
    pub(super) node: u64,
    pub(super) replica: Arc<Replica>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) base: Arc<Base>,
    pub(super) limits: Limits,
    /// The entry that was applied last.
    pub(super) applied: watch::Sender<Option<EntryId>>,
    /// Told when the history begins to hold more than it need, when it holds more than it may,
    /// and when the disk is full.
    pub(super) heavy: Notify,
    /// Whether this node is the only voter: what it acknowledged is all there is.
    pub(super) alone: AtomicBool,
    /// The last entry that the log had when it was opened.
    pub(super) known: Option<u64>,
    pub(super) memberships: Mutex<Memberships>,
    pub(super) reserve: Reserve,
}

/// The membership that holds now, and those that the base has yet to reach.
pub(super) struct Memberships {
    pub(super) current: Membership,
    pub(super) base: Membership,
    pub(super) ahead: VecDeque<Membership>,
}

impl Memberships {
    pub(super) fn new(base: Membership) -> Self {
        Self {
            current: base.clone(),
            base,
            ahead: VecDeque::new(),
        }
    }

    /// The membership that holds at an entry, which the base is about to reach.
    pub(super) fn reach(&mut self, index: u64) -> Membership {
        while let Some(next) = self.ahead.front()
            && next.log_id().is_none_or(|id| id.index <= index)
        {
            self.base = next.clone();
            self.ahead.pop_front();
        }
        self.base.clone()
    }
}

impl Shared {
    fn apply(&self, entry: &Entry) {
        let position = position(entry.log_id);
        match &entry.payload {
            EntryPayload::Normal(batch) => {
                let requests = &batch.0.requests;
                let applied = self.replica.apply(position, batch.0.time, requests);
                self.waiters.settle(requests, applied.outcomes);
            }
            EntryPayload::Membership(membership) => {
                self.replica.apply(position, 0, &[]);
                let membership = Membership::new(Some(entry.log_id), membership.clone());
                let mut memberships = self.memberships.lock();
                memberships.ahead.push_back(membership.clone());
                memberships.current = membership;
                drop(memberships);
                self.note_alone(entry.log_id.index);
            }
            EntryPayload::Blank => {
                self.replica.apply(position, 0, &[]);
            }
        }
    }

    /// Notes whether this node is the only voter, now that so much is applied.
    fn note_alone(&self, index: u64) {
        // While the log of an earlier run is applied again, what holds may be further on in it.
        let current = self.known.is_none_or(|known| index >= known);
        let alone = current && self.memberships.lock().current.voter_ids().eq([self.node]);
        self.alone.store(alone, Ordering::Release);
    }
}

/// The state machine as openraft sees it.
pub(super) struct Machine {
    pub(super) shared: Arc<Shared>,
    /// Whether raft runs: until then it looks at what the snapshot is called, and no further.
    pub(super) running: Arc<AtomicBool>,
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<EntryId>, Membership)> {
        let applied = *self.shared.applied.borrow();
        Ok((applied, self.shared.memberships.lock().current.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut results = Vec::new();
        let mut last = None;
        let before = self.shared.replica.history_bytes();
        for entry in entries {
            self.shared.apply(&entry);
            last = Some(entry.log_id);
            results.push(());
        }
        if let Some(last) = &last {
            self.shared.note_alone(last.index);
            self.shared.applied.send_replace(Some(*last));
        }
        let (after, limits) = (self.shared.replica.history_bytes(), self.shared.limits);
        let begins = before <= limits.kept_bytes && after > limits.kept_bytes;
        if begins || after > limits.most_bytes {
            self.shared.heavy.notify_one();
        }
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            base: self.shared.base.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::BasicNode>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<()> {
        let base = self.shared.base.clone();
        let imported = tokio::task::spawn_blocking(move || base.import(&snapshot)).await;
        let failed = |error| StorageIOError::write_snapshot(Some(meta.signature()), error);
        let imported = imported.map_err(|error| failed(openraft::AnyError::new(&error)))?;
        let (image, objects): Image =
            imported.map_err(|error| failed(openraft::AnyError::new(&error)))?;
        let limits = self.shared.limits;
        let state = State::restore(image.revision, objects, image.sessions, limits);
        self.shared.replica.replace(state);
        *self.shared.memberships.lock() = Memberships::new(image.membership.clone());
        self.shared
            .note_alone(image.applied.map_or(0, |id| id.index));
        self.shared.applied.send_replace(image.applied);
        // Whether what waits is among what the snapshot skipped, nobody knows.
        self.shared
            .waiters
            .abandon("the store caught up from a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>> {
        if !self.running.load(Ordering::Acquire) {
            let (applied, membership) = self.shared.base.durable();
            return Ok(applied.map(|applied| snapshot(applied, membership, Vec::new())));
        }
        let base = self.shared.base.clone();
        let exported = tokio::task::spawn_blocking(move || base.export()).await;
        let exported = exported.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        let (meta, bytes) =
            exported.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        Ok(meta
            .applied
            .map(|applied| snapshot(applied, meta.membership, bytes)))
    }
}

/// Names what is durable in the base: that is all that a snapshot takes.
pub(super) struct Builder {
    base: Arc<Base>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>> {
        let (applied, membership) = self.base.durable();
        let Some(applied) = applied else {
            let error = std::io::Error::other("nothing has been applied yet");
            return Err(StorageIOError::read_snapshot(None, &error).into());
        };
        Ok(snapshot(applied, membership, Vec::new()))
    }
}

fn snapshot(applied: EntryId, membership: Membership, bytes: Vec<u8>) -> Snapshot<TypeConfig> {
    let meta = SnapshotMeta {
        last_log_id: Some(applied),
        last_membership: membership,
        snapshot_id: applied.to_string(),
    };
    Snapshot {
        meta,
        snapshot: Box::new(bytes),
    }
}
