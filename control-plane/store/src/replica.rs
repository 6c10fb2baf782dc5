//! This process's copy of the state: the lock around it, waiting for it, reading it.
//!
//! Both stores own one. The memory store applies to it what it is asked; the raft store what
//! was committed. Deliberately absent: whether the copy is fresh enough for a linearizable read
//! is for its owner to find out before it reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::command::Request;
use crate::state::{Applied, Group, Page, Position, State};
use crate::subscription::Hub;
use crate::types::{Error, List, ListOptions, Read, Record, Result, Revision, Watch};

/// How long a read waits for a revision that has not come yet. The API server of Kubernetes
/// answers "Too large resource version" after the same time.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often watches without events are told that the revision advanced.
const PROGRESS: Duration = Duration::from_secs(1);

/// The state and those who wait for it.
pub(crate) struct Replica {
    inner: RwLock<Inner>,
    revision: watch::Sender<Revision>,
    progress: watch::Sender<Revision>,
    /// Told when history left.
    evicted: Notify,
    /// Publishes progress while there are watches; ended by drop.
    ticker: Mutex<Option<AbortHandle>>,
}

struct Inner {
    state: State,
    hub: Hub,
}

impl Replica {
    pub(crate) fn new(state: State) -> Self {
        let revision = state.revision();
        Self {
            inner: RwLock::new(Inner {
                state,
                hub: Hub::default(),
            }),
            revision: watch::Sender::new(revision),
            progress: watch::Sender::new(revision),
            evicted: Notify::new(),
            ticker: Mutex::new(None),
        }
    }

    /// The newest revision here.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Applies an entry and tells the watches. `time` as in [`State::apply`].
    pub(crate) fn apply(&self, position: Position, time: u64, requests: &[Request]) -> Applied {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let applied = inner.state.apply(position, time, requests);
        let floor = inner.state.history.floor();
        for change in &applied.changes {
            inner.hub.dispatch(change, floor);
        }
        if !applied.changes.is_empty() {
            self.revision.send_replace(inner.state.revision());
        }
        applied
    }

    /// Takes the oldest history that need not be kept; see [`crate::state::History::evict`].
    pub(crate) fn evict(&self, now: u64, at_most: usize) -> Vec<Group> {
        let evicted = self.inner.write().state.history.evict(now, at_most);
        self.evicted.notify_waiters();
        evicted
    }

    /// Takes the oldest history whatever its age.
    pub(crate) fn evict_all(&self, at_most: usize) -> Vec<Group> {
        let evicted = self.inner.write().state.history.evict_all(at_most);
        self.evicted.notify_waiters();
        evicted
    }

    /// Bytes of history.
    pub(crate) fn history_bytes(&self) -> usize {
        self.inner.read().state.history.bytes()
    }

    /// Waits until the history holds no more than so many bytes, or the deadline passes.
    pub(crate) async fn drained(&self, bytes: usize, deadline: Instant) {
        loop {
            let evicted = self.evicted.notified();
            if self.history_bytes() <= bytes {
                return;
            }
            if tokio::time::timeout_at(deadline, evicted).await.is_err() {
                return;
            }
        }
    }

    /// Takes another state in the place of this one. Watches are cut off: they missed what
    /// lies between the two.
    pub(crate) fn replace(&self, state: State) {
        let mut inner = self.inner.write();
        inner.hub.expire_all(state.history.floor());
        self.revision.send_replace(state.revision());
        inner.state = state;
    }

    /// Reads one object of what is here.
    pub(crate) async fn get(&self, key: &str, read: Read) -> Result<Option<Record>> {
        match read {
            Read::Latest => Ok(self.inner.read().state.get(key)),
            Read::AtLeast(revision) => {
                self.reach(revision).await?;
                Ok(self.inner.read().state.get(key))
            }
            Read::Exact(revision) => {
                self.reach(revision).await?;
                self.inner.read().state.get_at(key, revision)
            }
        }
    }

    /// Lists what is here.
    pub(crate) async fn list(&self, prefix: &str, options: &ListOptions) -> Result<List> {
        let start_after = options.start_after.as_deref();
        let page = Page {
            prefix,
            start_after,
            limit: options.limit,
        };
        match options.read {
            Read::Latest => Ok(self.inner.read().state.list(&page)),
            Read::AtLeast(revision) => {
                self.reach(revision).await?;
                Ok(self.inner.read().state.list(&page))
            }
            Read::Exact(revision) => {
                self.reach(revision).await?;
                self.inner.read().state.list_at(&page, revision)
            }
        }
    }

    /// Watches what is applied here.
    pub(crate) async fn watch(self: &Arc<Self>, prefix: &str, from: Revision) -> Result<Watch> {
        self.reach(from).await?;
        self.tick();
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let backlog: VecDeque<_> = inner.state.changes(prefix, from)?;
        let now = inner.state.revision();
        Ok(inner
            .hub
            .subscribe(prefix, backlog, now, self.progress.subscribe()))
    }

    async fn reach(&self, revision: Revision) -> Result<()> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut here = self.revision.subscribe();
        let reached = here.wait_for(|here| *here >= revision);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The sender lives as long as `self`.
            Ok(Err(_)) | Err(_) => Err(Error::Future {
                requested: revision,
                current: self.revision(),
            }),
        }
    }

    /// Sees to it that progress is published: at most once per [`PROGRESS`], and not at all
    /// while nothing is written.
    fn tick(self: &Arc<Self>) {
        let mut ticker = self.ticker.lock();
        if ticker.as_ref().is_some_and(|ticker| !ticker.is_finished()) {
            return;
        }
        let replica = Arc::downgrade(self);
        let mut revision = self.revision.subscribe();
        revision.mark_changed();
        let task = tokio::spawn(async move {
            while revision.changed().await.is_ok() {
                tokio::time::sleep_until(Instant::now() + PROGRESS).await;
                let Some(replica) = replica.upgrade() else {
                    return;
                };
                // Read under the lock: all up to this revision has been dispatched.
                let inner = replica.inner.read();
                replica.progress.send_replace(inner.state.revision());
                revision.mark_unchanged();
            }
        });
        *ticker = Some(task.abort_handle());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.lock().take() {
            ticker.abort();
        }
    }
}
