//! Processes that outlive their agent, as the agent holds them: started, adopted, watched, killed.
//!
//! A process has a folder with its socket, its [`Identity`] and what it wrote to its standard
//! error. The agent makes the listening socket and hands it over as standard input, so that it can
//! connect before the process has come up.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::connection::{SOCKET, socket_path};
use crate::identity::Identity;

pub mod readiness;

/// What a process wrote to its standard error; what it runs writes elsewhere.
const ERRORS: &str = "errors";
/// How much of it is told.
const MAX_ERRORS: u64 = 4096;
/// How long a process may take to end once it was killed.
const DEATH: Duration = Duration::from_secs(10);

/// A process of the agent's.
pub struct Process {
    folder: PathBuf,
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
    child: Mutex<Option<Child>>,
    ended: watch::Sender<Option<Ended>>,
}

/// How a process ended, as far as the agent can know: the status only of its own children.
#[derive(Clone, Copy, Debug)]
pub struct Ended(Option<ExitStatus>);

impl Ended {
    /// For people.
    pub fn describe(self) -> String {
        match self.0.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) => format!("killed by signal {signal}"),
            Some((_, Some(code))) => format!("exit code {code}"),
            _ => "cause unknown".into(),
        }
    }
}

impl Process {
    /// Starts a command in its folder, with the socket as its standard input.
    fn spawn(mut command: Command, folder: &Path) -> io::Result<Self> {
        let opened = File::open(folder)?;
        let socket = UnixListener::bind(socket_path(&opened))?;
        let errors = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(folder.join(ERRORS))?;
        command
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .stderr(errors);
        let spawned = command.spawn();
        // The socket is the child's alone now: should the child die, a connection to it breaks.
        drop(command);
        let mut child = spawned?;
        match child_pidfd(&child) {
            Ok(pidfd) => {
                let pid = Pid::from_child(&child).as_raw_nonzero().get();
                Ok(Self::new(folder, pid, pidfd, Some(child)))
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Starts a command as [`Self::spawn`] does, and connects to the process; one that cannot be
    /// spoken to is killed.
    pub async fn spawn_connected<C>(
        command: Command,
        folder: &Path,
        connect: impl Future<Output = io::Result<C>>,
    ) -> io::Result<(Self, C)> {
        let process = Self::spawn(command, folder)?;
        match connect.await {
            Ok(connection) => Ok((process, connection)),
            Err(error) => {
                process.kill();
                process.wait().await;
                let errors = process.errors();
                Err(io::Error::new(error.kind(), format!("{error}: {errors}")))
            }
        }
    }

    /// Takes over a living process and connects to it; none if it cannot be spoken to: what it
    /// keeps cannot be known or ended in order, so it is killed.
    pub async fn adopt_connected<C>(
        folder: &Path,
        (pid, pidfd): (i32, OwnedFd),
        connect: impl Future<Output = io::Result<C>>,
    ) -> io::Result<Option<(Self, C)>> {
        match connect.await {
            Ok(connection) => Ok(Some((Self::adopt(folder, (pid, pidfd))?, connection))),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "killing a process");
                kill_and_wait(pidfd).await?;
                Ok(None)
            }
        }
    }

    /// The process of a folder, if it lives.
    pub fn living(folder: &Path) -> io::Result<Option<(i32, OwnedFd)>> {
        if !folder.join(SOCKET).exists() {
            return Ok(None);
        }
        Identity::living(folder)
    }

    /// Takes over a living process.
    fn adopt(folder: &Path, (pid, pidfd): (i32, OwnedFd)) -> io::Result<Self> {
        Ok(Self::new(folder, pid, readiness::readable(pidfd)?, None))
    }

    fn new(folder: &Path, pid: i32, pidfd: AsyncFd<OwnedFd>, child: Option<Child>) -> Self {
        Self {
            folder: folder.to_owned(),
            pid,
            pidfd,
            child: Mutex::new(child),
            ended: watch::Sender::new(None),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its number, which may be another's once it has ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end of the process.
    pub async fn wait(&self) -> Ended {
        let known = *self.ended.borrow();
        if let Some(ended) = known {
            return ended;
        }
        // A pidfd becomes readable when its process ends, and stays so.
        if let Err(error) = self.pidfd.readable().await {
            tracing::warn!(%error, "watching a process");
        }
        let status = match self.child.lock().take() {
            Some(mut child) => child.wait().ok(),
            None => None,
        };
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(Ended(status));
            }
            first
        });
        let ended = *self.ended.borrow();
        ended.unwrap_or(Ended(None))
    }

    /// Kills the process.
    pub fn kill(&self) {
        // It has ended already.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// The end of what the process wrote to its standard error.
    pub fn errors(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.folder.join(ERRORS))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(MAX_ERRORS)))?;
            let mut bytes = Vec::new();
            file.take(MAX_ERRORS).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // What cannot be read is no reason to say less of the rest.
        let bytes = read().unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

fn child_pidfd(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_child(child);
    readiness::readable(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Kills a process and waits until it is gone.
pub async fn kill_and_wait(pidfd: OwnedFd) -> io::Result<()> {
    // It has ended already.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let pidfd = readiness::readable(pidfd)?;
    // One that the kernel does not let go holds up nobody else.
    let _ = tokio::time::timeout(DEATH, pidfd.readable()).await;
    Ok(())
}
