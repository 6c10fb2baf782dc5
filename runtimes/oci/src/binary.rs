//! The program file of shims, out of reach of containers (CVE-2019-5736).
//!
//! Before a process of a container executes its own program it executes this one, and whoever is
//! in the container finds it under `/proc/<pid>/exe`. So shims are started from a mount of the file
//! that is read-only and stands in no namespace, or, where the kernel has no such mounts, from a
//! sealed copy in memory: neither can be opened for writing.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::overlay;

/// A program file that nobody can write to through a process that runs it.
pub(crate) struct Binary(OwnedFd);

impl Binary {
    pub(crate) fn of(exe: &Path) -> io::Result<Self> {
        match read_only_mount(exe) {
            Ok(mount) => Ok(Self(mount)),
            Err(error) => {
                tracing::info!(%error, "shims run from a copy in memory");
                Ok(Self(sealed_copy(exe)?))
            }
        }
    }

    /// Where this process, and what it forks, finds the file.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn read_only_mount(exe: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(exe.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a string that lives until the call returns.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if tree < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor to us alone; descriptors fit an i32.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    // SAFETY: a mount_attr of zeros changes nothing.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    overlay::set_attributes(&tree, &attributes)?;
    Ok(tree)
}

fn sealed_copy(exe: &Path) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(memfd_create("coracle", flags)?);
    io::copy(&mut File::open(exe)?, &mut copy)?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, all)?;
    Ok(copy.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn nobody_writes_to_what_runs() {
        let folder = tempfile::tempdir().unwrap();
        let exe = folder.path().join("program");
        std::fs::write(&exe, "content").unwrap();
        let copy = Binary(sealed_copy(&exe).unwrap());
        let mut kinds = vec![copy];
        match read_only_mount(&exe) {
            Ok(mount) => kinds.push(Binary(mount)),
            Err(error) => eprintln!("SKIPPED: a read-only mount of the program: {error}"),
        }
        for binary in kinds {
            let path = binary.path();
            assert_eq!(std::fs::read(&path).unwrap(), b"content");
            let written = OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| io::Write::write_all(&mut file, b"x"));
            assert!(written.is_err(), "{}", path.display());
            let truncated = OpenOptions::new().write(true).truncate(true).open(&path);
            assert!(truncated.is_err(), "{}", path.display());
        }
    }
}
