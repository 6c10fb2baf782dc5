//! The replicated store: openraft over the write-ahead log and sled.
//!
//! A mutation goes through [`proposals`] into the log ([`log`], durable in [`crate::wal`]), is
//! committed by openraft, and applied to the replica ([`machine`]); what the history no longer
//! retains moves on to sled ([`base`], driven by [`checkpoint`]), and the log is purged behind
//! it. Linearizable reads go through [`reads`]. Members reach each other through a [`Transport`].
//!
//! [`RaftStore`] owns every task and thread of this; [`RaftStore::shutdown`] ends them.
//!
//! **Invariant**: the log is purged only up to what sled has flushed and fdatasync'd.
//!
//! Deliberately absent: transports over a real network, and who may be a member.

mod base;
mod checkpoint;
mod log;
mod machine;
mod network;
mod open;
mod proposals;
mod reads;
mod reserve;
mod types;

use std::sync::Arc;

use async_trait::async_trait;
use openraft::{Raft, Snapshot};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use network::{Message, NoTransport, Refusal, Reply, Transport, TransportError};
pub use open::{OpenError, RaftConfig, Timing};
pub use types::{Batch, TypeConfig};

use crate::command::Command;
use crate::memory::check_size;
use crate::types::{
    List, ListOptions, Precondition, Read, Record, Result, Revision, Store, Value, Watch,
};
use crate::wal::Wal;
use machine::Shared;
use proposals::Proposals;
use reads::Reads;

/// A [`Store`] that is durable and replicated.
pub struct RaftStore {
    shared: Arc<Shared>,
    raft: Raft<TypeConfig>,
    wal: Arc<Wal>,
    proposals: Proposals,
    reads: Reads,
    cancelled: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    /// Held while the store is open: the data directory is ours alone.
    _lock: std::fs::File,
}

impl RaftStore {
    /// Answers another member. What a [`Transport`] carries to this one comes in here.
    ///
    /// # Errors
    /// Where raft has stopped here.
    pub async fn handle(&self, message: Message) -> std::result::Result<Reply, TransportError> {
        let node = self.shared.node;
        let failed =
            |error: &dyn std::fmt::Display| TransportError::Failed(node, error.to_string());
        Ok(match message {
            Message::Append(request) => {
                let response = self.raft.append_entries(request).await;
                Reply::Append(response.map_err(|error| failed(&error))?)
            }
            Message::Vote(request) => {
                let response = self.raft.vote(request).await;
                Reply::Vote(response.map_err(|error| failed(&error))?)
            }
            Message::Snapshot { vote, meta, bytes } => {
                let snapshot = Snapshot {
                    meta,
                    snapshot: Box::new(bytes),
                };
                let response = self.raft.install_full_snapshot(vote, snapshot).await;
                Reply::Snapshot(response.map_err(|error| failed(&error))?)
            }
            Message::Propose(batch) => Reply::Proposed(self.proposals.forwarded(batch).await),
            Message::ReadIndex => {
                Reply::ReadIndex(reads::read_index(&self.raft).await.map_err(|(why, _)| why))
            }
        })
    }

    /// Whether this member leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.shared.node)
    }

    /// The member that leads, as far as this one knows.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow().current_leader
    }

    /// The index of the newest log entry that was purged.
    #[must_use]
    pub fn purged(&self) -> Option<u64> {
        self.raft.metrics().borrow().purged.map(|id| id.index)
    }

    /// Ends every task and thread; what was acknowledged is durable. Calls that wait end with
    /// [`crate::Error::Unavailable`].
    pub async fn shutdown(&self) {
        self.cancelled.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
        self.shared.waiters.abandon("the store is shutting down");
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end cleanly");
        }
        let wal = self.wal.clone();
        // Joins the log's threads.
        let closed = tokio::task::spawn_blocking(move || wal.close()).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the log did not close cleanly");
        }
    }

    async fn fresh(&self, read: Read) -> Result<()> {
        match read {
            Read::Latest => self.reads.latest().await,
            Read::AtLeast(_) | Read::Exact(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn create(&self, key: &str, value: Value) -> Result<Record> {
        check_size(&value)?;
        let draft = Record::draft(key, value.get());
        self.proposals.propose(Command::Create(draft)).await
    }

    async fn get(&self, key: &str, read: Read) -> Result<Option<Record>> {
        self.fresh(read).await?;
        self.shared.replica.get(key, read).await
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<List> {
        self.fresh(options.read).await?;
        self.shared.replica.list(prefix, &options).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        precondition: Precondition,
        value: Value,
    ) -> Result<Record> {
        check_size(&value)?;
        let command = Command::Swap(precondition, Record::draft(key, value.get()));
        self.proposals.propose(command).await
    }

    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Record> {
        let command = Command::Delete(precondition, key.into());
        self.proposals.propose(command).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.shared.replica.watch(prefix, from).await
    }

    fn revision(&self) -> Revision {
        self.shared.replica.revision()
    }
}
