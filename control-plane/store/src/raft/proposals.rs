//! From a command to its outcome: numbered, batched, proposed, applied here.
//!
//! A request is answered when this process has applied it itself, wherever the leader is: so
//! who wrote also reads what it wrote. Requests that wait are in the [`Waiters`], keyed by their
//! sequence number; the batcher turns those that queue into one log entry, on the leader by
//! itself, elsewhere by sending them there. As a request that arrives twice is applied once, what
//! got no answer is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::Shared;
use super::network::{Message, Peers, Refusal, Reply};
use super::types::{Batch, TypeConfig};
use crate::command::{Command, Request, RequestId};
use crate::memory::unix_millis;
use crate::state::Change;
use crate::types::{Error, Record, Result};
use crate::wal::{Space, Wal};

/// Requests of one log entry, at most.
const BATCH: usize = 512;

/// Requests that wait for the batcher; more wait at its door.
const QUEUE: usize = 1024;

/// How long a request is tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries of what found no leader.
const PAUSE: Duration = Duration::from_millis(50);

/// Requests of this process that have no outcome yet.
pub(super) struct Waiters {
    session: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    senders: BTreeMap<u64, oneshot::Sender<Result<Arc<Change>>>>,
}

impl Waiters {
    /// `session` is drawn at random.
    pub(super) fn new(session: u64) -> Self {
        Self {
            session,
            waiting: Mutex::default(),
        }
    }

    fn enter(&self) -> (u64, oneshot::Receiver<Result<Arc<Change>>>) {
        let (sender, outcome) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.last += 1;
        let sequence = waiting.last;
        waiting.senders.insert(sequence, sender);
        (sequence, outcome)
    }

    fn leave(&self, sequence: u64) {
        self.waiting.lock().senders.remove(&sequence);
    }

    /// The request's id, as long as somebody waits for it.
    fn id(&self, sequence: u64) -> Option<RequestId> {
        let waiting = self.waiting.lock();
        let settled = *waiting.senders.first_key_value()?.0;
        let waits = waiting.senders.contains_key(&sequence);
        waits.then_some(RequestId {
            session: self.session,
            sequence,
            settled,
        })
    }

    /// Hands outcomes to those of the requests that came from here.
    pub(super) fn settle(&self, requests: &[Request], outcomes: Vec<Option<Result<Arc<Change>>>>) {
        let mut waiting = self.waiting.lock();
        for (request, outcome) in requests.iter().zip(outcomes) {
            if request.id.session == self.session
                && let Some(outcome) = outcome
                && let Some(sender) = waiting.senders.remove(&request.id.sequence)
            {
                // Who asked may have gone.
                let _ = sender.send(outcome);
            }
        }
    }

    /// Tells those who asked for these that the disk is full.
    fn refuse(&self, requests: &[(u64, Command)], why: &str) {
        let mut waiting = self.waiting.lock();
        for (sequence, _) in requests {
            if let Some(sender) = waiting.senders.remove(sequence) {
                let _ = sender.send(Err(Error::Full(why.to_owned())));
            }
        }
    }

    /// Tells everybody that their outcome will not be known.
    pub(super) fn abandon(&self, why: &str) {
        let senders = std::mem::take(&mut self.waiting.lock().senders);
        for sender in senders.into_values() {
            let _ = sender.send(Err(Error::Unavailable(why.to_owned())));
        }
    }
}

/// Leaves when the future that waits is dropped.
struct Leaving<'a>(&'a Waiters, u64);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// What queues for the batcher.
pub(super) enum Queued {
    Own {
        sequence: u64,
        command: Command,
    },
    /// From a node that is not the leader; it is told when they are committed.
    Forwarded {
        batch: Batch,
        reply: oneshot::Sender<std::result::Result<(), Refusal>>,
    },
}

/// The door to the batcher.
pub(super) struct Proposals {
    shared: Arc<Shared>,
    wal: Arc<Wal>,
    queue: mpsc::Sender<Queued>,
}

impl Proposals {
    /// The door, and what goes through it.
    pub(super) fn new(shared: Arc<Shared>, wal: Arc<Wal>) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, queued) = mpsc::channel(QUEUE);
        (Self { shared, wal, queue }, queued)
    }

    /// Has a command applied; returns what came of it.
    pub(super) async fn propose(&self, command: Command) -> Result<Record> {
        self.admit(&command)?;
        let waiters = &self.shared.waiters;
        let (sequence, outcome) = waiters.enter();
        let _leaving = Leaving(waiters, sequence);
        let proposed = async {
            let queued = Queued::Own { sequence, command };
            let closed = |_| Error::Unavailable("the store is shutting down".to_owned());
            self.queue.send(queued).await.map_err(closed)?;
            outcome.await.unwrap_or_else(|_| {
                Err(Error::Unavailable("the store is shutting down".to_owned()))
            })
        };
        match tokio::time::timeout(PATIENCE, proposed).await {
            Ok(outcome) => outcome.map(|change| change.outcome()),
            Err(_) => {
                let message = format!("no quorum answered within {} s", PATIENCE.as_secs());
                Err(Error::Unavailable(message))
            }
        }
    }

    /// Refuses what the disk has no space for.
    fn admit(&self, command: &Command) -> Result<()> {
        let (size, limit) = (command.weight(), self.wal.room());
        if size > limit {
            return Err(Error::TooLarge { size, limit });
        }
        let (why, exhausted) = match (self.wal.space(), self.shared.reserve.missing()) {
            (Space::Free, None) => return Ok(()),
            (Space::Free, Some(why)) | (Space::Full(why), _) => (why, false),
            (Space::Exhausted(why), _) => (why, true),
        };
        // Perhaps there is space again: the checkpoint finds out.
        self.shared.heavy.notify_one();
        if command.frees() && !exhausted {
            Ok(())
        } else {
            Err(Error::Full(why))
        }
    }

    /// Has a batch of another node's committed.
    pub(super) async fn forwarded(&self, batch: Batch) -> std::result::Result<(), Refusal> {
        for request in &batch.0.requests {
            if let Err(Error::Full(why)) = self.admit(&request.command) {
                return Err(Refusal::Full(why));
            }
        }
        let (reply, committed) = oneshot::channel();
        let queued = Queued::Forwarded { batch, reply };
        let sent = self.queue.send(queued).await;
        sent.map_err(|_| Refusal::Stopping)?;
        committed.await.unwrap_or(Err(Refusal::Stopping))
    }
}

