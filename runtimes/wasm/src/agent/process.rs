//! Guest processes as the agent holds them, with the connections to them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::GuestUser;
use coracle_runtime::process::{self, Ended, kill_and_wait};

use super::client::{Client, Listener};
use super::home::Home;
use super::placement::Placement;
use crate::protocol::{Bound, Request, Response};

/// A guest process.
pub(super) struct Process {
    process: process::Process,
    client: Client,
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
    /// Starts a subcommand in a new folder, as that user, where its guests live. With a `patience` it
    /// outlives its agent no longer than that.
    pub(super) async fn spawn(
        placement: &Placement,
        subcommand: &str,
        folder: &Path,
        user: Option<GuestUser>,
        home: &Home,
        patience: Option<Duration>,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Arc<Self>> {
        placement.make_folder(folder, user)?;
        let command = placement.command(subcommand, folder, user, home, patience);
        let connect = Client::connect(folder, listener);
        let spawned = process::Process::spawn_connected(command, folder, connect);
        let (process, client) = spawned.await?;
        Ok(Arc::new(Self { process, client }))
    }

    /// Kills the process of a folder, if it lives.
    pub(super) async fn end(folder: &Path) -> io::Result<()> {
        match process::Process::living(folder)? {
            Some((_, pidfd)) => kill_and_wait(pidfd).await,
            None => Ok(()),
        }
    }

    /// Takes over the process of a folder, if it lives, and where that user's guests should.
    pub(super) async fn adopt(
        placement: &Placement,
        folder: &Path,
        user: Option<GuestUser>,
        home: &Home,
        listener: Arc<dyn Listener>,
    ) -> io::Result<Found> {
        let Some((pid, pidfd)) = process::Process::living(folder)? else {
            return Ok(Found::Gone);
        };
        if let Some(reason) = placement.objection(pid, user, home) {
            tracing::warn!(folder = %folder.display(), reason, "killing a guest process");
            kill_and_wait(pidfd).await?;
            return Ok(Found::Misplaced(reason));
        }
        let connect = Client::connect(folder, listener);
        let adopted = process::Process::adopt_connected(folder, (pid, pidfd), connect);
        Ok(match adopted.await? {
            Some((process, client)) => Found::Adopted(Arc::new(Self { process, client })),
            None => Found::Gone,
        })
    }

    /// Says how soon it goes where the machine runs out of memory (`oom_score_adj` in proc(5)).
    pub(super) fn rank(&self, score: i32) {
        let pid = self.process.pid();
        let set = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
        if let Err(error) = set {
            // It takes rights to spare a process; without them it is as the agent.
            tracing::debug!(%error, pid, score, "a guest process keeps the agent's oom_score_adj");
        }
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
        self.process.folder()
    }

    /// Resolves when the connection is gone, though the process may live.
    pub(super) async fn disconnected(&self) {
        self.client.closed().await;
    }

    /// Waits for the end of the process.
    pub(super) async fn wait(&self) -> Ended {
        self.process.wait().await
    }

    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// The end of what the process wrote to its standard error.
    pub(super) fn errors(&self) -> String {
        self.process.errors()
    }
}
