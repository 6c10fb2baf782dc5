//! Further guests in a running container: `kubectl exec`, probes and hooks that are commands.
//!
//! A container has no programs beside its own but WebAssembly that its image or its volumes hold:
//!
//! ```text
//! command ──► program: the image's layer of that title, or a file in a volume
//!    │          compiled as images are, by `wasm-compile`  │ there is none, or it is no command:
//!    ▼                                                     └─► 126, and why
//! a `wasm-runner` beside the container's process, in the same sandbox: user, network namespace,
//! volumes, environment. Its streams are pipes of the session.
//!    │ it ends, the session is let go, the container ends, or no agent is connected any more
//!    ▼
//! exit code, and its folder is removed
//! ```
//!
//! The container's limits hold for each further guest by itself. What one listens on is not
//! announced to other Pods.

mod program;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use coracle_images::{ImageKind, StoredImage};
use coracle_runtime::streaming::{ExecConfig, Output, Pipes, Session, Wanted};
use coracle_runtime::{ContainerId, Error, Exit, GuestUser, Result, disk};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::home::Home;
use super::lifecycle::START;
use super::process::Process;
use super::{Entry, Inner, spec};
use crate::compile::{self, Artifact};
use crate::launch::SCRATCH;
use crate::protocol::{GuestSpec, Kind, Request, Response};

/// The exit code of what cannot be run, as shells have it.
const CANNOT_RUN: i32 = 126;
const ENDED: &str = "exec: the container has ended";
const NO_TERMINAL: &str = "exec: WebAssembly has no terminals: leave -t (--tty) out";
/// Further guests of a container at a time.
const MOST: usize = 16;
/// Compiled programs that are kept for the next time, beside those of images.
const KEPT: usize = 32;
/// How long the program of a session may take to be read and compiled, with those before it.
const COMPILE: Duration = Duration::from_secs(60);
/// How long a further guest outlives its agent.
const ALONE: Duration = Duration::from_secs(5);
const EXIT: &str = "exit.json";

/// The further guests of a node.
#[derive(Default)]
pub(super) struct Execs {
    /// The containers that have some, each as often as it has.
    running: watch::Sender<Vec<ContainerId>>,
    /// Digests of modules that were compiled for sessions, the last one last.
    kept: Mutex<Vec<String>>,
    /// One program is read at a time, for they are read into memory.
    reading: tokio::sync::Mutex<()>,
    /// One lock per namespace that has a program compiled. Its sessions wait for each other, so that
    /// images and the sessions of others have at most one of them before them.
    compiling: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Execs {
    /// The lock of a namespace.
    fn compiling(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut compiling = self.compiling.lock();
        compiling.retain(|_, lock| lock.strong_count() > 0);
        let lock = compiling.get(namespace).and_then(Weak::upgrade);
        lock.unwrap_or_else(|| {
            let lock = Arc::default();
            compiling.insert(namespace.to_owned(), Arc::downgrade(&lock));
            lock
        })
    }
}

/// The place of a further guest among those of its container.
struct Place {
    inner: Arc<Inner>,
    container: ContainerId,
}

impl Place {
    fn take(inner: &Arc<Inner>, container: &ContainerId) -> Result<Self> {
        let taken = inner.execs.running.send_if_modified(|running| {
            let have = running.iter().filter(|of| *of == container).count();
            if have < MOST {
                running.push(container.clone());
            }
            have < MOST
        });
        if !taken {
            return Err(Error::State(format!(
                "{MOST} further commands run in container {} already: end one of them",
                container.0
            )));
        }
        Ok(Self {
            inner: inner.clone(),
            container: container.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.execs.running.send_modify(|running| {
            if let Some(at) = running.iter().position(|of| *of == self.container) {
                running.swap_remove(at);
            }
        });
    }
}

impl Execs {
    /// Waits until a container, which has ended, has no further guests.
    pub(super) async fn ended(&self, container: &ContainerId) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|all| !all.contains(container)).await;
    }

    /// Keeps a compiled program; the one that has to go for it.
    fn keep(&self, digest: &str) -> Option<String> {
        let mut kept = self.kept.lock();
        kept.retain(|known| known != digest);
        kept.push(digest.to_owned());
        (kept.len() > KEPT).then(|| kept.remove(0))
    }
}

impl Inner {
    /// Runs a command in a container. What was begun goes on if the caller gives up, and ends with
    /// the session that nobody has.
    pub(super) async fn exec(
        self: &Arc<Self>,
        id: &ContainerId,
        config: ExecConfig,
    ) -> Result<Session> {
        let entry = self.ledger.entry(id)?;
        if !entry.is_running() {
            return Err(Error::State(format!("container {} does not run", id.0)));
        }
        if config.terminal {
            return Ok(refused(NO_TERMINAL, true));
        }
        let place = Place::take(self, id)?;
        let inner = self.clone();
        let begun = self
            .tasks
            .spawn(async move { inner.begin(entry, config, place).await });
        match begun.await {
            Ok(session) => session,
            Err(error) => Err(Error::Start(format!("the start was cut off: {error}"))),
        }
    }

