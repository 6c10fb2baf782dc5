//! What a folder takes of the disk.
//!
//! Whoever owns what is in it may move it about meanwhile: no link is followed, no other file
//! system entered, and what has gone is not counted.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat,
};
use rustix::io::Errno;

/// How long a path below one open folder may become before a deeper one is opened: the system
/// takes 4,096 bytes.
const PATH: usize = 2048;
/// Folders that wait to be looked into at most, which are in memory. Each takes a block of the disk, so
/// that this many have been counted as a gibibyte by then; what is below further ones is not.
const WAITING: usize = 1 << 18;
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Blocks and files in use of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of the blocks in use.
    pub bytes: u64,
    /// Files, folders and what else has a place of its own.
    pub inodes: u64,
}

impl std::ops::Add for DiskUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl std::iter::Sum for DiskUsage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, more| sum + more)
    }
}

/// What a folder and all in it take; nothing where there is none. Blocks on the disk.
pub fn disk_usage(folder: &Path) -> io::Result<DiskUsage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(CWD, folder, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(DiskUsage::default()),
        top => top?,
    };
    let own = fstat(&top)?;
    let mut walk = Walk {
        device: own.st_dev,
        used: DiskUsage {
            bytes: blocks(&own),
            inodes: 1,
        },
        linked: HashSet::new(),
        waiting: Vec::new(),
    };
    let top = Arc::new(Above {
        open: Arc::new(top),
        path: PathBuf::new(),
    });
    walk.look_into(&top, OsStr::new("."))?;
    while let Some((above, name)) = walk.waiting.pop() {
        walk.look_into(&above, &name)?;
    }
    Ok(walk.used)
}

struct Walk {
    device: u64,
    used: DiskUsage,
    /// Files of several names that were counted.
    linked: HashSet<u64>,
    /// Folders by the one in which they are, and their names there.
    waiting: Vec<(Arc<Above>, OsString)>,
}

/// A folder in which others wait, by an open one above it and the way from there.
struct Above {
    open: Arc<OwnedFd>,
    path: PathBuf,
}

impl Walk {
    fn look_into(&mut self, above: &Arc<Above>, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = above.path.join(name);
        let folder = match openat2(above.open.as_ref(), &path, flags, Mode::empty(), resolve) {
            Err(error) if gone(error) => return Ok(()),
            folder => folder?,
        };
        let (open, path) = match path.as_os_str().len() > PATH {
            true => (Arc::new(folder.try_clone()?), PathBuf::new()),
            false => (above.open.clone(), path),
        };
        let own = Arc::new(Above { open, path });
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let of = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(error) if gone(error) => continue,
                of => of?,
            };
            let linked =
                of.st_nlink > 1 && FileType::from_raw_mode(of.st_mode) != FileType::Directory;
            if of.st_dev != self.device || (linked && !self.linked.insert(of.st_ino)) {
                continue;
            }
            self.used = self.used
                + DiskUsage {
                    bytes: blocks(&of),
                    inodes: 1,
                };
            let is_folder = FileType::from_raw_mode(of.st_mode) == FileType::Directory;
            if is_folder && self.waiting.len() < WAITING {
                let name = OsStr::from_bytes(name.to_bytes()).to_owned();
                self.waiting.push((own.clone(), name));
            }
        }
        Ok(())
    }
}

fn blocks(of: &rustix::fs::Stat) -> u64 {
    u64::try_from(of.st_blocks)
        .unwrap_or(0)
        .saturating_mul(BLOCK)
}

/// Moved away, removed, replaced by something else, or mounted over since it was seen.
fn gone(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once_and_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("in")).unwrap();
        let empty = disk_usage(folder.path()).unwrap();
        assert_eq!(empty.inodes, 2);
        std::fs::write(at("in/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(at("in/file"), at("again")).unwrap();
        std::os::unix::fs::symlink("/", at("everything")).unwrap();
        let used = disk_usage(folder.path()).unwrap();
        assert_eq!(used.inodes, 4);
        let grown = used.bytes - empty.bytes;
        assert!((1 << 20..1 << 21).contains(&grown), "{grown}");
        assert_eq!(disk_usage(&at("none")).unwrap(), DiskUsage::default());
        assert!(disk_usage(&at("everything")).is_err());
    }

    #[test]
    fn what_lies_deep_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let name = "x".repeat(200);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = openat(CWD, folder.path(), flags, Mode::empty()).unwrap();
        for _ in 0..60 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        assert_eq!(disk_usage(folder.path()).unwrap().inodes, 61);
        crate::disk::remove_dir(folder.path()).unwrap();
    }
}
