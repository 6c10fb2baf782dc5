//! Ahead-of-time compilation: the cache, and the process that fills it.
//!
//! Compiled code lies in `<cache>/<compatibility>/<sha256 of the module>/`, where the first part
//! is a hash of the engine's version and settings: an upgrade compiles anew and never loads what
//! it does not understand. Mapping compiled code is trusting it, so only the agent writes the
//! folder, guests with users of their own read it, and an entry is renamed into place only after
//! the compiler has succeeded.

pub(crate) mod child;
mod classify;
mod lanes;

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use coracle_runtime::GuestUser;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::guest::engine;
use crate::launch;
use crate::protocol::Kind;
use coracle_runtime::disk::{self, Access};
use lanes::{Lane, Lanes, Trial};

/// What is read of the compiler's answer.
const MAX_ANSWER: u64 = 64 << 10;
/// The engine's version; a test holds it against the lock file.
const WASMTIME: &str = "48.0.8";
const CODE: &str = "code";
const TEMPORARY: &str = "tmp";
const RECORD: &str = "module.json";

/// Why a module could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The module itself is at fault.
    #[error("{0}")]
    Invalid(String),
    /// The node is at fault.
    #[error("{context}: {source}")]
    Io {
        context: String,
        #[source]
        source: io::Error,
    },
}

fn fault(context: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let context = context.into();
    move |source| Error::Io { context, source }
}

/// A module that is ready to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub code: PathBuf,
    pub kind: Kind,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    kind: Kind,
}

/// What the compiler answers on its standard output.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Compiled(Kind),
    Refused(String),
}

/// The cache of compiled modules.
pub(crate) struct Cache {
    folder: PathBuf,
    exe: PathBuf,
    /// The compiler's; if it has one, so have guests, and the cache is theirs to read.
    user: Option<GuestUser>,
    /// Few compilations at a time, so that a burst of pulls does not starve the node.
    lanes: Lanes,
}

impl Cache {
    /// Opens the cache in `root`; what an interrupted compilation left is removed. With a user for
    /// the compiler the guests, too, have users of their own.
    pub(crate) fn open(root: &Path, exe: PathBuf, user: Option<GuestUser>) -> Result<Self, Error> {
        let compatibility = compatibility().map_err(|error| Error::Io {
            context: "the WebAssembly engine does not start".into(),
            source: io::Error::other(error.to_string()),
        })?;
        let folder = root.join(compatibility);
        disk::private_dir(&folder).map_err(fault(format!("creating {}", folder.display())))?;
        let temporary = folder.join(TEMPORARY);
        disk::remove_dir(&temporary)
            .and_then(|()| disk::private_dir(&temporary))
            .map_err(fault(format!("clearing {}", temporary.display())))?;
        let cache = Self {
            folder,
            exe,
            user,
            lanes: Lanes::new(),
        };
        cache
            .open_up()
            .map_err(fault("letting guests read compiled code"))?;
        Ok(cache)
    }