    async fn begin(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        config: ExecConfig,
        place: Place,
    ) -> Result<Session> {
        let record = &entry.record;
        let sandbox = self.ledger.sandbox(&record.sandbox)?;
        let image = self.image(&record.config.image_digest)?;
        let home = Home::of(&sandbox);
        let failed = |context: &str, error| Error::io(context.to_owned(), error);
        let user = self
            .user(&home.namespace)
            .map_err(|error| failed("finding the user of a guest", error))?;
        let folder = tempfile::Builder::new()
            .prefix("exec-")
            .tempdir_in(self.ledger.records().container_folder(&record.id))
            .map_err(|error| failed("making a folder for a further guest", error))?;
        let exit_file = match user {
            Some(_) => folder.path().join(SCRATCH),
            None => folder.path().to_owned(),
        };
        let exit_file = exit_file.join(EXIT);
        let mut spec = spec::guest(
            record,
            &sandbox,
            &image.config,
            self.mounts(record)?,
            Artifact {
                code: Default::default(),
                kind: Kind::Command,
            },
            SystemTime::now(),
            exit_file.clone(),
        );
        spec.argv = config.command;
        spec.termination_message = None;
        let container_folder = self.ledger.records().container_folder(&record.id);
        let program = self.program(&image, &spec, user, &home.namespace, &container_folder);
        let program = tokio::select! {
            program = program => program,
            () = entry.ended() => Err(ENDED.to_owned()),
        };
        let program = match program {
            Ok(program) => program,
            Err(why) => return Ok(refused(&why, false)),
        };
        (spec.artifact, spec.kind) = (program.code, program.kind);
        let spec = self.placement.localize(spec);
        let process = self
            .spawn("wasm-runner", folder.path(), &home, Some(ALONE))
            .await
            .map_err(|error| failed("starting the process of a further guest", error))?;
        if let Some(score) = record.config.oom_score_adj {
            process.rank(score);
        }
        let (pipes, ends) = Pipes::new(config.wanted)
            .map_err(|error| failed("making the streams of a guest", error))?;
        let ends = ends.into_iter().flatten().collect();
        let runs = tokio::select! {
            runs = run(&process, spec, config.wanted, ends, &exit_file) => runs,
            () = entry.ended() => Err(ENDED.to_owned()),
        };
        if let Err(why) = runs {
            process.kill();
            process.wait().await;
            return Ok(refused(&why, false));
        }
        let let_go = CancellationToken::new();
        let guard = config.kill_on_drop.then(|| let_go.clone().drop_guard());
        let (told, code) = oneshot::channel();
        let detached = self.detached.clone();
        self.tasks.spawn(async move {
            let cut_off = tokio::select! {
                _ = process.wait() => false,
                () = let_go.cancelled() => true,
                () = entry.ended() => true,
                () = detached.cancelled() => true,
            };
            if cut_off {
                process.kill();
                process.wait().await;
            }
            let code = code_of(&exit_file);
            remove(folder);
            drop(place);
            // Whoever listens no more need not be told.
            let _ = told.send(code);
        });
        let exit = async move {
            let _guard = guard;
            code.await
                .map_err(|_| Error::State("the further guest is not watched any more".into()))
        };
        Ok(pipes.session(None, Box::pin(exit)))
    }

    /// The compiled program of a command, or why it cannot be run.
    async fn program(
        &self,
        image: &StoredImage,
        spec: &GuestSpec,
        user: Option<GuestUser>,
        namespace: &str,
        folder: &Path,
    ) -> std::result::Result<Artifact, String> {
        let ImageKind::Wasm { layers, .. } = &image.kind else {
            return Err(program::NOT_WASM.to_owned());
        };
        let found = program::find(spec, layers)?;
        let compiling = async {
            match found {
                program::Found::Layer(digest) => {
                    let path = self.config.content.blob_path(&digest);
                    self.compiled(namespace, &digest.hex(), &path).await
                }
                program::Found::File(file) => {
                    let folder = folder.to_owned();
                    let copied = {
                        let _reading = self.execs.reading.lock().await;
                        let copy = tokio::task::spawn_blocking(move || file.copy(user, &folder));
                        copy.await
                    };
                    let copied = copied.map_err(|error| error.to_string())??;
                    let digest = copied.digest.hex();
                    self.compiled(namespace, &digest, copied.path()).await
                }
            }
        };
        let compiled = tokio::time::timeout(COMPILE, compiling).await;
        let compiled = compiled.map_err(|_| {
            let seconds = COMPILE.as_secs();
            format!("it was not compiled within {seconds} seconds")
        });
        let name = spec.argv.first().map_or("", String::as_str);
        let artifact = compiled
            .flatten()
            .map_err(|why| format!("exec: {name} cannot run: {why}"))?;
        if artifact.kind == Kind::Http {
            return Err(format!(
                "exec: {name} cannot run: it serves HTTP, and is no command"
            ));
        }
        Ok(artifact)
    }