/// Turns what queues into log entries, one after another.
pub(super) struct Batcher {
    pub(super) shared: Arc<Shared>,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) peers: Arc<Peers>,
    pub(super) queued: mpsc::Receiver<Queued>,
    /// Bytes of one log entry, at most; a single larger request still goes.
    pub(super) batch_bytes: usize,
}

impl Batcher {
    pub(super) async fn run(mut self, cancelled: CancellationToken) {
        let mut taken = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                count = self.queued.recv_many(&mut taken, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
            }
            let mut batch = Vec::new();
            let mut bytes = 0;
            for queued in taken.drain(..) {
                let weight = queued.weight();
                if bytes + weight > self.batch_bytes && !batch.is_empty() {
                    let full = std::mem::take(&mut batch);
                    bytes = 0;
                    tokio::select! {
                        () = cancelled.cancelled() => return,
                        () = self.commit(full) => {}
                    }
                }
                bytes += weight;
                batch.push(queued);
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = self.commit(batch) => {}
            }
        }
    }

    /// Commits a batch, here or through the leader, or gives it up.
    async fn commit(&self, batch: Vec<Queued>) {
        let deadline = Instant::now() + PATIENCE;
        self.shared
            .replica
            .drained(self.shared.limits.most_bytes * 2, deadline)
            .await;
        let mut own = Vec::new();
        let mut others = Vec::new();
        let mut replies = Vec::new();
        for queued in batch {
            match queued {
                Queued::Own { sequence, command } => own.push((sequence, command)),
                Queued::Forwarded { batch, reply } => {
                    others.extend(batch.0.requests.iter().cloned());
                    replies.push(reply);
                }
            }
        }
        loop {
            let mine = self.requests(&own);
            let all: Vec<_> = mine.iter().cloned().chain(others.drain(..)).collect();
            if all.is_empty() {
                return;
            }
            let batch = Batch::new(unix_millis(), all);
            let (reply, leader) = match self.raft.client_write(batch).await {
                Ok(_) => (Ok(()), None),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                    (Err(Refusal::NotLeader), to.leader_id)
                }
                Err(error) => {
                    self.shared
                        .waiters
                        .abandon(&format!("raft stopped: {error}"));
                    (Err(Refusal::Stopping), None)
                }
            };
            // What another node forwarded goes back to it: it knows better whom to ask.
            for sender in replies.drain(..) {
                let _ = sender.send(reply.clone());
            }
            if reply != Err(Refusal::NotLeader) {
                return;
            }
            let node = self.shared.node;
            if let Some(leader) = leader.filter(|leader| *leader != node) {
                match self.forward(leader, mine).await {
                    Ok(()) => return,
                    Err(Some(Refusal::Full(why))) => {
                        let (free, take): (Vec<_>, Vec<_>) =
                            own.into_iter().partition(|(_, command)| command.frees());
                        own = free;
                        self.shared.waiters.refuse(&take, &why);
                    }
                    Err(_) => {}
                }
            }
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Those that somebody waits for. Of the others, what they asked for may have happened.
    fn requests(&self, own: &[(u64, Command)]) -> Vec<Request> {
        let requests = own.iter().filter_map(|(sequence, command)| {
            let id = self.shared.waiters.id(*sequence)?;
            let command = command.clone();
            Some(Request { id, command })
        });
        requests.collect()
    }

    /// Sends requests to the leader; fails with its refusal, or none where there is no answer.
    async fn forward(
        &self,
        leader: u64,
        mine: Vec<Request>,
    ) -> std::result::Result<(), Option<Refusal>> {
        let message = Message::Propose(Batch::new(unix_millis(), mine));
        match self.peers.call(leader, message).await {
            Ok(Reply::Proposed(answer)) => answer.map_err(Some),
            Ok(_) | Err(_) => Err(None),
        }
    }
}

impl Queued {
    fn weight(&self) -> usize {
        match self {
            Self::Own { command, .. } => command.weight(),
            Self::Forwarded { batch, .. } => batch
                .0
                .requests
                .iter()
                .map(|request| request.command.weight())
                .sum(),
        }
    }
}
