//! `wasm-runner`: the process of one command guest, be it a container's own or a further one.
//!
//! The guest runs on a thread of its own; the main thread talks to the agent. To end the guest
//! is to end the process, whatever the guest does: there is nothing to wait for.
//!
//! A guest cannot receive signals, so it has what every process has that handles none: asked to
//! end, it ends at once, with the code of a SIGTERM. Waiting for the grace period to pass would
//! only make every roll-out slow.

use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use coracle_runtime::{ContainerId, Exit, Mount, Resources, TERMINATION_LOG};
use tokio::sync::oneshot;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::confine;
use crate::guest::cpu::{Meter, Metered, Ticker};
use crate::guest::engine;
use crate::guest::limits::{Memory, OutOfMemory};
use crate::guest::quota::{MAX_SOCKETS, Quota};
use crate::guest::sockets::Reach;
use crate::guest::state::{self, Environment};
use crate::guest::streams::GuestStreams;
use crate::guest::volumes::{self, Volumes};
use crate::launch::SCRATCH;
use crate::process::NetworkFactory;
use crate::protocol::{GuestSpec, Kind, Use};
use crate::serve::{self, Announcer, Hub, Service, Start};
use coracle_runtime::disk;
use coracle_runtime::log::Log;

/// What a termination message may hold, the kubelet's own bound.
pub(crate) const MAX_MESSAGE: usize = 4096;
/// The stack of the guest's thread: host functions run there, the guest itself has its own.
const STACK: usize = 1 << 20;

