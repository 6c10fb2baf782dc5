//! A folder as the root of what paths say.
//!
//! Images hold paths and symbolic links that lead anywhere. The kernel resolves them here
//! (`openat2` with `RESOLVE_IN_ROOT`): `..` and absolute links end at this root, whatever a layer
//! has put in between. Only the last name of a path is left to a call of its own, which does not
//! follow links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmodat, fstat, mkdirat, openat,
    openat2, statat, unlinkat,
};
use rustix::io::Errno;

use crate::room::Disk;

/// How deep folders may lie. Deeper ones could not be removed with the descriptors that a process
/// has; images have tens of levels.
const DEPTH: usize = 256;
/// How often a resolution is tried again that a change elsewhere on the machine has disturbed.
const TRIES: usize = 32;

/// A folder that no path leaves.
pub struct Root {
    folder: OwnedFd,
    depth: usize,
}

impl Root {
    /// The folder of that path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty())?;
        let depth = depth(&folder)?;
        Ok(Self { folder, depth })
    }

    /// The disk that it is on.
    pub(super) fn disk(&self) -> io::Result<Disk> {
        Disk::of(&self.folder)
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        for _ in 0..TRIES {
            let flags = flags | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                resolved => return Ok(resolved?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// A folder, links followed.
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Whatever a path leads to, links followed; to be mounted.
    pub fn any(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH)
    }

    /// A folder, links followed, made with all that is missing above it.
    pub fn make_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        // From the lowest that is there, one name at a time.
        let missing: Vec<&Path> = path.ancestors().collect();
        let mut folder = self.folder(Path::new(""))?;
        for below in missing.into_iter().rev().skip(1) {
            folder = match self.folder(below) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let name = below.file_name().unwrap_or_default();
                    self.check_depth(&folder)?;
                    let mode = Mode::from_raw_mode(0o755);
                    mkdirat(&folder, name, mode)?;
                    // Whatever the umask.
                    chmodat(&folder, name, mode, AtFlags::empty())?;
                    self.folder(below)?
                }
                found => found?,
            };
        }
        Ok(folder)
    }

    /// Refuses to go deeper than can be undone.
    pub(super) fn check_depth(&self, folder: &OwnedFd) -> io::Result<()> {
        if depth(folder)?.saturating_sub(self.depth) > DEPTH {
            let message = format!("folders lie more than {DEPTH} deep");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(())
    }

    /// A regular file's content, links followed; no more than `limit` bytes of it. None if there
    /// is no such file.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let found = match self.resolve(path, OFlags::PATH) {
            Ok(found) => found,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                    _ => Err(error),
                };
            }
        };
        // Merely to open a device may be to do something with it.
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// How many folders lie above one.
fn depth(folder: &OwnedFd) -> io::Result<usize> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
    Ok(path.components().count())
}

/// What lies under a name, links not followed; none if nothing does.
pub(super) fn kind(folder: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Names in a folder.
pub(super) fn names(folder: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// A folder of that name, links not followed.
pub(super) fn enter(folder: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

/// Removes what lies under a name with all that is in it; it is no error if nothing does. Folders
/// are no deeper than [`DEPTH`], which bounds the recursion.
pub(super) fn remove(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match kind(folder, name)? {
        None => Ok(()),
        Some(FileType::Directory) => {
            let inner = enter(folder, name)?;
            for name in names(&inner)? {
                remove(&inner, &name)?;
            }
            Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
        }
        Some(_) => Ok(unlinkat(folder, name, AtFlags::empty())?),
    }
}
