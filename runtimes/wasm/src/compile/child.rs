//! The compiler's process: `wasm-compile <lane> <module> <code> [UID:GID]`.
//!
//! Input is hostile: the process is niced, bounded in memory, time and file size, and confined
//! before it reads the module. Both files are opened before that, so that a compiler with a user
//! of its own may enter no folder. The answer goes to standard output as JSON.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::lanes::Lane;
use super::{Answer, classify};
use crate::confine;
use crate::guest::engine;
use crate::launch;

const USAGE: &str = "usage: wasm-compile quick|slow <module> <code> [UID:GID]";
/// Largest module, text or binary.
const MAX_MODULE: u64 = 256 << 20;
/// Address space of the compiler.
pub(super) const MAX_MEMORY: u64 = 6 << 30;
/// Largest compiled module.
const MAX_CODE: u64 = 2 << 30;
/// CPU time of the compiler, seconds.
pub(super) const MAX_CPU: u64 = 280;

/// Runs the compiler.
pub(crate) fn main(args: &[OsString]) -> Result<(), String> {
    let (lane, module, code, user) = match args {
        [lane, module, code] => (lane, module, code, None),
        [lane, module, code, user] => (lane, module, code, Some(launch::user(user)?)),
        _ => return Err(USAGE.into()),
    };
    let lane = lane.to_str().and_then(Lane::parse).ok_or(USAGE)?;
    let (module, code) = (Path::new(module), Path::new(code));
    let input = File::open(module).map_err(|error| fault("opening", module, &error))?;
    let output = File::create_new(code).map_err(|error| fault("making", code, &error))?;
    // A node that does not let us be nice is no reason not to compile.
    let _ = nice(lane.nice());
    for (resource, bound) in [
        (Resource::As, MAX_MEMORY),
        (Resource::Cpu, MAX_CPU),
        (Resource::Fsize, MAX_CODE),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(bound),
            maximum: Some(bound),
        };
        setrlimit(resource, limit).map_err(|error| format!("bounding the compiler: {error}"))?;
    }
    // Where memory runs out before its bound it goes first, and not as late as the agent would.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    if let Some(user) = user {
        // The filter leaves it no sockets; this is for what the filter may miss, where the kernel
        // has it.
        let _ = leave_network();
        launch::become_user(user)
            .map_err(|error| format!("becoming user {}: {error}", user.uid))?;
    }
    confine::compiler().map_err(|error| format!("confining the compiler: {error}"))?;
    let answer = match compile(input, output) {
        Ok(kind) => Answer::Compiled(kind),
        Err(Failure::Refused(reason)) => Answer::Refused(reason),
        Err(Failure::Fault(message)) => return Err(message),
    };
    let answer = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
    std::io::stdout()
        .write_all(&answer)
        .map_err(|error| format!("answering: {error}"))
}

fn fault(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{what} {}: {error}", path.display())
}

/// Moves into a network namespace without any network.
fn leave_network() -> io::Result<()> {
    // SAFETY: only sharing open files between threads can go wrong, and that is not asked for.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

enum Failure {
    /// The module is at fault.
    Refused(String),
    /// The node is.
    Fault(String),
}

fn compile(mut module: File, mut code: File) -> Result<crate::protocol::Kind, Failure> {
    let fault = |what: &str, error: io::Error| Failure::Fault(format!("{what}: {error}"));
    let size = module
        .metadata()
        .map_err(|error| fault("reading the module", error))?
        .len();
    if size > MAX_MODULE {
        return Err(Failure::Refused(format!(
            "the module has {size} bytes, more than the {MAX_MODULE} that are compiled"
        )));
    }
    let mut bytes = Vec::new();
    module
        .read_to_end(&mut bytes)
        .map_err(|error| fault("reading the module", error))?;
    let binary = classify::binary(&bytes).map_err(Failure::Refused)?;
    let engine = engine::on_demand().map_err(|error| Failure::Fault(format!("{error:#}")))?;
    let (kind, compiled) = classify::compile(&engine, &binary).map_err(Failure::Refused)?;
    code.write_all(&compiled)
        .map_err(|error| fault("writing the compiled module", error))?;
    Ok(kind)
}
