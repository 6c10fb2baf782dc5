//! A file that takes up space until space is short.
//!
//! Moving the base on is what frees the log, and it takes space itself. So when the disk is full
//! this file goes first; until it can be had again the disk counts as full, whatever the log
//! says.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

/// The reserve file.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// Why it is missing, where it is.
    missing: Mutex<Option<String>>,
}

impl Reserve {
    /// Takes the reserve, where it is not taken already and the disk has it.
    pub(super) fn open(path: &Path, bytes: u64) -> Self {
        let reserve = Self {
            path: path.to_owned(),
            bytes,
            missing: Mutex::new(None),
        };
        reserve.restore();
        reserve
    }

    /// Why there is none.
    pub(super) fn missing(&self) -> Option<String> {
        self.missing.lock().clone()
    }

    /// Gives the space back to the disk.
    pub(super) fn release(&self, why: &str) {
        let mut missing = self.missing.lock();
        if missing.is_none() {
            // Where it cannot be removed, its space is simply not to be had.
            let _ = fs::remove_file(&self.path);
            *missing = Some(why.to_owned());
        }
    }

    /// Takes it again, if it can be had.
    pub(super) fn restore(&self) {
        let mut missing = self.missing.lock();
        *missing = match self.allocate() {
            Ok(()) => None,
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                Some(format!("no reserve of {} MiB: {error}", self.bytes >> 20))
            }
        };
    }

    fn allocate(&self) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.len() == self.bytes && metadata.blocks() * 512 >= self.bytes {
            return Ok(());
        }
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            // Some file systems cannot; there the log's own reserve has to do.
            Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => file.set_len(self.bytes),
            Err(error) => Err(error.into()),
        }
    }
}
