//! The write-ahead log: raft's entries and vote, durable before anything is acknowledged.
//!
//! Segments of zeroed bytes, in each of them frames, each frame one fdatasync ([`frame`]); a
//! [`manifest`] that says which segments there must be; recovery that cuts a torn tail and
//! refuses damage before it ([`recover`]); segments ahead, the last of them the reserve that is
//! left when the disk is full ([`segments`]). [`log`] puts them together without threads, which
//! is what the power-cut test drives; the [`Wal`] here adds the two threads, and owns them.
//!
//! **Invariant**: a write or a sync that failed is never tried again. What the disk holds is
//! then unknown, so the handler that was passed in is told, which ends the process.
//!
//! Deliberately absent: reading. Who appends keeps what it wants to read; the log is read once,
//! when it is opened.

mod contents;
mod disk;
mod error;
mod frame;
mod log;
mod manifest;
mod recover;
mod segments;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

pub(crate) use contents::Contents;
pub use disk::{Disk, File, OsDisk};
pub(crate) use error::AppendError;
pub use error::DataError;
pub(crate) use frame::{Record, Vote};
pub(crate) use segments::Space;

use log::{Log, Opened, frame_room};
use segments::Pool;

/// Appends that wait for the thread. Raft waits for each, so there is hardly ever a second.
const QUEUE: usize = 64;

/// Is told when the disk failed. It should not return.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Called when an append is durable, or failed.
pub(crate) type Done = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// An open log and its threads.
pub(crate) struct Wal {
    appends: Mutex<Option<mpsc::SyncSender<Append>>>,
    /// The writer, then the keeper, which must outlive it.
    threads: Mutex<Vec<JoinHandle<()>>>,
    pool: Arc<Pool>,
    room: usize,
}

struct Append {
    records: Vec<Record>,
    done: Done,
}

impl Wal {
    /// Opens the log of `node` on `disk`, or makes one where there is nothing at all.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        node: u64,
        segment_bytes: u64,
        id: u64,
        fatal: Fatal,
    ) -> Result<(Self, Contents), DataError> {
        let Opened {
            mut log,
            keeper,
            contents,
        } = Log::open(disk, node, segment_bytes, id)?;
        let pool = keeper.pool.clone();
        let room = frame_room(segment_bytes);
        let (appends, queue) = mpsc::sync_channel::<Append>(QUEUE);
        let told = fatal.clone();
        let keeping = spawn("wal-keeper", move || {
            if let Err(error) = keeper.run() {
                keeper.pool.close();
                told(&format!("preparing the log's next segment failed: {error}"));
            }
        });
        let writing = spawn("wal-writer", move || {
            for Append { records, done } in &queue {
                let written = write(&mut log, &records, room);
                let failed = match &written {
                    Err(AppendError::Failed(error)) => Some(error.to_string()),
                    Err(AppendError::NoSpace) | Ok(()) => None,
                };
                done(written);
                if let Some(error) = failed {
                    fatal(&format!("writing the log failed: {error}"));
                    break;
                }
            }
            // Empty, unless the log failed.
            for Append { done, .. } in queue {
                done(Err(closed()));
            }
        });
        let threads = [writing, keeping]
            .into_iter()
            .collect::<io::Result<Vec<_>>>();
        let threads = threads.map_err(|source| DataError::Io {
            path: "wal".into(),
            source,
        })?;
        let (appends, threads) = (Mutex::new(Some(appends)), Mutex::new(threads));
        Ok((
            Self {
                appends,
                threads,
                pool,
                room,
            },
            contents,
        ))
    }

    /// Appends records; `done` is called on the log's thread once they are durable.
    pub(crate) fn append(&self, records: Vec<Record>, done: Done) {
        let appends = self.appends.lock().clone();
        let failed = match appends {
            Some(appends) => match appends.send(Append { records, done }) {
                Ok(()) => return,
                Err(mpsc::SendError(append)) => append.done,
            },
            None => done,
        };
        failed(Err(closed()));
    }

    /// What there is room for.
    pub(crate) fn space(&self) -> Space {
        self.pool.space()
    }

    /// The most bytes that one entry may take.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Ends the threads, when what was appended is durable. Blocks.
    pub(crate) fn close(&self) {
        self.appends.lock().take();
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
            self.pool.close();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> AppendError {
    AppendError::Failed(io::Error::other("the log is closed"))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Writes the records in as few frames as they fit in.
fn write(log: &mut Log, records: &[Record], room: usize) -> Result<(), AppendError> {
    let mut rest = records;
    while !rest.is_empty() {
        let mut taken = 0;
        let fits = rest.iter().take_while(|record| {
            taken += record.size();
            taken <= room
        });
        let count = fits.count().max(1);
        let (frame, later) = rest.split_at(count);
        log.append(frame)?;
        rest = later;
    }
    Ok(())
}