    async fn compiled(
        &self,
        namespace: &str,
        digest: &str,
        module: &Path,
    ) -> std::result::Result<Artifact, String> {
        let lock = self.execs.compiling(namespace);
        let _turn = match self.cache.get(digest) {
            Some(_) => None,
            None => Some(lock.lock().await),
        };
        let artifact = self.cache.ensure(digest, module).await;
        let artifact = artifact.map_err(|error| match error {
            compile::Error::Invalid(why) => why,
            compile::Error::Io { .. } => error.to_string(),
        })?;
        if let Some(gone) = self.execs.keep(digest)
            && !self.is_of_image(&gone)
            && let Err(error) = self.cache.remove(&gone)
        {
            tracing::warn!(%error, "removing a compiled program");
        }
        Ok(artifact)
    }

    fn is_of_image(&self, digest: &str) -> bool {
        let images = self.config.content.images();
        images.iter().any(|image| match &image.kind {
            ImageKind::Wasm { module, .. } => module.hex() == digest,
            ImageKind::Container { .. } => false,
        })
    }
}

/// Has a process run its guest; or why it does not.
async fn run(
    process: &Process,
    spec: GuestSpec,
    wanted: Wanted,
    ends: Vec<std::os::fd::OwnedFd>,
    exit_file: &Path,
) -> std::result::Result<(), String> {
    let spec = Box::new(spec);
    let request = Request::Exec { spec, wanted };
    let asked = process.client().request_with(request, ends);
    match tokio::time::timeout(START, asked).await {
        Ok(Ok(Response::Done)) => Ok(()),
        Ok(Ok(Response::Failed(why))) => Err(format!("exec: {why}")),
        Ok(Ok(other)) => Err(format!("exec: the guest's process answered {other:?}")),
        // One that ran and ended at once had no time to answer.
        Ok(Err(error)) => {
            process.wait().await;
            match exit(exit_file) {
                Ok(Some(exit)) if exit.reason != "StartError" => Ok(()),
                Ok(Some(exit)) => Err(format!("exec: {}", exit.message)),
                _ => Err(format!("exec: {error}: {}", process.errors())),
            }
        }
        Err(_) => Err("exec: the guest was not instantiated in time".to_owned()),
    }
}

/// What the guest's user may have put there is read with care.
fn exit(file: &Path) -> io::Result<Option<Exit>> {
    disk::read_foreign_json(file)
}

/// The exit code that a process has left; that of one that was killed, if it has not.
fn code_of(exit_file: &Path) -> i32 {
    match exit(exit_file) {
        Ok(exit) => exit.map_or(137, |exit| exit.code),
        Err(error) => {
            tracing::warn!(%error, "reading how a further guest ended");
            137
        }
    }
}

fn remove(folder: tempfile::TempDir) {
    let path = folder.keep();
    if let Err(error) = disk::remove_dir(&path) {
        tracing::warn!(%error, path = %path.display(), "removing the folder of a further guest");
    }
}

/// A session of a command that does not run, which says so; on a terminal there is one output.
fn refused(why: &str, terminal: bool) -> Session {
    let said: Output = Box::pin(io::Cursor::new(format!("{why}\n").into_bytes()));
    let (stdout, stderr) = match terminal {
        true => (Some(said), None),
        false => (None, Some(said)),
    };
    Session {
        stdin: None,
        stdout,
        stderr,
        resize: None,
        exit: Box::pin(async { Ok(CANNOT_RUN) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_of_a_namespace_wait_for_each_other_only() {
        let execs = Execs::default();
        let (one, same) = (execs.compiling("one"), execs.compiling("one"));
        let other = execs.compiling("other");
        let turn = one.try_lock();
        assert!(turn.is_ok() && same.try_lock().is_err());
        assert!(other.try_lock().is_ok());
        drop(turn);
        drop((one, same));
        execs.compiling("other");
        assert_eq!(execs.compiling.lock().len(), 1);
    }
}
