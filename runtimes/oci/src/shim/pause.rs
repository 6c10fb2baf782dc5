//! The first process of a Pod whose containers share their processes (`shareProcessNamespace`).
//!
//! It is number 1 in the namespace of processes that the containers join, which lasts as long as it
//! does: what containers leave behind becomes its child, and the kernel reaps that, since it
//! ignores their ends. It has no rights, no descriptors, and an empty folder for a root, so that a
//! container that may look into it (`CAP_SYS_PTRACE`) finds nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space};

use crate::overlay;
use crate::seccomp;
use crate::signals;
use crate::spec::Capabilities;

/// The user as whom it runs, as those do who have no rights anywhere.
const NOBODY: u32 = 65535;

/// The process, while its shim lives.
pub(super) struct Pause {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// Starts it, as a child of this process, in the namespaces that this process is in and among the
/// Pod's own users if it has some; `folder` is one over which it may mount.
pub(super) fn start(folder: &Path, users: Option<&OwnedFd>) -> io::Result<Pause> {
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = match users {
        None => process(libc::CLONE_NEWPID, move || {
            enter_nothing(folder)?;
            rest(tell)
        })?,
        Some(users) => start_among(users, folder, tell)?,
    };
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut told = [0];
    if rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut told))? == 1 {
        return Ok(Pause { pid, pidfd });
    }
    Err(why(pid))
}

/// Starts it in a namespace of processes that belongs to the Pod's own users. A process between
/// changes the root, while it may pass the folder still, and joins them; what it starts is a child
/// of its own parent.
fn start_among(users: &OwnedFd, folder: &Path, tell: OwnedFd) -> io::Result<Pid> {
    let (named, name) = pipe_with(PipeFlags::CLOEXEC)?;
    let between = process(0, move || {
        enter_nothing(folder)?;
        move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
        let flags = libc::CLONE_NEWPID | libc::CLONE_PARENT;
        let first = process(flags, move || rest(tell))?;
        rustix::io::write(&name, &first.as_raw_pid().to_ne_bytes())?;
        // SAFETY: ends the process without running what the shim has registered for its own end.
        unsafe { libc::_exit(0) }
    })?;
    let mut first = [0; 4];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&named, &mut first))?;
    let error = why(between);
    match (read, Pid::from_raw(i32::from_ne_bytes(first))) {
        (4, Some(first)) => Ok(first),
        _ => Err(error),
    }
}

/// Waits for the end of a child: why it has ended.
fn why(pid: Pid) -> io::Error {
    let options = rustix::process::WaitOptions::empty();
    let ended = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), options));
    match ended.map(|ended| ended.and_then(|(_, status)| status.exit_status())) {
        Ok(Some(code)) => io::Error::from_raw_os_error(code),
        Ok(None) => io::Error::other("the Pod's first process was killed"),
        Err(error) => error.into(),
    }
}

/// Starts a process, with flags of clone(2), that does some work and nothing else. What the work has
/// is the process's alone afterwards.
fn process(
    flags: libc::c_int,
    work: impl FnOnce() -> io::Result<std::convert::Infallible>,
) -> io::Result<Pid> {
    let flags = flags | libc::SIGCHLD;
    // SAFETY: this is fork(2) with flags: no stack and nothing else is given. This process has one
    // thread, so that the child finds everything as it was; it ends below without returning.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = match work() {
                Ok(never) => match never {},
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            // SAFETY: ends the process without running what the shim has registered for its own
            // end.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.ok_or_else(|| io::Error::other("no number of a process"))
        }
    }
}

/// What it is: nothing, for as long as it lives.
fn rest(tell: OwnedFd) -> io::Result<std::convert::Infallible> {
    signals::reset();
    // SAFETY: no function of ours is given.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    close_all_but(tell.as_raw_fd())?;
    rustix::thread::set_thread_groups(&[])?;
    seccomp::keep_only(&Capabilities::default().with_ids())?;
    // SAFETY: both take numbers alone.
    let changed = unsafe {
        libc::setresgid(NOBODY, NOBODY, NOBODY) == 0 && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0
    };
    if !changed {
        return Err(io::Error::last_os_error());
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    // With another user it would be forgotten.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Should nobody hear it, the shim is gone already.
    rustix::io::write(&tell, b"\n")?;
    drop(tell);
    loop {
        // SAFETY: waits for signals, of which none is handled.
        unsafe { libc::pause() };
    }
}

/// Changes the root to an empty folder that cannot be written, in a mount namespace of its own.
fn enter_nothing(folder: &Path) -> io::Result<()> {
    overlay::unshare_mounts()?;
    overlay::part_mounts()?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("none", folder, "tmpfs", flags, c"mode=555,size=4k")?;
    rustix::process::chdir(folder)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn close_all_but(kept: i32) -> io::Result<()> {
    let close = |first: u32, last: u32| {
        // SAFETY: descriptors of this process alone, of which nothing makes use any more.
        match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let kept = kept.unsigned_abs();
    if kept > 0 {
        close(0, kept - 1)?;
    }
    close(kept + 1, u32::MAX)
}
