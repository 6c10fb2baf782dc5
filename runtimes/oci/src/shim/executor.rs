//! The last thing that happens in a process before it is the container's.
//!
//! libcontainer calls it for first and later processes alike, inside the container and with the
//! capabilities of the specification. It installs the filter of system calls, gives up the rights
//! that took, and executes the program. What fails here fails closed: nothing is executed.
//!
//! libcontainer (0.7) makes the first process of a container among the Pod's own users, but leaves
//! later ones among those of the machine (`NAMESPACE_TYPES` of its tenants). Those join here, before
//! anything else: until then they are root of the machine in the container's other namespaces, as
//! all are where the Pod has no users of its own, and nobody in there may look into them.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, FromRawFd};

use coracle_runtime::IdRange;
use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::seccomp::{self, Programs};
use crate::spec::Capabilities;

/// Characters of a program's name that are told of one that cannot be executed.
const SHOWN: usize = 1024;

/// Executes the program of a container.
#[derive(Clone)]
pub(super) struct Confined {
    pub(super) filter: Option<Programs>,
    pub(super) capabilities: Capabilities,
    /// A descriptor into which the cause is written if the program is not executed. It closes when
    /// it is.
    pub(super) failure: Option<i32>,
    /// The users that it joins first, if libcontainer has not done so.
    pub(super) joins: Option<Joins>,
    /// A descriptor of the shim, which stays open until a program is executed.
    pub(super) shim: i32,
}

/// Users of a Pod's own.
#[derive(Clone, Copy)]
pub(super) struct Joins {
    /// A descriptor of their namespace, which stays open until a program is executed.
    pub(super) namespace: i32,
    pub(super) range: IdRange,
}

impl Joins {
    /// Makes this process one of them, with all rights among them, as the user of the specification.
    fn join(self, process: &Process) -> io::Result<()> {
        let user = process.user();
        let (uid, gid) = (user.uid(), user.gid());
        if process.terminal() == Some(true) {
            // It was made by root of the machine.
            let owner = self.range.of_machine(uid).map(Uid::from_raw);
            rustix::fs::fchown(rustix::stdio::stdin(), owner, None)?;
        }
        // SAFETY: the descriptor is this process's own and is not closed before it executes.
        let namespace = unsafe { BorrowedFd::borrow_raw(self.namespace) };
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))?;
        let groups = user.additional_gids().iter().flatten().copied();
        let groups: Vec<Gid> = groups.map(Gid::from_raw).collect();
        rustix::thread::set_thread_groups(&groups)?;
        // SAFETY: both take numbers alone.
        let changed =
            unsafe { libc::setresgid(gid, gid, gid) == 0 && libc::setresuid(uid, uid, uid) == 0 };
        match changed {
            true => Ok(()),
            false => Err(io::Error::last_os_error()),
        }
    }
}

impl Executor for Confined {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let args = process.and_then(|process| process.args().as_deref());
        let joined = match (self.joins, process) {
            (None, _) => Ok(()),
            (Some(joins), Some(process)) => joins
                .join(process)
                .map_err(|error| format!("joining the Pod's users: {error}")),
            (Some(_), None) => Err("there is no process".to_owned()),
        };
        let executed = joined.and_then(|()| self.execute(args.unwrap_or_default()));
        let error = match executed {
            Ok(never) => match never {},
            Err(error) => error,
        };
        if let Some(failure) = self.failure {
            // SAFETY: the descriptor is this process's own, of which nobody else makes use.
            let mut failure = unsafe { File::from_raw_fd(failure) };
            // Whoever reads it is told by its end too.
            let _ = failure.write_all(error.as_bytes());
        }
        Err(ExecutorError::Other(error))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // What can be executed shows when it is.
        Ok(())
    }
}

impl Confined {
    fn execute(&self, args: &[String]) -> Result<std::convert::Infallible, String> {
        let confined = |error: io::Error| format!("confining the container's process: {error}");
        // From here on the kernel sees to it that it ends with the shim. Should that have ended before,
        // it does not hear of it: its parent is another already.
        die_with_parent().map_err(confined)?;
        if has_ended(self.shim).map_err(confined)? {
            return Err("the Pod's shim has ended".into());
        }
        // Without no_new_privs it takes rights that go afterwards, so that the filter must let
        // capset and prctl through.
        let late = rustix::thread::no_new_privs().map_err(|error| confined(error.into()))?;
        let install = || match &self.filter {
            Some(filter) => filter.install().map_err(confined),
            None => Ok(()),
        };
        if !late {
            install()?;
        }
        seccomp::keep_only(&self.capabilities).map_err(confined)?;
        die_with_parent().map_err(confined)?;
        let program = args.first().ok_or("no command specified")?;
        let strings: Result<Vec<CString>, _> =
            args.iter().map(|arg| CString::new(&**arg)).collect();
        let strings = strings.map_err(|_| "an argument holds a zero byte")?;
        let mut pointers: Vec<*const libc::c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        if late {
            install()?;
        }
        // SAFETY: the pointers lead to strings that live on, and a null ends them.
        unsafe { libc::execvp(pointers[0], pointers.as_ptr()) };
        let error = io::Error::last_os_error();
        // Whoever is told reads it from a pipe, when this process has ended.
        let program: String = program.chars().take(SHOWN).collect();
        Err(match error.kind() {
            io::ErrorKind::NotFound if !program.contains('/') => {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            io::ErrorKind::NotFound => format!("exec: {program:?}: no such file or directory"),
            io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
            _ => format!("exec: {program:?}: {error}"),
        })
    }
}

/// Has the kernel kill this process when the shim ends: nobody would know of it any more.
pub(super) fn die_with_parent() -> io::Result<()> {
    let kill = Some(rustix::process::Signal::KILL);
    Ok(rustix::process::set_parent_process_death_signal(kill)?)
}

/// Whether the process of a descriptor has ended.
fn has_ended(process: i32) -> io::Result<bool> {
    // SAFETY: the descriptor is this process's own and is not closed before it executes.
    let process = unsafe { BorrowedFd::borrow_raw(process) };
    let mut asked = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(rustix::io::retry_on_intr(|| poll(&mut asked, Some(&at_once)))? > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_known_from_its_descriptor() {
        // It ends with its input.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(!has_ended(process.as_raw_fd()).unwrap());
        child.wait().unwrap();
        assert!(has_ended(process.as_raw_fd()).unwrap());
    }
}
