//! OCI containers under libcontainer.
//!
//! The crate has two sides that never share a process. The *agent side* ([`OciRuntime`])
//! implements [`coracle_runtime::RuntimeService`]: it unpacks images, plans what a container is
//! ([`spec`]), keeps the records of sandboxes and containers, and starts, adopts and ends shims.
//! The *shim* ([`shim`]), one process per Pod with containers, is reached through [`subcommand`],
//! by which the binary re-executes itself; it drives libcontainer, owns the containers' output,
//! waits for them, survives the agent and is adopted by the next.
//!
//! **Invariant**: libcontainer is never driven from a process that has threads.
//!
//! Deliberately absent: pulling images (the images crate), the network of a Pod (its namespace is
//! handed in), volumes and restarts (the kubelet).

mod agent;
mod binary;
mod console;
mod devices;
mod overlay;
mod place;
mod protocol;
mod seccomp;
mod shim;
mod signals;
mod snapshots;
mod spec;

use std::ffi::OsString;
use std::process::ExitCode;

use coracle_runtime::cgroup::Hierarchies;
use rustix::thread::CapabilitySet;

pub use agent::{OciConfig, OciRuntime};

/// Runs the hidden subcommand if `args` (what follows the program's name) names it. To be called
/// before a runtime or any thread is started; `None` means that this is not for us.
pub fn subcommand(args: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = args.split_first()?;
    if name != SHIM {
        return None;
    }
    Some(match shim::main(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    })
}

/// Why this process cannot run containers; none if it can.
pub fn lacks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("containers take root".into());
    }
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETPCAP
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::KILL
        | CapabilitySet::MKNOD
        | CapabilitySet::SYS_CHROOT;
    match rustix::thread::capabilities(None) {
        Ok(own) if own.effective.contains(needed) => {}
        Ok(own) => return Some(format!("the agent lacks {:?}", needed - own.effective)),
        Err(error) => return Some(format!("the agent's capabilities cannot be read: {error}")),
    }
    match Hierarchies::detect() {
        Ok(found) if found.limit_memory() => None,
        Ok(_) => Some("no control groups that limit memory are mounted".into()),
        Err(error) => Some(format!(
            "the machine's control groups cannot be read: {error}"
        )),
    }
}

/// Name of the hidden subcommand.
const SHIM: &str = "oci-shim";
