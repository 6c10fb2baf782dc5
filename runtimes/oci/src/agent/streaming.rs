//! Exec, attach and connections to ports.
//!
//! What runs besides a container's first process belongs to whoever asked for it: its streams lead
//! to this agent, and end with it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coracle_runtime::process::readiness;
use coracle_runtime::streaming::{
    Descriptor, ExecConfig, Pipes, PortConnection, Resize, Session, Wanted,
};
use coracle_runtime::{Error, Network, Result, SandboxId, dial, disk};
use serde_json::Value;
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::making::SPEC;
use super::shim::Shim;
use super::{Entry, Inner};
use crate::console::{self, Console};
use crate::protocol::{Exec, Request, Response};
use crate::snapshots::UserFiles;
use crate::spec;

/// The end of a process of a shim, as it was answered.
type Answer = JoinHandle<Option<io::Result<Response>>>;

impl Inner {
    pub(super) async fn exec(&self, entry: &Entry, config: ExecConfig) -> Result<Session> {
        let id = &entry.record.id;
        let shim = running(entry)?;
        let folder = self.ledger.records().container_folder(id);
        let spec: Option<Value> = disk::read_json(&folder.join(SPEC))
            .map_err(|error| Error::io("reading a container's specification", error))?;
        let spec = spec.ok_or_else(|| {
            Error::State(format!("container {} has lost its specification", id.0))
        })?;
        let mut process = spec["process"].clone();
        process["args"] = config.command.into();
        process["terminal"] = config.terminal.into();
        // Earlier releases have made containers without one.
        let users = || match self.read_made(entry)? {
            Some(made) => self.snapshots.users(&made.layers),
            None => Ok(UserFiles::default()),
        };
        spec::give_home(&mut process, users)
            .map_err(|error| Error::io("reading the users of an image", error))?;
        let mut exec = Exec {
            container: id.clone(),
            process,
            console: None,
            kill: config.kill_on_drop.then(|| self.number()),
        };
        let left = CancellationToken::new();
        // Goes with whoever waits for the end.
        let session = config.kill_on_drop.then(|| left.clone().drop_guard());
        let ask = |exec: Exec, stdio: Vec<OwnedFd>| -> Answer {
            let detached = self.detached.clone();
            let until_left = async move {
                let kill = exec.kill;
                let answer = shim.request_with(Request::Exec(Box::new(exec)), stdio);
                let mut answer = std::pin::pin!(answer);
                tokio::select! {
                    // Asked before it is killed.
                    biased;
                    answer = &mut answer => return answer,
                    () = left.cancelled() => {}
                }
                if let Some(number) = kill {
                    // A shim that does not hear has ended, and the process with it.
                    let _ = shim.request(Request::Kill(number)).await;
                }
                answer.await
            };
            self.tasks
                .spawn(async move { detached.run_until_cancelled(until_left).await })
        };
        let io = |error| Error::io("making the streams of a process", error);
        if !config.terminal {
            let (streams, ends) = Pipes::new(config.wanted).map_err(io)?;
            let [stdin, stdout, stderr] = ends;
            let stdio: io::Result<Vec<OwnedFd>> =
                [stdin, stdout, stderr].into_iter().map(or_null).collect();
            let answer = ask(exec, stdio.map_err(io)?);
            return Ok(streams.session(None, Box::pin(code(answer, session))));
        }
        let name = format!("terminal-{}", self.number());
        let console = Console::listen(&folder, &name).map_err(io)?;
        exec.console = Some(console.path().to_owned());
        let stdio: io::Result<Vec<OwnedFd>> = (0..3).map(|_| or_null(None)).collect();
        let mut answer = ask(exec, stdio.map_err(io)?);
        let connected = console.fd().try_clone_to_owned();
        let connected = readiness::readable(connected.map_err(io)?).map_err(io)?;
        let answered = tokio::select! {
            connected = connected.readable() => {
                drop(connected.map_err(io)?);
                None
            }
            answer = &mut answer => Some(answer),
        };
        // A process that has ended already had its terminal before.
        let master = match console.accept() {
            Ok(stream) => sent(stream).await,
            Err(error) => Err(error),
        };
        let (master, answered) = match (master, answered) {
            (Ok(master), answered) => (master, answered),
            (Err(_), Some(answer)) => return Err(never_ran(answer)),
            (Err(_), None) => return Err(never_ran(answer.await)),
        };
        let master = Descriptor::new(master, Interest::READABLE | Interest::WRITABLE);
        let master = master.map_err(io)?;
        let wanted = config.wanted;
        Ok(Session {
            stdin: wanted.stdin.then(|| Box::pin(master.clone()) as _),
            stdout: wanted.stdout.then(|| Box::pin(master.clone()) as _),
            stderr: None,
            resize: Some(Arc::new(move |size| {
                if let Err(error) = master.resize(size) {
                    tracing::debug!(%error, "changing the size of a terminal");
                }
            })),
            exit: match answered {
                Some(answer) => Box::pin(std::future::ready(ended(answer))),
                None => Box::pin(code(answer, session)),
            },
        })
    }

