//! Starting, stopping and removing containers.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_runtime::{ContainerId, Error, Result, RuntimeEvent, SandboxId, disk};

use super::folders::{self, Folders, Started};
use super::home::Home;
use super::hosts::Ears;
use super::process::Process;
use super::{Entry, Inner, spec};
use crate::protocol::{GuestSpec, Kind, Request, Response};

/// How long a guest may take to be instantiated.
pub(super) const START: Duration = Duration::from_secs(60);
/// How long after its grace period a process may take to end a guest before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) async fn start_container(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let entry = self.ledger.entry(id)?;
        let _starting = entry.starting.lock().await;
        let sandbox = self.ledger.startable(&entry)?;
        let image = self.image(&entry.record.config.image_digest)?;
        let artifact = self.artifact(&image, &entry.record.config.image).await?;
        let started = Started {
            at: SystemTime::now(),
            kind: artifact.kind,
        };
        let user = self.user(&entry.record.pod.namespace);
        let exit_file = user
            .and_then(|user| folders::admit(self.ledger.records(), id, user))
            .map_err(|error| Error::io("letting a guest's user into its folders", error))?;
        let spec = spec::guest(
            &entry.record,
            &sandbox,
            &image.config,
            self.mounts(&entry.record)?,
            artifact,
            started.at,
            exit_file,
        );
        let spec = self.placement.localize(spec);
        let home = Home::of(&sandbox);
        self.ledger
            .records()
            .write_started(id, &started)
            .map_err(|error| Error::io("recording the start of a container", error))?;
        let served = match spec.kind {
            Kind::Http => self.serve(&entry, &home, spec).await,
            Kind::Core | Kind::Command => self.run(&entry, &home, spec).await,
        };
        match served {
            Ok(()) => {
                self.running(&entry, started.at);
                Ok(())
            }
            Err(message) => {
                self.ledger.not_started(&entry, &message);
                Err(Error::Start(message))
            }
        }
    }

    fn running(self: &Arc<Self>, entry: &Arc<Entry>, started_at: SystemTime) {
        self.ledger.running(entry, started_at);
        if let Some(process) = entry.process()
            && !self
                .hosts
                .running()
                .iter()
                .any(|host| Arc::ptr_eq(host, &process))
        {
            self.watch_runner(entry.clone(), process);
        }
    }

    /// Starts a process for guests who live there, with the patience of [`Process::spawn`].
    pub(super) async fn spawn(
        self: &Arc<Self>,
        subcommand: &str,
        folder: &Path,
        home: &Home,
        patience: Option<Duration>,
    ) -> io::Result<Arc<Process>> {
        let user = self.user(&home.namespace)?;
        let ears = Arc::new(Ears(Arc::downgrade(self)));
        let placement = &self.placement;
        Process::spawn(placement, subcommand, folder, user, home, patience, ears).await
    }

    /// Runs a command guest in a process of its own.
    async fn run(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        home: &Home,
        spec: GuestSpec,
    ) -> std::result::Result<(), String> {
        let folder = Folders::runner(self.ledger.records(), &entry.record.id);
        let runner = self
            .spawn("wasm-runner", &folder, home, None)
            .await
            .map_err(|error| format!("starting the guest's process: {error}"))?;
        if let Some(score) = entry.record.config.oom_score_adj {
            runner.rank(score);
        }
        entry.set_process(Some(runner.clone()));
        let answer = self.ask_to_serve(&runner, spec).await;
        match answer {
            Ok(result) if result.is_ok() => Ok(()),
            Ok(result) => {
                runner.kill();
                runner.wait().await;
                result
            }
            Err(error) => {
                runner.kill();
                let ended = runner.wait().await;
                // One that ran and ended at once had no time to answer.
                let exit = folders::exit(self.ledger.records(), &entry.record.id);
                let exit = exit.ok().flatten();
                if exit.is_some_and(|exit| exit.reason != "StartError") {
                    return Ok(());
                }
                Err(format!(
                    "the guest's process ended before the guest ran ({}, {error}): {}",
                    ended.describe(),
                    runner.errors()
                ))
            }
        }
    }

    /// Has an HTTP guest served by the host where it lives.
    async fn serve(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        home: &Home,
        spec: GuestSpec,
    ) -> std::result::Result<(), String> {
        let mut failure = String::new();
        // A host may be closing, or die, while it is asked: the next one is asked again, once.
        for _ in 0..2 {
            let host = self
                .host(home)
                .await
                .map_err(|error| format!("starting the HTTP host: {error}"))?;
            entry.set_process(Some(host.clone()));
            match self.ask_to_serve(&host, spec.clone()).await {
                Ok(result) => return result,
                Err(error) => {
                    entry.set_process(None);
                    let ended = self.end_of(&host).await;
                    failure = format!(
                        "the HTTP host of {home} ended ({}, {error}): {}",
                        ended.describe(),
                        host.errors()
                    );
                }
            }
        }
        Err(failure)
    }

    pub(super) fn watch_runner(self: &Arc<Self>, entry: Arc<Entry>, runner: Arc<Process>) {
        let inner = self.clone();
        self.tasks.spawn(async move {
            let detached = inner.detached.clone();
            let watched = detached.run_until_cancelled(inner.end_of(&runner)).await;
            if let Some(ended) = watched {
                let message = format!(
                    "the guest's process ended ({}): {}",
                    ended.describe(),
                    runner.errors()
                );
                let exit = inner.exit_after(&entry, message);
                let listened = !runner.listeners().is_empty();
                inner.ledger.exited(&entry, exit);
                if listened {
                    inner.ledger.tell(RuntimeEvent::Listeners);
                }
            }
        });
    }

    pub(super) async fn stop(&self, entry: &Entry, grace: Duration) -> Result<()> {
        // One that is being started is stopped when it runs.
        let starting = entry.starting.lock().await;
        if !entry.is_running() {
            return Ok(());
        }
        drop(starting);
        let Some(process) = entry.process() else {
            entry.ended().await;
            return Ok(());
        };
        let container = entry.record.id.clone();
        let request = process.request(Request::Stop { container, grace });
        let ended = async {
            // A runner ends without an answer; either way the state tells.
            let _ = request.await;
            entry.ended().await;
        };
        if tokio::time::timeout(grace.saturating_add(PATIENCE), ended)
            .await
            .is_err()
        {
            tracing::warn!(
                container = entry.record.id.0,
                "killing a guest process that does not end its guest"
            );
            process.kill();
            entry.ended().await;
        }
        Ok(())
    }

    pub(super) async fn remove_container(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let Ok(entry) = self.ledger.entry(id) else {
            return Ok(());
        };
        self.stop(&entry, Duration::ZERO).await?;
        self.execs.ended(id).await;
        if self.ledger.remove_container(&entry)?
            && let Ok(sandbox) = self.ledger.sandbox(&entry.record.sandbox)
        {
            self.close_idle_host(Home::of(&sandbox));
        }
        Ok(())
    }

    pub(super) async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let closed = self.ledger.close_sandbox(id)?;
        let entries = self.ledger.entries_of(id);
        let stops = entries.iter().map(|entry| self.stop(entry, Duration::ZERO));
        for result in futures::future::join_all(stops).await {
            result?;
        }
        if let Ok(sandbox) = self.ledger.sandbox(id) {
            self.close_own_host(&sandbox).await;
        }
        if let Some(sandbox) = closed {
            self.ledger.tell_sandbox(&sandbox);
        }
        Ok(())
    }

    /// All processes that run guests.
    pub(super) fn processes(&self) -> Vec<Arc<Process>> {
        let mut processes = self.hosts.running();
        let hosts = processes.len();
        for entry in self.ledger.entries() {
            if let Some(process) = entry.process()
                && !processes[..hosts]
                    .iter()
                    .any(|host| Arc::ptr_eq(host, &process))
            {
                processes.push(process);
            }
        }
        processes
    }

    /// Lets go of all processes; hosts that serve nobody are closed.
    pub(super) async fn detach(&self) {
        for home in self.homes_with_host() {
            if let Some(host) = self.close_host(&home).await {
                // Whoever watches it may be cancelled before it can clear up.
                self.end_of(&host).await;
                if let Err(error) = disk::remove_dir(host.folder()) {
                    tracing::warn!(%error, "removing the folder of an HTTP host");
                }
            }
        }
        self.detached.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        for entry in self.ledger.entries() {
            entry.set_process(None);
        }
        self.dispatches.clear();
        self.hosts.clear();
    }

    /// Asks a process to serve a guest. The outer error means that the process is gone.
    async fn ask_to_serve(
        &self,
        process: &Arc<Process>,
        spec: GuestSpec,
    ) -> io::Result<std::result::Result<(), String>> {
        let container = spec.container.clone();
        let asked = process.clone();
        let request = async move { asked.request(Request::Serve(Box::new(spec))).await };
        let mut request = Box::pin(request);
        match tokio::time::timeout(START, &mut request).await {
            Ok(Ok(Response::Done)) => Ok(Ok(())),
            Ok(Ok(Response::Failed(message))) => Ok(Err(message)),
            Ok(Ok(other)) => Ok(Err(format!("the guest process answered {other:?}"))),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.end_late(process.clone(), container, request);
                Ok(Err(format!(
                    "the guest was not instantiated within {} seconds",
                    START.as_secs()
                )))
            }
        }
    }

    /// Ends a guest that a busy host serves after all when nobody waits for it any more: it would
    /// keep the port from the container that follows.
    fn end_late(
        &self,
        process: Arc<Process>,
        container: ContainerId,
        served: impl Future<Output = io::Result<Response>> + Send + 'static,
    ) {
        let detached = self.detached.clone();
        self.tasks.spawn(async move {
            let end = async {
                if let Ok(Response::Done) = served.await {
                    let grace = Duration::ZERO;
                    let stop = Request::Stop { container, grace };
                    if let Err(error) = process.request(stop).await {
                        tracing::warn!(%error, "ending a guest that was served too late");
                    }
                }
            };
            detached.run_until_cancelled(end).await;
        });
    }
}
