//! The first process of a Pod whose containers share their processes (`shareProcessNamespace`).
//!
//! It is number 1 in the namespace of processes that the containers join, which lasts as long as it
//! does: what containers leave behind becomes its child, and the kernel reaps that, since it
//! ignores their ends. It has no rights, no descriptors, and an empty folder for a root, so that a
//! container that may look into it (`CAP_SYS_PTRACE`) finds nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::{CapabilitySet, CapabilitySets};

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

/// Starts it, as a child of this process, in the namespaces that this process is in; `folder` is
/// one over which it may mount.
pub(super) fn start(folder: &Path) -> io::Result<Pause> {
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let flags = libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: this is fork(2) with a flag: no stack and nothing else is given. This process has one
    // thread, so that the child finds everything as it was; it ends below without returning.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(ready);
            let code = match rest(folder, tell) {
                Ok(never) => match never {},
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            // SAFETY: ends the process without running what the shim has registered for its own
            // end.
            unsafe { libc::_exit(code) }
        }
        pid => {
            drop(tell);
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("no number of a process"))?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            let mut told = [0];
            if rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut told))? == 1 {
                return Ok(Pause { pid, pidfd });
            }
            let status =
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            let code = status.and_then(|(_, status)| status.exit_status());
            Err(match code {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::other("the Pod's first process was killed"),
            })
        }
    }
}

/// What it is: nothing, for as long as it lives.
fn rest(folder: &Path, tell: OwnedFd) -> io::Result<std::convert::Infallible> {
    signals::reset();
    // SAFETY: no function of ours is given.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    enter_nothing(folder)?;
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
