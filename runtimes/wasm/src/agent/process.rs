//! Guest processes as the agent holds them: started, adopted, watched, killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::GuestUser;
use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::client::{Client, Listener, SOCKET, socket_path};
use super::placement::Placement;
use crate::disk;
use crate::protocol::{Bound, Request, Response};
use crate::readiness;
use crate::serve::{IDENTITY, Identity};

/// What a process wrote to its standard error; guests write to their logs.
const ERRORS: &str = "errors";
/// How much of it is told.
const MAX_ERRORS: u64 = 4096;
/// How long a process may take to end once it was killed.
const DEATH: Duration = Duration::from_secs(10);

/// A guest process.
pub(super) struct Process {
    folder: PathBuf,
    pidfd: AsyncFd<OwnedFd>,
    child: Mutex<Option<Child>>,
    client: Client,
    ended: watch::Sender<Option<Ended>>,
}

/// How a process ended, as far as the agent can know: the status only of its own children.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended(Option<ExitStatus>);

impl Ended {
    /// For people.
    pub(super) fn describe(self) -> String {
        match self.0.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) => format!("killed by signal {signal}"),
            Some((_, Some(code))) => format!("exit code {code}"),
            _ => "cause unknown".into(),
        }
    }
}

/// What became of the process of a folder.
pub(super) enum Found {
    /// It lives, and is the agent's now.
    Adopted(Arc<Process>),
    /// There is none.
    Gone,
    /// It lived where it should not, for the reason that is given, and was killed.
    Misplaced(String),
}

impl Process {
    /// Starts a subcommand in a new folder, as that user.
    pub(super) async fn spawn(
        placement: &Placement,
        subcommand: &str,
        folder: &Path,
        user: Option<GuestUser>,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Arc<Self>> {
        placement.make_folder(folder, user)?;
        let opened = File::open(folder)?;
        let socket = UnixListener::bind(socket_path(&opened))?;
        let errors = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(folder.join(ERRORS))?;
        let mut command = placement.command(subcommand, folder, user);
        command
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .stderr(errors);
        let spawned = command.spawn();
        // The socket is the child's alone now: should the child die, a connection to it breaks.
        drop(command);
        let mut child = spawned?;
        let pidfd = match child_pidfd(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let connected = Client::connect(folder, listener).await;
        match connected {
            Ok(client) => Ok(Arc::new(Self {
                folder: folder.to_owned(),
                pidfd,
                child: Mutex::new(Some(child)),
                client,
                ended: watch::Sender::new(None),
            })),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::new(
                    error.kind(),
                    format!("{error}: {}", read_errors(folder)),
                ))
            }
        }
    }

    /// Takes over the process of a folder, if it lives, and where that user's guests should.
    pub(super) async fn adopt(
        placement: &Placement,
        folder: &Path,
        user: Option<GuestUser>,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Found> {
        let Some((pid, pidfd)) = living(folder)? else {
            return Ok(Found::Gone);
        };
        if let Some(reason) = placement.objection(pid, user) {
            tracing::warn!(folder = %folder.display(), reason, "killing a guest process");
            kill_and_wait(pidfd).await?;
            return Ok(Found::Misplaced(reason));
        }
        let client = match Client::connect(folder, listener).await {
            Ok(client) => client,
            Err(error) => {
                // It lives and cannot be spoken to: what it runs cannot be known or ended in
                // order, so it must not run on.
                tracing::warn!(folder = %folder.display(), %error, "killing a guest process");
                kill_and_wait(pidfd).await?;
                return Ok(Found::Gone);
            }
        };
        Ok(Found::Adopted(Arc::new(Self {
            folder: folder.to_owned(),
            pidfd: readiness::readable(pidfd)?,
            child: Mutex::new(None),
            client,
            ended: watch::Sender::new(None),
        })))
    }

    /// The connection to the process.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn request(&self, request: Request) -> io::Result<Response> {
        self.client.request(request).await
    }

    pub(super) fn listeners(&self) -> Vec<Bound> {
        self.client.listeners()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Resolves when the connection is gone, though the process may live.
    pub(super) async fn disconnected(&self) {
        self.client.closed().await;
    }

    /// Waits for the end of the process.
    pub(super) async fn wait(&self) -> Ended {
        let known = *self.ended.borrow();
        if let Some(ended) = known {
            return ended;
        }
        // A pidfd becomes readable when its process ends, and stays so.
        if let Err(error) = self.pidfd.readable().await {
            tracing::warn!(%error, "watching a guest process");
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

    pub(super) fn kill(&self) {
        // It has ended already.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// The end of what the process wrote to its standard error.
    pub(super) fn errors(&self) -> String {
        read_errors(&self.folder)
    }
}

fn child_pidfd(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_child(child);
    readiness::readable(pidfd_open(pid, PidfdFlags::empty())?)
}

async fn kill_and_wait(pidfd: OwnedFd) -> io::Result<()> {
    // It has ended already.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let pidfd = readiness::readable(pidfd)?;
    // One that the kernel does not let go holds up nobody else.
    let _ = tokio::time::timeout(DEATH, pidfd.readable()).await;
    Ok(())
}

fn read_errors(folder: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(folder.join(ERRORS))?;
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

/// The process that a folder names, if it is the same that wrote the folder.
fn living(folder: &Path) -> io::Result<Option<(i32, OwnedFd)>> {
    if !folder.join(SOCKET).exists() {
        return Ok(None);
    }
    let Some(identity) = disk::read_json::<Identity>(&folder.join(IDENTITY))? else {
        return Ok(None);
    };
    let Some(pid) = Pid::from_raw(identity.pid) else {
        return Ok(None);
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(None);
    };
    // Looked at after the pidfd was taken: the number cannot have changed hands since.
    let same = Identity::of(identity.pid).is_ok_and(|now| now == identity);
    Ok(same.then_some((identity.pid, pidfd)))
}
