//! Segments that wait to be written: the next one, and the reserve behind it.
//!
//! Two are kept ready, zeroed and durable, so that an append never waits for the file system.
//! When a second one cannot be had, the disk counts as full: writes are refused by whoever asks
//! [`Pool::space`], and what frees space goes on into the segment that is left, the reserve.
//!
//! The pool is shared by the writer, which takes segments, and the keeper, which makes and
//! releases them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::disk::Disk;
use super::manifest::Manifest;
use super::recover::name;

/// How many segments wait ahead of the one that is written.
const AHEAD: u64 = 2;

/// Frees of space still fit when no more than this is left of the last segment.
const MARGIN: u64 = 1 << 20;

/// How long until a full disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the log has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Anything.
    Free,
    /// What frees space; with the disk's message.
    Full(String),
    /// Nothing.
    Exhausted(String),
}

/// The segments ahead.
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    current: u64,
    /// Bytes left in the current segment.
    left: u64,
    /// The newest that is ready.
    ready: u64,
    /// Why there are no more.
    full: Option<String>,
    /// Segments before this one, whose first frame has this number, are needed no more.
    released: Option<(u64, u64)>,
    closed: bool,
}

impl Pool {
    pub(super) fn new(current: u64, ready: u64, left: u64) -> Self {
        let state = State {
            current,
            left,
            ready,
            full: None,
            released: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn space(&self) -> Space {
        let state = self.state.lock();
        match &state.full {
            None => Space::Free,
            Some(why) if state.ready > state.current || state.left > MARGIN => {
                Space::Full(why.clone())
            }
            Some(why) => Space::Exhausted(why.clone()),
        }
    }

    pub(super) fn note_left(&self, left: u64) {
        self.state.lock().left = left;
    }

    /// Moves on to the next segment, when it is ready; none where there is no space for one.
    pub(super) fn take_next(&self) -> Option<u64> {
        let mut state = self.state.lock();
        while state.ready <= state.current {
            if state.full.is_some() || state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        state.current += 1;
        self.changed.notify_all();
        Some(state.current)
    }

    pub(super) fn release(&self, first: u64, first_sequence: u64) {
        self.state.lock().released = Some((first, first_sequence));
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Makes segments ready and removes those that are released.
pub(super) struct Keeper {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) manifest: Arc<Mutex<Manifest>>,
    pub(super) pool: Arc<Pool>,
    pub(super) segment_bytes: u64,
}

impl Keeper {
    /// Works until the pool is closed. Fails only where a sync failed: what is on the disk is
    /// then unknown.
    pub(super) fn run(&self) -> io::Result<()> {
        loop {
            self.keep()?;
            let mut state = self.pool.state.lock();
            loop {
                let wanted = state.ready < state.current + AHEAD && state.full.is_none();
                if state.closed {
                    return Ok(());
                }
                if wanted || state.released.is_some() {
                    break;
                }
                if state.full.is_none() {
                    self.pool.changed.wait(&mut state);
                } else if self.pool.changed.wait_for(&mut state, RETRY).timed_out() {
                    break;
                }
            }
        }
    }

    /// Does what there is to do now.
    pub(super) fn keep(&self) -> io::Result<()> {
        let released = self.pool.state.lock().released.take();
        if let Some((first, first_sequence)) = released {
            self.release(first, first_sequence)?;
        }
        loop {
            let ready = {
                let mut state = self.pool.state.lock();
                if state.ready >= state.current + AHEAD {
                    state.full = None;
                    return Ok(());
                }
                state.ready
            };
            if let Err(error) = self.prepare(ready + 1)? {
                let mut state = self.pool.state.lock();
                if state.full.is_none() {
                    tracing::warn!(%error, "no space for the log: writes are refused, deletes go on");
                }
                state.full = Some(error.to_string());
                self.pool.changed.notify_all();
                return Ok(());
            }
            self.pool.state.lock().ready = ready + 1;
            self.pool.changed.notify_all();
        }
    }

    /// Makes a segment, zeroed and durable, and enters it in the manifest. The inner error is
    /// one of space, after which all is as before.
    pub(super) fn prepare(&self, number: u64) -> io::Result<io::Result<()>> {
        let name = name(number);
        let zeroed = || {
            let file = self.disk.create(&name)?;
            let zeros = vec![0; 1 << 20];
            let mut offset = 0;
            while offset < self.segment_bytes {
                let length = (self.segment_bytes - offset).min(zeros.len() as u64);
                file.write_at(&zeros[..usize::try_from(length).unwrap_or(0)], offset)?;
                offset += length;
            }
            Ok(file)
        };
        let synced = match zeroed() {
            Ok(file) => file.sync_data(),
            Err(error) => Err(error),
        };
        match synced {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // What was written of it is in the way of others; it is not in the manifest.
                let _ = self.disk.remove(&name);
                return Ok(Err(error));
            }
            Err(error) => return Err(error),
        }
        self.disk.sync_names()?;
        self.manifest
            .lock()
            .update(|facts| facts.last = facts.last.max(number))?;
        Ok(Ok(()))
    }

    fn release(&self, first: u64, first_sequence: u64) -> io::Result<()> {
        let before = self.manifest.lock().facts().first;
        self.manifest.lock().update(|facts| {
            facts.first = first;
            facts.first_sequence = first_sequence;
        })?;
        for number in before..first {
            match self.disk.remove(&name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.disk.sync_names()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
