//! Who a process is, for the agent that adopts it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::disk;

/// Name of the file with a process's [`Identity`].
pub const IDENTITY: &str = "process.json";

/// What tells a process from every other of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// Clock ticks after boot at which it started: tells it from a later process of its number.
    pub started: u64,
}

impl Identity {
    /// The identity of a living process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may contain anything; field 22 counts from the process id.
        let started = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc stat"))?;
        Ok(Self { pid, started })
    }

    /// Writes down that this process is the one of a folder.
    pub fn record(folder: &Path) -> io::Result<()> {
        let identity = Self::of(std::process::id() as i32)?;
        disk::write_json(&folder.join(IDENTITY), &identity)
    }

    /// A descriptor of the process, if it lives.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after the descriptor was taken: the number cannot have changed hands since.
        let same = Self::of(self.pid).is_ok_and(|now| now == *self);
        same.then_some(pidfd)
    }

    /// The process that a folder names, if it is the same that wrote the folder and lives.
    pub fn living(folder: &Path) -> io::Result<Option<(i32, OwnedFd)>> {
        let identity: Option<Self> = disk::read_record(&folder.join(IDENTITY))?;
        Ok(identity.and_then(|identity| Some((identity.pid, identity.open()?))))
    }
}
