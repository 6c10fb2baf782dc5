//! `oci-shim`: the process that keeps the containers of one Pod.
//!
//! It has one thread, makes and holds the Pod's namespaces, owns the output of the containers and
//! writes their logs, waits for them, and keeps on disk how they ended. It outlives its agent and
//! is adopted by the next; should it die itself, the kernel kills what it keeps ([`executor`]).
//!
//! libcontainer is never driven in this process but in one that is forked for each container
//! ([`create`]): it changes its caller, and what it waits for must hold up no other container.
//!
//! ```text
//!             fork              executed            ended
//! Start ──▶ Starting ────────▶ Running ────────▶ (exit.json, Event::Exited)
//!               └── failed ──▶ (Response::Failed)
//! ```

mod connection;
mod create;
mod executor;
mod landing;
mod namespaces;
mod nesting;
mod patience;
mod pause;
mod run;
mod staging;
mod streams;
mod tasks;
mod users;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use coracle_runtime::disk;
use coracle_runtime::identity::Identity;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::protocol::Launch;
use coracle_runtime::cgroup::Hierarchies;

/// Name of the file in a shim's folder with its [`Launch`].
pub(crate) const LAUNCH: &str = "launch.json";
/// Name of the link in it that leads to the namespace of the processes of a Pod whose containers
/// share them.
pub(crate) const PROCESSES: &str = "processes";

/// Name of the link in it that leads to the namespace of a Pod's own users.
pub(crate) const USERS: &str = "users";

/// Runs a shim; what is given is its folder. To be called before any thread exists.
pub(crate) fn main(args: &[OsString]) -> Result<(), String> {
    let [folder] = args else {
        return Err("usage: <folder>".into());
    };
    let folder = Path::new(folder);
    let launch: Option<Launch> = disk::read_json(&folder.join(LAUNCH))
        .map_err(|error| format!("reading {}: {error}", folder.join(LAUNCH).display()))?;
    let launch = launch.ok_or("the shim's folder does not say what it is for")?;
    let listener = prepare().map_err(|error| format!("starting the shim: {error}"))?;
    // Held as long as this process lives.
    let users = namespaces::enter(&launch)
        .map_err(|error| format!("making the Pod's namespaces: {error}"))?;
    if let Some(users) = &users {
        let held = format!("/proc/{}/fd/{}", std::process::id(), users.as_raw_fd());
        std::os::unix::fs::symlink(held, folder.join(USERS))
            .map_err(|error| format!("keeping the Pod's users: {error}"))?;
    }
    let pause = processes(&launch, folder, users.as_ref())
        .map_err(|error| format!("starting the Pod's first process: {error}"))?;
    // Only now is it what the folder says: an agent that finds the record may rely on it.
    Identity::record(folder).map_err(|error| format!("recording the shim: {error}"))?;
    run::Shim::new(listener, launch.ephemeral, pause)
        .run()
        .map_err(|error| format!("the shim cannot go on: {error}"))?;
    // There may be no agent to do it. One that is there does the same.
    if let Ok(hierarchies) = Hierarchies::detect() {
        hierarchies.cgroup(&launch.cgroup).remove_upwards();
    }
    Ok(())
}

/// Makes the namespace of processes that containers share, if they do.
fn processes(
    launch: &Launch,
    folder: &Path,
    users: Option<&OwnedFd>,
) -> io::Result<Option<pause::Pause>> {
    if !launch.namespaces.share_processes || launch.namespaces.host_pid {
        return Ok(None);
    }
    let pause = pause::start(folder, users)?;
    let namespace = format!("/proc/{}/ns/pid", pause.pid.as_raw_pid());
    std::os::unix::fs::symlink(namespace, folder.join(PROCESSES))?;
    Ok(Some(pause))
}

fn prepare() -> io::Result<UnixListener> {
    // Already the leader of a session when started by hand.
    let _ = rustix::process::setsid();
    // What containers write through it is not for core files.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // Whatever folder the agent stood in may be unmounted.
    std::env::set_current_dir("/")?;
    Ok(listener)
}