    /// Lets guests in, also to what was compiled before they had users of their own.
    fn open_up(&self) -> io::Result<()> {
        if self.user.is_none() {
            return Ok(());
        }
        for folder in self.folder.parent().into_iter().chain([&*self.folder]) {
            disk::folder(folder, Access::Passage)?;
        }
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name() != TEMPORARY {
                self.open_up_entry(&entry.path())?;
            }
        }
        Ok(())
    }

    fn open_up_entry(&self, entry: &Path) -> io::Result<()> {
        if self.user.is_none() {
            return Ok(());
        }
        disk::folder(entry, Access::Passage)?;
        match disk::set_mode(&entry.join(CODE), 0o644) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The compiled module, if it is there.
    pub(crate) fn get(&self, digest: &str) -> Option<Artifact> {
        let entry = self.folder.join(digest);
        let record: Record = disk::read_json(&entry.join(RECORD)).ok()??;
        let code = entry.join(CODE);
        code.is_file().then_some(Artifact {
            code,
            kind: record.kind,
        })
    }

    /// Compiles the module in the file `module`, unless that was done.
    pub(crate) async fn ensure(&self, digest: &str, module: &Path) -> Result<Artifact, Error> {
        if let Some(artifact) = self.get(digest) {
            return Ok(artifact);
        }
        let size = fs::metadata(module)
            .map_err(fault(format!("reading {}", module.display())))?
            .len();
        let attempt = |lane| self.attempt(lane, digest, module).boxed();
        let compiled = self.lanes.run(digest, size, attempt).await;
        compiled.map_err(Error::Invalid)?
    }

    async fn attempt(
        &self,
        lane: Lane,
        digest: &str,
        module: &Path,
    ) -> Trial<Result<Artifact, Error>> {
        // It may have been compiled for another one that waited.
        if let Some(artifact) = self.get(digest) {
            return Trial::Answered(Ok(artifact));
        }
        match self.fill(lane, digest, module).await {
            Ok(Trial::Answered(artifact)) => Trial::Answered(Ok(artifact)),
            Ok(Trial::Broke(why)) => Trial::Broke(why),
            Err(error) => Trial::Answered(Err(error)),
        }
    }

    /// Compiles a module into its place.
    async fn fill(
        &self,
        lane: Lane,
        digest: &str,
        module: &Path,
    ) -> Result<Trial<Artifact>, Error> {
        let temporary = tempfile::Builder::new()
            .prefix("compile-")
            .tempdir_in(self.folder.join(TEMPORARY))
            .map_err(fault("making room for compiled code"))?;
        let code = temporary.path().join(CODE);
        let kind = match self.compile(lane, module, &code).await? {
            Trial::Answered(kind) => kind,
            Trial::Broke(why) => return Ok(Trial::Broke(why)),
        };
        disk::write_json(&temporary.path().join(RECORD), &Record { kind })
            .and_then(|()| self.open_up_entry(temporary.path()))
            .map_err(fault("recording a compiled module"))?;
        let entry = self.folder.join(digest);
        disk::remove_dir(&entry)
            .and_then(|()| fs::rename(temporary.path(), &entry))
            .map_err(fault("moving compiled code into its place"))?;
        Ok(Trial::Answered(Artifact {
            code: entry.join(CODE),
            kind,
        }))
    }

    /// Removes what no image needs, by digests of modules, and what other engines left.
    pub(crate) fn sweep(&self, needed: &HashSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name != TEMPORARY && !needed.contains(&*name) {
                disk::remove_dir(&entry.path())?;
            }
        }
        let Some(root) = self.folder.parent() else {
            return Ok(());
        };
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path != self.folder {
                disk::remove_dir(&path)?;
            }
        }
        Ok(())
    }

    /// Forgets a compiled module. Processes that have it mapped keep it.
    pub(crate) fn remove(&self, digest: &str) -> io::Result<()> {
        disk::remove_dir(&self.folder.join(digest))
    }

    async fn compile(&self, lane: Lane, module: &Path, code: &Path) -> Result<Trial<Kind>, Error> {
        let mut child = Command::new(&self.exe)
            .args(["wasm-compile", lane.name()])
            .args([module, code])
            .args(self.user.map(launch::user_text))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(fault("starting the compiler"))?;
        let stdout = read_bounded(child.stdout.take());
        let stderr = read_bounded(child.stderr.take());
        let (stdout, stderr, status) = tokio::join!(stdout, stderr, child.wait());
        let status = status.map_err(fault("waiting for the compiler"))?;
        match serde_json::from_slice(&stdout) {
            Ok(Answer::Compiled(kind)) if status.success() => Ok(Trial::Answered(kind)),
            Ok(Answer::Refused(reason)) => Err(Error::Invalid(reason)),
            _ => {
                let why = broken(status, String::from_utf8_lossy(&stderr).trim());
                // One that ended by itself has met a fault of the node's, which may pass.
                if status.signal().is_none() {
                    return Err(Error::Invalid(why));
                }
                Ok(Trial::Broke(why))
            }
        }
    }
}

/// What is said of a compiler that gave no answer. One that was ended by a signal has most likely used
/// up what it may: the kernel tells nobody.
fn broken(status: ExitStatus, said: &str) -> String {
    let mut text = format!("the module could not be compiled: the compiler ended with {status}");
    if status.signal().is_some() {
        let (seconds, memory) = (child::MAX_CPU, child::MAX_MEMORY >> 30);
        text.push_str(&format!(
            "; it may use {seconds} seconds of CPU time and {memory} GiB of memory: build the module \
             smaller, or without very large functions"
        ));
    }
    if !said.is_empty() {
        text.push_str(": ");
        text.push_str(said);
    }
    text
}

async fn read_bounded(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read before an error is all there is to report.
        let _ = pipe.take(MAX_ANSWER).read_to_end(&mut bytes).await;
    }
    bytes
}

/// The engine's name and version, as a node reports its container runtime.
pub(crate) fn engine_version() -> String {
    format!("wasmtime://{WASMTIME}")
}

fn compatibility() -> wasmtime::Result<String> {
    let engine = engine::on_demand()?;
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_engine() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
        let lock = fs::read_to_string(lock).unwrap();
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"");
        assert!(lock.contains(&entry), "{entry}");
    }

    #[test]
    fn a_compiler_that_was_ended_says_what_it_may_use() {
        let killed = broken(ExitStatus::from_raw(9), "");
        assert!(killed.contains("280 seconds of CPU time"), "{killed}");
        let failed = broken(ExitStatus::from_raw(1 << 8), "no space left");
        assert!(
            failed.ends_with("exit status: 1: no space left"),
            "{failed}"
        );
    }

    #[test]
    fn a_sweep_leaves_what_is_needed() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path(), "coracle".into(), None).unwrap();
        for entry in ["needed", "unneeded"] {
            let folder = cache.folder.join(entry);
            disk::private_dir(&folder).unwrap();
            fs::write(folder.join(CODE), "code").unwrap();
            let record = Record { kind: Kind::Core };
            disk::write_json(&folder.join(RECORD), &record).unwrap();
        }
        disk::private_dir(&root.path().join("other-engine")).unwrap();
        cache.sweep(&HashSet::from(["needed".to_owned()])).unwrap();
        assert!(cache.get("needed").is_some());
        assert!(cache.get("unneeded").is_none());
        assert!(!root.path().join("other-engine").exists());
    }
}
