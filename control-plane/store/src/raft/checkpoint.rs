//! Moves the base on: what leaves the history goes to sled, is made durable, and frees the log.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use tokio_util::sync::CancellationToken;

use super::base::BaseError;
use super::machine::Shared;
use super::types::TypeConfig;
use crate::memory::unix_millis;
use crate::wal::{Fatal, Space, Wal};

/// Bytes of history that go to sled at once, at most.
const STEP: usize = 4 << 20;

/// How often history that is too much, but too young to go, is looked at again.
const AGAIN: Duration = Duration::from_secs(15);

/// The task that does it.
pub(super) struct Checkpoint {
    pub(super) shared: Arc<Shared>,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) wal: Arc<Wal>,
    pub(super) fatal: Fatal,
}

impl Checkpoint {
    pub(super) async fn run(self, cancelled: CancellationToken) {
        let mut unsynced = 0;
        loop {
            // History that is more than need be, but young, is looked at again in time.
            let aging = self.shared.replica.history_bytes() > self.shared.limits.kept_bytes;
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = self.shared.heavy.notified() => {}
                () = tokio::time::sleep(AGAIN), if aging => {}
            }
            loop {
                match self.step(&mut unsynced).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error @ BaseError::Sync(_)) => {
                        (self.fatal)(&error.to_string());
                        return;
                    }
                    Err(error) => {
                        // The log keeps what did not get here, and a start reads it again.
                        let why = format!("{error}; make space on the disk and restart");
                        tracing::error!("writes are refused: {why}");
                        self.shared.reserve.release(&why);
                        return;
                    }
                }
            }
        }
    }

    /// Moves some history; returns whether there may be more to do.
    async fn step(&self, unsynced: &mut usize) -> Result<bool, BaseError> {
        let urgent = self.make_room();
        let shared = self.shared.clone();
        let most = shared.limits.most_bytes;
        let at_once = STEP.min(most / 4);
        let moved = blocking(move || {
            let before = shared.replica.history_bytes();
            let now = unix_millis();
            let groups = if urgent {
                shared.replica.evict_all(at_once)
            } else {
                shared.replica.evict(now, at_once)
            };
            let Some(last) = groups.last() else {
                return Ok(0);
            };
            let membership = shared.memberships.lock().reach(last.position.index);
            shared.base.write(&groups, &membership)?;
            Ok(before.saturating_sub(shared.replica.history_bytes()).max(1))
        })
        .await?;
        *unsynced += moved;
        // Under load seldom; when there is nothing more to move, so that an idle log is small.
        let enough = if moved > 0 { most / 4 } else { most / 16 };
        if *unsynced > enough || (urgent && moved == 0 && *unsynced > 0) {
            let base = self.shared.base.clone();
            blocking(move || base.sync()).await?;
            *unsynced = 0;
            // A snapshot names what is durable; openraft then purges the log up to there.
            if self.raft.trigger().snapshot().await.is_err() {
                tracing::debug!("raft has stopped");
            }
        }
        Ok(moved > 0)
    }
}

impl Checkpoint {
    /// Whether space is short; then the reserve is given up for what has to be written.
    fn make_room(&self) -> bool {
        let reserve = &self.shared.reserve;
        match self.wal.space() {
            Space::Free => {
                if reserve.missing().is_some() {
                    reserve.restore();
                }
                reserve.missing().is_some()
            }
            Space::Full(why) | Space::Exhausted(why) => {
                reserve.release(&why);
                true
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BaseError> + Send + 'static,
) -> Result<T, BaseError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BaseError::Sync(std::io::Error::other(error))),
    }
}