    fn number(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) async fn attach(&self, entry: &Entry, wanted: Wanted) -> Result<Session> {
        let shim = running(entry)?;
        let stdio = entry.record.config.stdio;
        let wanted = Wanted {
            stdin: wanted.stdin && stdio.stdin,
            stdout: wanted.stdout,
            // All that is written to a terminal is its output.
            stderr: wanted.stderr && !stdio.terminal,
        };
        let io = |error| Error::io("making the streams of a process", error);
        let (streams, ends) = Pipes::new(wanted).map_err(io)?;
        let container = entry.record.id.clone();
        let ends: Vec<OwnedFd> = ends.into_iter().flatten().collect();
        if !ends.is_empty() {
            let container = container.clone();
            let request = Request::Attach { container, wanted };
            done(shim.request_with(request, ends).await)?;
        }
        let resize = stdio.terminal.then(|| -> Resize {
            // The latest size counts, and no earlier one overtakes it.
            let (sizes, mut wanted) = watch::channel(None);
            let (shim, detached) = (shim.clone(), self.detached.clone());
            let container = container.clone();
            self.tasks.spawn(async move {
                let resize = async {
                    while wanted.changed().await.is_ok() {
                        let size = *wanted.borrow_and_update();
                        let Some(size) = size else { continue };
                        let container = container.clone();
                        // It may have ended meanwhile.
                        let _ = shim.request(Request::Resize { container, size }).await;
                    }
                };
                detached.run_until_cancelled(resize).await;
            });
            Arc::new(move |size| {
                sizes.send_replace(Some(size));
            })
        });
        Ok(streams.session(resize, Box::pin(entry.exit_code())))
    }

    pub(super) async fn connect(&self, id: &SandboxId, port: u16) -> Result<PortConnection> {
        let sandbox = self.ledger.sandbox(id)?;
        let shim = self.shims.lock().get(id).map(|shim| shim.pid());
        let shim =
            shim.ok_or_else(|| Error::State(format!("the shim of sandbox {} has ended", id.0)))?;
        let namespace = match sandbox.config.namespaces.network {
            Network::Host => None,
            Network::Loopback => Some(format!("/proc/{shim}/ns/net").into()),
            Network::Namespace(path) => Some(path),
        };
        let connected =
            tokio::task::spawn_blocking(move || dial::loopback(namespace.as_deref(), port));
        let connected = connected.await.map_err(io::Error::other).flatten();
        let stream = connected.and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(stream)
        });
        let stream = stream.map_err(|error| Error::io(format!("connecting to port {port}"), error));
        Ok(Box::new(stream?))
    }
}

fn running(entry: &Entry) -> Result<Arc<Shim>> {
    let shim = entry.process().filter(|_| entry.is_running());
    shim.ok_or_else(|| Error::State(format!("container {} does not run", entry.record.id.0)))
}

fn or_null(end: Option<OwnedFd>) -> io::Result<OwnedFd> {
    match end {
        Some(end) => Ok(end),
        None => {
            let mut options = std::fs::OpenOptions::new();
            Ok(options.read(true).write(true).open("/dev/null")?.into())
        }
    }
}

/// What is known of a process that has ended.
type Answered = std::result::Result<Option<io::Result<Response>>, tokio::task::JoinError>;

/// The exit code of a process, which may end with its session.
async fn code(answer: Answer, _session: Option<DropGuard>) -> Result<i32> {
    ended(answer.await)
}

fn ended(answer: Answered) -> Result<i32> {
    match answer {
        Ok(Some(Ok(Response::Ended(code)))) => Ok(code),
        other => Err(never_ran(other)),
    }
}

/// Why there is no exit code.
fn never_ran(answer: Answered) -> Error {
    match answer {
        Ok(Some(Ok(Response::Failed(cause)))) => Error::Start(cause),
        Ok(Some(Ok(other))) => Error::Start(format!("the shim answered {other:?}")),
        Ok(Some(Err(error))) => Error::io("asking the shim for a process", error),
        Ok(None) => Error::State("the agent stops".into()),
        Err(error) => Error::State(error.to_string()),
    }
}

/// The terminal that comes by a connection.
async fn sent(stream: UnixStream) -> io::Result<OwnedFd> {
    let own = readiness::readable(stream.try_clone()?.into())?;
    drop(own.readable().await?);
    console::receive(&stream)
}

fn done(answer: io::Result<Response>) -> Result<()> {
    match answer {
        Ok(Response::Done) => Ok(()),
        Ok(Response::Failed(cause)) => Err(Error::State(cause)),
        Ok(other) => Err(Error::State(format!("the shim answered {other:?}"))),
        Err(error) => Err(Error::io("asking the shim", error)),
    }
}
