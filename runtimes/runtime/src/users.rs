//! Users of a Pod's own: its range of the machine's IDs, and the namespaces that belong to it
//! (`hostUsers: false`, KEP-127; user_namespaces(7)).
//!
//! A namespace belongs to the user namespace in which it was made, and whoever has rights there has
//! them over it: the network namespace of such a Pod is therefore made inside its user namespace,
//! and whatever makes the others later finds that one by the network's ([`owner`]). To be in a new
//! user namespace takes a process without threads, so that one is forked which does nothing else
//! and is killed when its namespaces have been taken ([`make`]). The shim of a Pod and the node's
//! network both need this; who has which range is the kubelet's business.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

/// A range of the machine's user and group IDs: IDs of a Pod, which begin with 0, are those from
/// its first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The machine's ID that the Pod's root has.
    pub first: u32,
}

impl IdRange {
    /// IDs in a range; what KEP-127 gives a Pod.
    pub const LENGTH: u32 = 65536;

    /// The machine's ID for one of the Pod; none if the Pod has no such ID.
    pub fn of_machine(self, id: u32) -> Option<u32> {
        match id < Self::LENGTH {
            true => self.first.checked_add(id),
            false => None,
        }
    }

    /// As the kernel takes it for `uid_map` and `gid_map`.
    fn mapping(self) -> String {
        format!("0 {} {}", self.first, Self::LENGTH)
    }
}

/// The user namespace to which namespaces belong.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A new one, with that range.
    New(IdRange),
    /// One that is there.
    Known(BorrowedFd<'a>),
}

/// Makes namespaces (flags of unshare(2)) that belong to a user namespace, and lets them be taken
/// from the folder that is given: what nobody takes ends at once. Blocks for as long as that takes.
///
/// # Errors
/// The kernel makes none, the range cannot be mapped, or they could not be taken.
pub fn make<T>(
    owner: Owner<'_>,
    kinds: libc::c_int,
    take: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let (made, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let (join, flags) = match owner {
        Owner::New(_) => (None, kinds | libc::CLONE_NEWUSER),
        Owner::Known(users) => (Some(users.as_raw_fd()), kinds),
    };
    let parent = rustix::process::getpid().as_raw_pid();
    // SAFETY: the caller may have threads. The child makes nothing but system calls, takes no lock,
    // allocates nothing, and never returns.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => hold(parent, join, flags, tell.as_raw_fd()),
        pid => pid,
    };
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no number of a process"))?;
    drop(tell);
    let taken = ready(&made).and_then(|()| {
        let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        if let Owner::New(range) = owner {
            for map in ["uid_map", "gid_map"] {
                std::fs::write(folder.join(map), range.mapping())?;
            }
        }
        take(&folder.join("ns"))
    });
    // It cannot have ended before somebody waits for it.
    let _ = kill_process(pid, Signal::KILL);
    rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
    taken
}

/// Hears whether the child is where it should be.
fn ready(made: &OwnedFd) -> io::Result<()> {
    let mut code = [0; 4];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(made, &mut code))?;
    match (read, i32::from_ne_bytes(code)) {
        (4, 0) => Ok(()),
        (4, code) => Err(io::Error::from_raw_os_error(code)),
        _ => Err(io::Error::other("what makes namespaces has died")),
    }
}

/// The child: goes into the namespaces, says so, and stays until it is killed, which the end of its
/// parent does too.
fn hold(parent: libc::pid_t, join: Option<RawFd>, flags: libc::c_int, tell: RawFd) -> ! {
    // SAFETY: system calls that take numbers, and one that reads a number which lives until it
    // returns.
    unsafe {
        let joined = match join {
            Some(users) => libc::setns(users, libc::CLONE_NEWUSER),
            None => 0,
        };
        let done = joined == 0 && libc::unshare(flags) == 0;
        let code: i32 = match done {
            true => 0,
            false => io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        };
        // After the change of users, which forgets it; it is not told of an end before that.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
        libc::write(tell, (&raw const code).cast(), size_of::<i32>());
        loop {
            libc::pause();
        }
    }
}

/// The user namespace to which a namespace belongs; none if that is the one of this process.
///
/// # Errors
/// It belongs to one that this process cannot see, or what is given is no namespace.
pub fn owner(namespace: impl AsFd) -> io::Result<Option<OwnedFd>> {
    /// `linux/nsfs.h`: `_IO(0xb7, 0x1)`.
    const NS_GET_USERNS: u32 = 0xb701;
    let namespace = namespace.as_fd().as_raw_fd();
    // SAFETY: this call takes nothing but the descriptor, and gives a new one.
    let users = unsafe { libc::ioctl(namespace, NS_GET_USERNS as _) };
    if users < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    let users = unsafe { OwnedFd::from_raw_fd(users) };
    let own = rustix::fs::fstat(File::open("/proc/self/ns/user")?)?;
    let found = rustix::fs::fstat(&users)?;
    let same = (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino);
    Ok((!same).then_some(users))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RANGE: IdRange = IdRange {
        first: 2_100_000_000,
    };

    #[test]
    fn ids_of_a_pod_are_the_machines_from_its_first_on() {
        assert_eq!(RANGE.of_machine(0), Some(2_100_000_000));
        assert_eq!(RANGE.of_machine(65535), Some(2_100_065_535));
        assert_eq!(RANGE.of_machine(65536), None);
        assert_eq!(IdRange { first: u32::MAX }.of_machine(1), None);
        assert_eq!(RANGE.mapping(), "0 2100000000 65536");
    }

    #[test]
    fn a_namespace_belongs_to_the_users_among_whom_it_was_made() {
        let own = File::open("/proc/self/ns/net").unwrap();
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: a range of IDs is mapped by root alone");
            return;
        }
        assert!(owner(&own).unwrap().is_none());
        let take = |folder: &Path| {
            let map = std::fs::read_to_string(folder.join("../uid_map"))?;
            Ok((File::open(folder.join("net"))?, map))
        };
        let made = make(Owner::New(RANGE), libc::CLONE_NEWNET, take);
        let (network, map) = match made {
            Ok(made) => made,
            Err(error) => {
                eprintln!("SKIPPED: user namespaces cannot be made here: {error}");
                return;
            }
        };
        let map: Vec<&str> = map.split_whitespace().collect();
        assert_eq!(map, ["0", "2100000000", "65536"]);
        let users = owner(&network).unwrap().unwrap();
        // What is made later belongs to the same.
        let take = |folder: &Path| File::open(folder.join("uts"));
        let names = make(Owner::Known(users.as_fd()), libc::CLONE_NEWUTS, take).unwrap();
        let same = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(same(&owner(&names).unwrap().unwrap()), same(&users));
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        let made = make(Owner::Known(file.as_fd()), libc::CLONE_NEWUTS, |_| Ok(()));
        assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(owner(&file).is_err());
    }
}
