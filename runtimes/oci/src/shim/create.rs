//! Making a container, or a further process in one: in a process that is forked for it.
//!
//! The forked process mounts the container's files in a mount namespace of its own, of which the
//! container gets a copy, drives libcontainer, says what came of it, and ends. What it has started
//! is its sibling, a child of the shim: the kernel ties a container to the parent that it has when
//! it begins ([`super::executor`]), which must be the shim.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use coracle_images::unpack::Root;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::mount::MountFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::executor::{self, Confined, Joins};
use super::landing::KERNEL;
use super::nesting;
use super::staging;
use super::users::{self, Users};
use crate::devices::{self, Filter};
use crate::overlay::{self, Upper};
use crate::place;
use crate::protocol::{Confinement, Exec, PodUsers, Start};
use crate::seccomp;
use crate::signals;
use crate::spec;

/// Standard input, output and error of a process.
pub(super) type Stdio = [OwnedFd; 3];

/// A process that makes another.
pub(super) struct Maker {
    /// Its number.
    pub(super) pid: i32,
    /// Where it says what came of it, see [`Outcome`].
    pub(super) outcome: OwnedFd,
}

/// What came of making a process: its number, or why there is none.
pub(super) type Outcome = Result<i32, String>;

/// Reads an outcome; none if the maker died without one.
pub(super) fn read_outcome(text: &[u8]) -> Option<Outcome> {
    serde_json::from_slice(text).ok()
}

/// Forks a maker of a container; `failure` is for its executor. One with a `console` runs on a
/// terminal, and `stdio` leads nowhere. One with a `target` joins that namespace of processes.
pub(super) fn container(
    start: &Start,
    stdio: Stdio,
    console: Option<&Path>,
    target: Option<&OwnedFd>,
    failure: OwnedFd,
) -> io::Result<Maker> {
    fork(|shim| {
        let executor = confined(&start.confinement, Some(failure.as_raw_fd()), &shim)?;
        if let Some(target) = target {
            link_target(&start.bundle, target)
                .map_err(|error| format!("joining the target's processes: {error}"))?;
        }
        mount(start, &stdio)?;
        let [stdin, stdout, stderr] = stdio;
        let build = || -> Built<Container> {
            builder(&start.container.0, &start.bundle)?
                .with_executor(executor)
                .with_console_socket(console)
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr)
                .as_init(&start.bundle)
                .with_systemd(false)
                .with_detach(true)
                .as_sibling(true)
                .build()
        };
        let mut container = build().map_err(causes)?;
        // Nothing of the container's has been run yet.
        if let Some(cgroup) = &start.filter_devices {
            filter_devices(cgroup).map_err(|error| format!("filtering devices: {error}"))?;
        }
        container.start().map_err(causes)?;
        let pid = container.pid().map(|pid| pid.as_raw());
        pid.ok_or_else(|| "the container has no process".to_owned())
    })
}

fn filter_devices(cgroup: &Path) -> io::Result<()> {
    // This process ends when it is done; what runs in the container has its own limits.
    devices::lift_limit()?;
    Filter::load()?.attach(cgroup)
}

/// Forks a maker of a further process in a container.
pub(super) fn process(exec: &Exec, container: &Start, stdio: Stdio) -> io::Result<Maker> {
    let bundle = &container.bundle;
    fork(|shim| {
        let mut executor = confined(&container.confinement, None, &shim)?;
        if let Some(users) = &container.users {
            let joins = prepare_to_join(users, &stdio);
            executor.joins = Some(joins.map_err(|error| format!("the Pod's users: {error}"))?);
        }
        let file = tempfile::NamedTempFile::new_in(bundle)
            .and_then(|mut file| {
                serde_json::to_writer(&mut file, &exec.process)?;
                Ok(file)
            })
            .map_err(|error| format!("writing what is to be run: {error}"))?;
        let [stdin, stdout, stderr] = stdio;
        let build = || {
            builder(&exec.container.0, bundle)?
                .with_executor(executor)
                .with_console_socket(exec.console.as_deref())
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr)
                .as_tenant()
                .with_detach(true)
                .as_sibling(true)
                .with_process(Some(file.path()))
                .build()
        };
        build().map(|pid| pid.as_raw()).map_err(causes)
    })
}

type Built<T> = Result<T, libcontainer::error::LibcontainerError>;

fn builder(id: &str, bundle: &Path) -> Built<ContainerBuilder> {
    ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(bundle.join("state"))
}

fn confined(
    confinement: &Confinement,
    failure: Option<i32>,
    shim: &OwnedFd,
) -> Result<Confined, String> {
    let capabilities = confinement.capabilities.clone();
    let filter = confinement.filtered.then(|| {
        let profile = match &confinement.profile {
            Some(own) => seccomp::localhost::profile(own),
            None => seccomp::default_profile(&capabilities),
        };
        profile.and_then(seccomp::Profile::compile)
    });
    let filter = filter.transpose();
    Ok(Confined {
        filter: filter.map_err(|error| format!("compiling the filter of system calls: {error}"))?,
        capabilities,
        failure,
        joins: None,
        shim: shim.as_raw_fd(),
    })
}

/// Puts a namespace where the specification says that it is: in the hands of this process, which
/// lives until the container is made, so that it stays the same whatever becomes of the target.
fn link_target(bundle: &Path, target: &OwnedFd) -> io::Result<()> {
    let link = spec::target_processes(bundle);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let pid = rustix::process::getpid().as_raw_pid();
    let held = format!("/proc/{pid}/fd/{}", target.as_raw_fd());
    std::os::unix::fs::symlink(held, link)
}