/// Runs the process.
pub(crate) fn main(args: &[OsString], network: NetworkFactory) -> Result<(), String> {
    let start = Start::new(args)?;
    confine::guests().map_err(|error| format!("confining the guest process: {error}"))?;
    let engine = engine::on_demand().map_err(|error| format!("{error:#}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let hub = Arc::new(Hub::default());
    let runner = Arc::new(Runner {
        network,
        engine,
        hub: hub.clone(),
        scratch: start.folder.join(SCRATCH),
        guest: OnceLock::new(),
    });
    runtime
        .block_on(serve::run(start, hub, runner))
        .map_err(|error| error.to_string())
}

struct Runner {
    network: NetworkFactory,
    engine: Engine,
    hub: Arc<Hub>,
    scratch: PathBuf,
    guest: OnceLock<Arc<Running>>,
}

/// The guest of this process.
struct Running {
    spec: GuestSpec,
    meter: Arc<Meter>,
    memory: Arc<Memory>,
    streams: GuestStreams,
    ended: OnceLock<()>,
}

impl Runner {
    async fn run(&self, spec: GuestSpec, streams: GuestStreams) -> Result<(), String> {
        let preopens =
            volumes::prepare(&mounts(&spec), &self.scratch).map_err(|error| error.to_string())?;
        let network = (self.network)(&spec.network_snapshot, &spec.ips, spec.attachment)
            .map_err(|error| format!("opening the Pod's network: {error}"))?;
        let running = Arc::new(Running {
            meter: Arc::new(Meter::new(spec.resources.cpu_limit_millis)),
            memory: Arc::new(Memory::new(spec.resources.memory_limit_bytes)),
            streams,
            ended: OnceLock::new(),
            spec,
        });
        if self.guest.set(running.clone()).is_err() {
            return Err("this process has its guest already".into());
        }
        let environment = Arc::new(Environment {
            argv: running.spec.argv.clone().into(),
            env: running.spec.env.clone().into(),
            working_dir: running.spec.working_dir.clone(),
            volumes: Volumes::new(preopens),
            streams: running.streams.clone(),
            memory: running.memory.clone(),
            reach: Arc::new(Reach {
                network,
                listening: Arc::new(Announcer::new(self.hub.clone(), &running.spec)),
                quota: Quota::new(MAX_SOCKETS),
            }),
            files: None,
            may_block: true,
        });
        let engine = self.engine.clone();
        let (started, begun) = oneshot::channel();
        std::thread::Builder::new()
            .name("guest".into())
            .stack_size(STACK)
            .spawn(move || {
                let guest = || guest_thread(&running, &environment, &engine, started);
                or_end(guest, || {
                    running.finish(End::new(134, "Error", "the runtime broke under the guest"));
                });
            })
            .map_err(|error| format!("starting the guest's thread: {error}"))?;
        begun
            .await
            .unwrap_or_else(|_| Err("the guest's thread ended before the guest began".into()))
    }
}

#[async_trait]
impl Service for Runner {
    async fn serve(&self, spec: GuestSpec) -> Result<(), String> {
        let log = Arc::new(Log::new(spec.log_file.clone(), spec.log_limits));
        log.create()
            .map_err(|error| format!("log {}: {error}", spec.log_file.display()))?;
        let streams = GuestStreams::new(&log, spec.stdio);
        self.run(spec, streams).await
    }

    async fn exec(&self, spec: GuestSpec, streams: GuestStreams) -> Result<(), String> {
        self.run(spec, streams).await
    }

    async fn stop(&self, container: &ContainerId, grace: Duration) {
        if let Some(running) = self.guest.get()
            && running.spec.container == *container
        {
            let end = if grace.is_zero() {
                End::new(137, "Error", "the guest was killed")
            } else {
                End::new(143, "Error", "the guest was asked to end")
            };
            running.finish(end);
        }
    }

    fn update(&self, _: &ContainerId, resources: &Resources) {
        if let Some(running) = self.guest.get() {
            running.meter.set_limit(resources.cpu_limit_millis);
            running.memory.set_limit(resources.memory_limit_bytes);
        }
    }

    fn stats(&self) -> Vec<Use> {
        let running = self.guest.get().into_iter();
        running
            .map(|running| Use {
                container: running.spec.container.clone(),
                cpu: running.meter.used(),
                memory_bytes: resident().unwrap_or_else(|| running.memory.used()),
                traps: 0,
            })
            .collect()
    }

    fn guests(&self) -> Vec<ContainerId> {
        let running = self.guest.get().into_iter();
        running
            .map(|running| running.spec.container.clone())
            .collect()
    }

    fn streams(&self, container: &ContainerId) -> Option<GuestStreams> {
        let running = self.guest.get();
        let running = running.filter(|running| running.spec.container == *container);
        running.map(|running| running.streams.clone())
    }

    fn abandon(&self) {
        match self.guest.get() {
            Some(running) => running.finish(End::new(
                137,
                "Error",
                "the guest was ended since no agent had come back for it",
            )),
            None => serve::end_process(),
        }
    }
}

/// The volumes, and the file of the termination message. Only command guests have it: an HTTP guest
/// does not end by itself.
fn mounts(spec: &GuestSpec) -> Vec<Mount> {
    let mut mounts = spec.mounts.clone();
    let path = spec.termination_path.as_deref();
    let path = path.unwrap_or(Path::new(TERMINATION_LOG));
    if let Some(message) = &spec.termination_message
        && message.is_file()
        && !mounts
            .iter()
            .any(|mount| path.starts_with(&mount.container_path) || mount.host_path == *message)
    {
        mounts.push(Mount {
            host_path: message.clone(),
            container_path: path.to_owned(),
            read_only: false,
            ..Mount::default()
        });
    }
    mounts
}

/// Memory of this process that no other has, bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes << 10)
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    code: i32,
    reason: &'static str,
    message: String,
}

impl End {
    fn new(code: i32, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
        }
    }

    fn exited(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self::new(code, reason, "")
    }

    fn of(result: wasmtime::Result<Result<(), ()>>) -> Self {
        let error = match result {
            Ok(Ok(())) => return Self::exited(0),
            Ok(Err(())) => return Self::exited(1),
            Err(error) => error,
        };
        if let Some(I32Exit(code)) = error.downcast_ref() {
            // Exit statuses have eight bits, as everywhere.
            return Self::exited(code & 0xff);
        }
        if let Some(out) = error.downcast_ref::<OutOfMemory>() {
            return Self::new(137, "OOMKilled", out.to_string());
        }
        // 128 + SIGABRT, as for a process that aborts.
        Self::new(134, "Error", describe(&error))
    }
}

/// A trap as a user wants to read it: what happened first, then where.
pub(crate) fn describe(error: &wasmtime::Error) -> String {
    let mut text = error.root_cause().to_string();
    let context = error.to_string();
    if context != text {
        text.push('\n');
        text.push_str(context.trim_end());
    }
    truncate(&mut text, MAX_MESSAGE);
    text
}

/// Cuts a text to so many bytes at most, between characters.
pub(crate) fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let mut end = bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

impl Running {
    /// Writes how the guest ended, and ends the process. Only the first call does.
    fn finish(&self, end: End) {
        if self.ended.set(()).is_err() {
            return;
        }
        self.streams.end();
        if !end.message.is_empty() {
            self.streams.tell(&end.message);
        }
        if !end.message.is_empty()
            && let Some(path) = &self.spec.termination_message
        {
            write_message(path, &end.message);
        }
        let exit = Exit {
            started_at: Some(self.spec.started_at),
            finished_at: SystemTime::now(),
            code: end.code,
            reason: end.reason.into(),
            message: end.message,
        };
        if let Err(error) = disk::write_json(&self.spec.exit_file, &exit) {
            eprintln!("writing {}: {error}", self.spec.exit_file.display());
        }
        serve::end_process();
    }
}

