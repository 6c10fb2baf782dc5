//! Further processes in containers, and their streams.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_runtime::grpc::Status;
use coracle_runtime::streaming::{ExecConfig, Output, Session, Wanted};
use coracle_runtime::{ContainerId, ContainerState, Error, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::{Inner, broken};
use crate::session::{self, Owner};
use crate::wire::{ATTACH, AttachRequest, EXEC, EXEC_SYNC, ExecRequest, ExecSyncRequest};

/// How long a command may take that somebody waits for; who does ends it before.
const COMMAND: Duration = Duration::from_secs(30 * 365 * 86400);

/// How long after its streams the end of a container may become known, and how often one asks.
const SETTLE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

impl Inner {
    pub(super) async fn exec(
        self: &Arc<Self>,
        id: &ContainerId,
        config: ExecConfig,
    ) -> Result<Session> {
        let container = self.container(id).await?;
        if !matches!(container.state, ContainerState::Running { .. }) {
            return Err(Error::State(format!("container {} does not run", id.0)));
        }
        let ExecConfig {
            command,
            terminal,
            wanted,
            kill_on_drop,
        } = config;
        if kill_on_drop && !wanted.stdin && !terminal {
            return Ok(self.command(id, command, wanted));
        }
        let request = ExecRequest {
            container_id: id.0.clone(),
            cmd: command,
            tty: terminal,
            stdin: wanted.stdin,
            // One has to be wanted.
            stdout: wanted.stdout || !wanted.stdin,
            stderr: wanted.stderr && !terminal,
        };
        let wanted = Wanted {
            stdout: request.stdout,
            ..wanted
        };
        let prepared = self.client.call(EXEC, &request).await;
        let prepared = prepared.map_err(|status| Error::Start(status.message))?;
        let connection = session::connect(&prepared.url).await?;
        let owner = self.owner();
        Ok(session::session(
            connection,
            wanted,
            terminal,
            kill_on_drop,
            &owner,
        ))
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            tasks: &self.tasks,
            detached: &self.detached,
        }
    }

    /// Runs a command to its end; giving it up cancels the call, and then the runtime kills it, which
    /// it does not do with those whose streams end.
    fn command(
        self: &Arc<Self>,
        id: &ContainerId,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Session {
        let request = ExecSyncRequest {
            container_id: id.0.clone(),
            cmd: command,
        };
        let ((stdout, to_stdout), (stderr, to_stderr)) =
            (output(wanted.stdout).unzip(), output(wanted.stderr).unzip());
        let inner = self.clone();
        let run = async move {
            let called = inner.client.call_within(COMMAND, EXEC_SYNC, &request);
            let ran = inner.detached.run_until_cancelled(called).await;
            let ran = ran.unwrap_or_else(|| Err(Status::new(1, "the agent stops")));
            let ran = ran.map_err(|status| Error::Start(status.message))?;
            for (to, bytes) in [(to_stdout, ran.stdout), (to_stderr, ran.stderr)] {
                if let Some(to) = to {
                    // Nobody may read it.
                    let _ = to.send(bytes.into());
                }
            }
            Result::Ok(ran.exit_code)
        };
        let run = AbortOnDropHandle::new(self.tasks.spawn(run));
        Session {
            stdin: None,
            stdout,
            stderr,
            resize: None,
            exit: Box::pin(async move {
                let ended = run.await;
                ended.unwrap_or_else(|error| Err(Error::Start(error.to_string())))
            }),
        }
    }

    pub(super) async fn attach(
        self: Arc<Self>,
        id: &ContainerId,
        wanted: Wanted,
    ) -> Result<Session> {
        let container = self.container(id).await?;
        if !matches!(container.state, ContainerState::Running { .. }) {
            return Err(Error::State(format!("container {} does not run", id.0)));
        }
        let stdio = container.config.stdio;
        let wanted = Wanted {
            stdin: wanted.stdin && stdio.stdin,
            stdout: wanted.stdout,
            // All that is written to a terminal is its output.
            stderr: wanted.stderr && !stdio.terminal,
        };
        let wanted = Wanted {
            // One has to be wanted.
            stdout: wanted.stdout || !(wanted.stdin || wanted.stderr),
            ..wanted
        };
        let request = AttachRequest {
            container_id: id.0.clone(),
            stdin: wanted.stdin,
            tty: stdio.terminal,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let prepared = self.client.call(ATTACH, &request).await;
        let prepared = prepared.map_err(|status| broken("attaching to a container", status))?;
        let connection = session::connect(&prepared.url).await?;
        let mut session =
            session::session(connection, wanted, stdio.terminal, false, &self.owner());
        let (ended, id) = (session.exit, id.clone());
        session.exit = Box::pin(async move {
            let code = ended.await?;
            // The streams end with the container, a little before the runtime says so of it; or when
            // it lets go of them.
            let end = Instant::now() + SETTLE;
            loop {
                match self.container(&id).await?.state {
                    ContainerState::Exited(exit) => return Ok(exit.code),
                    _ if Instant::now() >= end => return Ok(code),
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        });
        Ok(session)
    }
}

/// An output that comes as a whole.
fn output(wanted: bool) -> Option<(Output, oneshot::Sender<Bytes>)> {
    if !wanted {
        return None;
    }
    let (sender, whole) = oneshot::channel();
    let whole = async move {
        // What never ran has written nothing.
        let bytes = whole.await.unwrap_or_default();
        io::Result::Ok(bytes)
    };
    let reader = StreamReader::new(Box::pin(futures::stream::once(whole)));
    Some((Box::pin(reader), sender))
}
