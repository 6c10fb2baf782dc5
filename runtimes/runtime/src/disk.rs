//! What runtimes keep on disk: small JSON records, replaced atomically, and folders with their
//! modes.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::GuestUser;

/// Makes a folder, and its parents, that only the owner may enter.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Who may enter a folder that guests with users of their own have to do with.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Everybody may pass, who knows the name of what lies in it.
    Passage,
    /// The members of a group may pass.
    Group(u32),
    /// It is that user's.
    User(GuestUser),
}

/// Makes a folder, or brings it to what it should be. Its parents, if they are missing, are the
/// owner's only.
pub fn folder(path: &Path, access: Access) -> io::Result<()> {
    private_dir(path)?;
    let mode = match access {
        Access::Passage => 0o711,
        Access::Group(gid) => {
            chown(path, None, Some(gid))?;
            0o710
        }
        Access::User(user) => {
            chown(path, Some(user.uid), Some(user.gid))?;
            0o700
        }
    };
    set_mode(path, mode)
}

/// Sets the mode of a file or folder, whatever the umask.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Replaces `path` with `value`: a reader sees the old record or the new one, never a part.
///
/// The file is not synced: what it describes is a process, and that does not outlive a power cut.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("new");
    let mut file = create_private(&temporary)?;
    file.write_all(&bytes)?;
    fs::rename(&temporary, path)
}

/// As [`write_json`], for what must outlive a power cut.
pub fn write_json_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("new");
    let mut file = create_private(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Reads a record; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a record of a process. One that a power cut has left empty, or in part, is none: the process
/// has not outlived that either.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        // What is whole and says something else is of a release that knows more.
        Err(error) if error.is_data() => Err(error.into()),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a damaged record is taken for none");
            Ok(None)
        }
    }
}

/// Reads a record that a guest's user may have replaced by anything: links lead nowhere, a pipe
/// holds nobody up, and no more is read than a record has.
pub fn read_foreign_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    const MAX_RECORD: u64 = 1 << 20;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        let message = format!("{} is no file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Removes a folder and all in it; it is no error if it is gone.
///
/// A container may have made folders deeper than a recursion could go: what lies deeper is brought
/// to the top, one level at a time.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    let mut number = 0_u64;
    loop {
        let folders = remove_files(&top)?;
        if folders.is_empty() {
            break;
        }
        for name in folders {
            let folder = openat(&top, &name, flags, Mode::empty())?;
            loop {
                let inner = remove_files(&folder)?;
                if inner.is_empty() {
                    break;
                }
                for inner in inner {
                    raise(&folder, &inner, &top, &mut number)?;
                }
            }
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves a folder to the top, under a name that nothing there has.
fn raise(folder: &OwnedFd, name: &CString, top: &OwnedFd, number: &mut u64) -> io::Result<()> {
    loop {
        let risen = format!("removed-{number}");
        *number += 1;
        match renameat_with(folder, name, top, risen, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            moved => return Ok(moved?),
        }
    }
}

/// Names that are in memory at once: a container may have made millions.
const NAMES: usize = 1 << 14;

/// Removes what is in a folder, but for folders in which something is: names of such. None are named
/// once nothing is left.
fn remove_files(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    loop {
        let mut full = Vec::new();
        let entries: Result<Vec<_>, Errno> = Dir::read_from(folder)?.take(NAMES).collect();
        let entries = entries?;
        for entry in &entries {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let removed = match unlinkat(folder, name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => unlinkat(folder, name, AtFlags::REMOVEDIR),
                removed => removed,
            };
            match removed {
                Err(Errno::NOTEMPTY | Errno::EXIST) => full.push(name.to_owned()),
                Err(Errno::NOENT) => {}
                removed => removed?,
            }
        }
        if !full.is_empty() || entries.len() < NAMES {
            return Ok(full);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_record_of_a_guest_is_read_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit.json");
        let read = || read_foreign_json::<u32>(&path);
        assert_eq!(read().unwrap(), None);
        fs::write(&path, "7").unwrap();
        assert_eq!(read().unwrap(), Some(7));
        let secret = folder.path().join("secret");
        fs::rename(&path, &secret).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(read().is_err(), "a link is not followed");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read().is_err(), "a folder is no record");
    }

    #[test]
    fn a_record_that_a_power_cut_has_damaged_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit.json");
        let read = || read_record::<u32>(&path);
        assert_eq!(read().unwrap(), None);
        for (text, expected) in [("7", Some(7)), ("", None), ("\0\0", None)] {
            fs::write(&path, text).unwrap();
            assert_eq!(read().unwrap(), expected, "{text:?}");
        }
        fs::write(&path, "{\"of\": \"another release\"}").unwrap();
        assert!(read().is_err());
    }

    #[test]
    fn more_names_than_are_kept_at_once_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide");
        fs::create_dir_all(path.join("full")).unwrap();
        for number in 0..NAMES + 10 {
            fs::create_dir(path.join(format!("{number}"))).unwrap();
            if number < 10 {
                fs::create_dir(path.join(format!("full/{number}"))).unwrap();
                fs::write(path.join(format!("full/{number}/file")), "").unwrap();
            }
        }
        remove_dir(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn folders_deeper_than_any_path_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep");
        fs::create_dir_all(path.join("wide/a")).unwrap();
        fs::write(path.join("wide/a/file"), "").unwrap();
        fs::create_dir_all(path.join("removed-0/removed-1/x")).unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("stays"), "").unwrap();
        std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
        let mut at: OwnedFd = File::open(&path).unwrap().into();
        for _ in 0..5000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        remove_dir(&path).unwrap();
        assert!(!path.exists());
        assert!(outside.join("stays").exists(), "links are not followed");
        remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(remove_dir(&path).is_err(), "a file is no folder");
    }
}