/// What the executor of a further process needs: libcontainer (0.7) takes that to all namespaces of
/// the container but the user's.
fn prepare_to_join(of: &PodUsers, stdio: &Stdio) -> io::Result<Joins> {
    overlay::unshare_mounts()?;
    overlay::part_mounts()?;
    users::make_place(of)?;
    let users = Users::open(of)?;
    users.give_pipes(stdio)?;
    Ok(users.into_joins())
}

fn mount(start: &Start, stdio: &Stdio) -> Result<(), String> {
    let of = |name: &str| start.bundle.join(name);
    let mount = || -> io::Result<()> {
        overlay::unshare_mounts()?;
        let taken = staging::take(&start.staged)?;
        // Of mounts that come later nothing is seen, but for what is staged.
        overlay::part_mounts()?;
        let users = start.users.as_ref().map(Users::open).transpose()?;
        if let Some(of) = &start.users {
            users::make_place(of)?;
            users::pin_namespaces(of)?;
        }
        let users = users.as_ref();
        staging::put(taken, users)?;
        staging::put_images(&start.staged, users)?;
        for folder in &start.cgroup_folders {
            fs::create_dir_all(folder)?;
        }
        let upper = Upper {
            files: &of("upper"),
            work: &of("work"),
        };
        // Devices are those that the runtime makes in /dev: one of an image is none, but for
        // containers with all rights.
        let flags = match start.devices {
            true => MountFlags::empty(),
            false => MountFlags::NODEV,
        };
        let cwd = start.cwd.strip_prefix("/").unwrap_or(&start.cwd);
        let Some(users) = users else {
            overlay::overlay(&start.lowers, Some(&upper), &of("rootfs"), flags)?;
            check_folders(&of("rootfs"))?;
            Root::open(&of("rootfs"))?.make_folder(cwd)?;
            return nesting::nest(start, &of("rootfs"));
        };
        users.give_pipes(stdio)?;
        users.give_folder(upper.files)?;
        users.overlay(&start.lowers, Some(&upper), &place::rootfs(), flags)?;
        check_folders(&place::rootfs())?;
        let root = Root::open(&place::rootfs())?;
        root.make_folder(cwd)?;
        users.give_made(&root, cwd)?;
        nesting::nest(start, &place::rootfs())
    };
    mount().map_err(|error| format!("mounting the container's files: {error}"))
}

/// Refuses a container's files in which a folder of the kernel is anything else. libcontainer (0.7)
/// mounts where a link leads within the container, but makes links in `dev` by their paths on the machine,
/// on which one leads anywhere; and a `proc` that is elsewhere confines nobody (CVE-2023-28642).
fn check_folders(root: &Path) -> io::Result<()> {
    for name in KERNEL {
        match fs::symlink_metadata(root.join(name)) {
            Ok(found) if !found.is_dir() => {
                let message = format!("/{name} of the image is no folder");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// An error with all its causes, each once.
fn causes(error: libcontainer::error::LibcontainerError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

/// Runs `make` in a new process, which ends with it, or with this one; `make` gets a descriptor of this
/// one.
fn fork(make: impl FnOnce(OwnedFd) -> Outcome) -> io::Result<Maker> {
    let (outcome, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let shim = rustix::process::getpid();
    // SAFETY: this process has one thread, so that the child finds everything as it was; it ends
    // below without returning.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let made = as_containers_find_it()
                .and_then(|()| end_with(shim))
                .and_then(make);
            let text = serde_json::to_vec(&made).unwrap_or_default();
            // If nobody reads it, nobody waits for it.
            let _ = fs::File::from(tell).write_all(&text);
            // SAFETY: ends the process without running what the shim has registered for its own
            // end.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(Maker { pid, outcome }),
    }
}

/// Has the kernel kill this process when the shim ends, after which nobody looks for what it makes.
/// Gives a descriptor of the shim.
fn end_with(shim: Pid) -> Result<OwnedFd, String> {
    let end = || -> io::Result<OwnedFd> {
        executor::die_with_parent()?;
        let descriptor = pidfd_open(shim, PidfdFlags::empty())?;
        // Asked last: it has been the shim until now, if it is still.
        match rustix::process::getppid() == Some(shim) {
            true => Ok(descriptor),
            false => Err(io::Error::other("it has ended")),
        }
    };
    end().map_err(|error| format!("watching the Pod's shim: {error}"))
}

/// Undoes what this program has of its own that containers would inherit.
fn as_containers_find_it() -> Result<(), String> {
    signals::reset();
    // libcontainer leaves the groups as they are where a specification names none.
    let prepare = || -> io::Result<()> {
        rustix::thread::set_thread_groups(&[])?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(())
    };
    prepare().map_err(|error| format!("preparing the container's process: {error}"))
}

/// Reads what is there of a pipe that does not block; true at its end.
pub(super) fn drain(pipe: &OwnedFd, into: &mut Vec<u8>) -> bool {
    let Ok(pipe) = pipe.try_clone() else {
        return true;
    };
    match fs::File::from(pipe).read_to_end(into) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_of_the_kernel_are_no_links() {
        let check = |make: &dyn Fn(&Path) -> io::Result<()>| {
            let root = tempfile::tempdir().unwrap();
            make(root.path()).unwrap();
            check_folders(root.path()).map_err(|error| error.to_string())
        };
        assert_eq!(check(&|_| Ok(())), Ok(()));
        for name in KERNEL {
            assert_eq!(check(&|root| fs::create_dir(root.join(name))), Ok(()));
            let refused = Err(format!("/{name} of the image is no folder"));
            for target in ["/", "/etc", "usr", "/none"] {
                let found = check(&|root| symlink(target, root.join(name)));
                assert_eq!(found, refused, "{target}");
            }
            assert_eq!(check(&|root| fs::write(root.join(name), "")), refused);
        }
    }
}
