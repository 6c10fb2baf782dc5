//! Linearizable reads: one quorum check for all that wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::Raft;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::Shared;
use super::network::{Message, Peers, Reply};
use super::types::TypeConfig;
use crate::types::{Error, Result};

/// Reads that one check may serve.
const BATCH: usize = 4096;

/// How long a read is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries of what found no leader.
const PAUSE: Duration = Duration::from_millis(50);

type Waiting = oneshot::Sender<Result<()>>;

/// The door to the checks.
pub(super) struct Reads {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Waiting>,
}

impl Reads {
    pub(super) fn new(shared: Arc<Shared>) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, queued) = mpsc::channel(BATCH);
        (Self { shared, queue }, queued)
    }

    /// Waits until everything that was acknowledged before the call is applied here.
    pub(super) async fn latest(&self) -> Result<()> {
        // The only voter acknowledges what it has itself applied. Before another voter can lead
        // without it, the membership that names that one has been applied here.
        if self.shared.alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let closed = || Error::Unavailable("the store is shutting down".to_owned());
        let (sender, checked) = oneshot::channel();
        self.queue.send(sender).await.map_err(|_| closed())?;
        checked.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Makes the checks, one at a time.
pub(super) struct Checker {
    pub(super) shared: Arc<Shared>,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) peers: Arc<Peers>,
    pub(super) queued: mpsc::Receiver<Waiting>,
}

impl Checker {
    pub(super) async fn run(mut self, cancelled: CancellationToken) {
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                count = self.queued.recv_many(&mut waiting, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            let checked = tokio::select! {
                () = cancelled.cancelled() => return,
                checked = self.check() => checked,
            };
            for sender in waiting.drain(..) {
                // Who asked may have gone.
                let _ = sender.send(checked.clone());
            }
        }
    }

    async fn check(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let why = match self.ask().await {
                Ok(index) => return self.applied(index, deadline).await,
                Err(why) => why,
            };
            if Instant::now() >= deadline {
                return Err(Error::Unavailable(why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self) -> std::result::Result<u64, String> {
        let leader = match read_index(&self.raft).await {
            Ok(index) => return Ok(index),
            Err((why, leader)) => leader
                .filter(|leader| *leader != self.shared.node)
                .ok_or(why)?,
        };
        match self.peers.call(leader, Message::ReadIndex).await {
            Ok(Reply::ReadIndex(index)) => index,
            Ok(_) => Err("an answer to another question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn applied(&self, index: u64, deadline: Instant) -> Result<()> {
        let mut applied = self.shared.applied.subscribe();
        let reached = applied.wait_for(|id| id.is_some_and(|id| id.index >= index));
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable(
                "this member is far behind the leader".to_owned(),
            )),
        }
    }
}

/// Asks a quorum whether this node leads, and what must be applied to have read everything.
/// Where it does not lead, the leader if there is one.
pub(super) async fn read_index(
    raft: &Raft<TypeConfig>,
) -> std::result::Result<u64, (String, Option<u64>)> {
    match raft.get_read_log_id().await {
        Ok((id, _)) => Ok(id.map_or(0, |id| id.index)),
        Err(error) => {
            let leader = match &error {
                RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)) => to.leader_id,
                _ => None,
            };
            Err((error.to_string(), leader))
        }
    }
}
