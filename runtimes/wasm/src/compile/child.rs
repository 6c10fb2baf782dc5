//! The compiler's process: `wasm-compile <module> <code>`.
//!
//! Input is hostile: the process is niced, bounded in memory, time and file size, and confined
//! before it reads the module. The answer goes to standard output as JSON.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use super::{Answer, classify};
use crate::confine;
use crate::guest::engine;

/// Largest module, text or binary.
const MAX_MODULE: u64 = 256 << 20;
/// Address space of the compiler.
const MAX_MEMORY: u64 = 6 << 30;
/// Largest compiled module.
const MAX_CODE: u64 = 2 << 30;
/// CPU time of the compiler, seconds.
const MAX_CPU: u64 = 280;

/// Runs the compiler.
pub(crate) fn main(args: &[OsString]) -> Result<(), String> {
    let [module, code] = args else {
        return Err("usage: wasm-compile <module> <code>".into());
    };
    // A node that does not let us be nice is no reason not to compile.
    let _ = nice(10);
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
    confine::compiler().map_err(|error| format!("confining the compiler: {error}"))?;
    let answer = match compile(Path::new(module), Path::new(code)) {
        Ok(kind) => Answer::Compiled(kind),
        Err(Failure::Refused(reason)) => Answer::Refused(reason),
        Err(Failure::Fault(message)) => return Err(message),
    };
    let answer = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
    std::io::stdout()
        .write_all(&answer)
        .map_err(|error| format!("answering: {error}"))
}

enum Failure {
    /// The module is at fault.
    Refused(String),
    /// The node is.
    Fault(String),
}

fn compile(module: &Path, code: &Path) -> Result<crate::protocol::Kind, Failure> {
    let fault = |what: &str, path: &Path, error: std::io::Error| {
        Failure::Fault(format!("{what} {}: {error}", path.display()))
    };
    let size = fs::metadata(module)
        .map_err(|error| fault("reading", module, error))?
        .len();
    if size > MAX_MODULE {
        return Err(Failure::Refused(format!(
            "the module has {size} bytes, more than the {MAX_MODULE} that are compiled"
        )));
    }
    let bytes = fs::read(module).map_err(|error| fault("reading", module, error))?;
    let binary = classify::binary(&bytes).map_err(Failure::Refused)?;
    let engine = engine::on_demand().map_err(|error| Failure::Fault(format!("{error:#}")))?;
    let (kind, compiled) = classify::compile(&engine, &binary).map_err(Failure::Refused)?;
    fs::write(code, compiled).map_err(|error| fault("writing", code, error))?;
    Ok(kind)
}