/// A message that the guest wrote itself stays.
fn write_message(path: &Path, message: &str) {
    let empty = std::fs::metadata(path).map_or(true, |metadata| metadata.len() == 0);
    if empty && let Err(error) = std::fs::write(path, message) {
        eprintln!("writing {}: {error}", path.display());
    }
}

type Started = oneshot::Sender<Result<(), String>>;

fn guest_thread(
    running: &Running,
    environment: &Arc<Environment>,
    engine: &Engine,
    started: Started,
) {
    let end = match run(running, environment, engine, started) {
        Ok(end) => end,
        Err(message) => End::new(128, "StartError", message),
    };
    running.streams.end();
    if let Err(error) = running.streams.heard() {
        eprintln!("those who attached have not heard the end: {error}");
    }
    running.finish(end);
}

fn run(
    running: &Running,
    environment: &Arc<Environment>,
    engine: &Engine,
    started: Started,
) -> Result<End, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(8)
        .build()
        .map_err(|error| error.to_string())?;
    let ticker = Ticker::start(engine).map_err(|error| error.to_string())?;
    let guest = Box::pin(async {
        match running.spec.kind {
            Kind::Core => core(running, environment, engine, started).await,
            Kind::Command => command(running, environment, engine, started).await,
            Kind::Http => {
                let _ = started.send(Err("an HTTP guest needs the HTTP host".into()));
                Ok(Ok(()))
            }
        }
    });
    let metered = Metered::new(guest, running.meter.clone(), ticker);
    Ok(End::of(runtime.block_on(metered)))
}

/// Runs a guest; ends it also where the runtime panics under it. A process without its guest's thread
/// would say for ever that the guest runs.
fn or_end(guest: impl FnOnce(), end: impl FnOnce()) {
    // What was left half done is of a process that is about to end.
    if std::panic::catch_unwind(AssertUnwindSafe(guest)).is_err() {
        end();
    }
}

/// Tells whether a guest could be made, before its code begins.
fn begin<T>(started: Started, made: wasmtime::Result<T>) -> wasmtime::Result<T> {
    // An agent that is gone meanwhile finds the guest running when it comes back.
    let _ = started.send(match &made {
        Ok(_) => Ok(()),
        Err(error) => Err(describe(error)),
    });
    made
}

async fn core(
    running: &Running,
    environment: &Arc<Environment>,
    engine: &Engine,
    started: Started,
) -> wasmtime::Result<Result<(), ()>> {
    let made = async {
        // SAFETY: the file was compiled by this node, see `crate::compile`.
        let module = unsafe { Module::deserialize_file(engine, &running.spec.artifact) }?;
        let pre = state::core_linker(engine)?.instantiate_pre(&module)?;
        let mut store = environment.core_store(engine)?;
        let instance = pre.instantiate_async(&mut store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        Ok((store, start))
    };
    let (mut store, start) = begin(started, made.await)?;
    start.call_async(&mut store, ()).await?;
    Ok(Ok(()))
}

async fn command(
    running: &Running,
    environment: &Arc<Environment>,
    engine: &Engine,
    started: Started,
) -> wasmtime::Result<Result<(), ()>> {
    let made = async {
        // SAFETY: the file was compiled by this node, see `crate::compile`.
        let component = unsafe { Component::deserialize_file(engine, &running.spec.artifact) }?;
        let pre = state::component_linker(engine)?.instantiate_pre(&component)?;
        let mut store = environment.component_store(engine)?;
        let command = CommandPre::new(pre)?.instantiate_async(&mut store).await?;
        Ok((store, command))
    };
    let (mut store, command) = begin(started, made.await)?;
    command.wasi_cli_run().call_run(&mut store).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ends_become_exit_codes() {
        let code = |result| {
            let end = End::of(result);
            (end.code, end.reason)
        };
        assert_eq!(code(Ok(Ok(()))), (0, "Completed"));
        assert_eq!(code(Ok(Err(()))), (1, "Error"));
        assert_eq!(code(Err(I32Exit(0).into())), (0, "Completed"));
        assert_eq!(code(Err(I32Exit(3).into())), (3, "Error"));
        assert_eq!(code(Err(wasmtime::Error::msg("boom"))), (134, "Error"));
    }

    #[test]
    fn a_message_the_guest_wrote_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_message(file.path(), "trap");
        write_message(file.path(), "again");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "trap");
    }

    #[test]
    fn a_guest_whose_thread_panics_has_ended() {
        let ended = std::cell::Cell::new(0);
        or_end(|| (), || ended.set(1));
        assert_eq!(ended.get(), 0);
        or_end(|| panic!("under the guest"), || ended.set(2));
        assert_eq!(ended.get(), 2);
    }

    #[test]
    fn text_is_cut_between_characters() {
        let mut text = "aé".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a");
    }
}
