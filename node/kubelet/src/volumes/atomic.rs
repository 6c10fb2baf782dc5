//! Writes the files of a volume so that a reader sees all old ones or all new ones.
//!
//! The layout is that of Kubernetes: the files live in a folder `..<time>.<n>`, the link
//! `..data` leads to the folder of now and is replaced by a rename, and each name at the
//! volume's top is a link through `..data`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::projection::{File, Files};
use crate::access::{Readers, file_mode, set_mode};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Brings the folder to these files; true if anything changed.
pub(crate) fn write(folder: &Path, files: &Files, readers: Readers) -> io::Result<bool> {
    std::fs::create_dir_all(folder)?;
    open_up(folder, readers)?;
    let current = std::fs::read_link(folder.join(DATA)).ok();
    if let Some(current) = &current
        && is_current(&folder.join(current), files, readers)?
    {
        link_names(folder, files)?;
        return Ok(false);
    }
    let fresh = fresh_folder(folder)?;
    for (path, file) in files {
        let fresh = folder.join(&fresh);
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        for parent in path
            .ancestors()
            .skip(1)
            .take_while(|parent| *parent != fresh)
        {
            open_up(parent, readers)?;
        }
        write_file(&path, file, readers)?;
    }
    let link = folder.join(NEW_DATA);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&fresh, &link)?;
    std::fs::rename(&link, folder.join(DATA))?;
    link_names(folder, files)?;
    if let Some(current) = current {
        std::fs::remove_dir_all(folder.join(current))?;
    }
    Ok(true)
}

/// Whoever may enter the Pod's folder may read this one.
fn open_up(folder: &Path, readers: Readers) -> io::Result<()> {
    match readers {
        Readers::Agent => Ok(()),
        _ => set_mode(folder, 0o755),
    }
}

/// The user and the group that a file is given to, as far as it is.
fn owners(file: &File, readers: Readers) -> (Option<u32>, Option<u32>) {
    match readers {
        Readers::Agent => (None, None),
        Readers::Containers { fs_group } => {
            let user = file.user.unwrap_or(geteuid().as_raw());
            let group = fs_group.unwrap_or(getegid().as_raw());
            (Some(user), Some(group))
        }
        // Of a user of their own, they read by their group.
        Readers::Guests(user) => (None, Some(user.gid)),
    }
}

fn write_file(path: &Path, file: &File, readers: Readers) -> io::Result<()> {
    std::fs::write(path, &file.bytes)?;
    let (user, group) = owners(file, readers);
    chown(path, user, group)?;
    set_mode(path, file_mode(file.mode, readers))
}

fn fresh_folder(folder: &Path) -> io::Result<PathBuf> {
    let now = k8s_openapi::jiff::Timestamp::now();
    let time = now.strftime("%Y_%m_%d_%H_%M_%S");
    loop {
        let name = PathBuf::from(format!("..{time}.{}", rand::random::<u32>()));
        match std::fs::create_dir(folder.join(&name)) {
            Ok(()) => {
                set_mode(&folder.join(&name), 0o755)?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_current(data: &Path, files: &Files, readers: Readers) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    match list(data, Path::new(""), &mut present) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        listed => listed?,
    }
    if !present.iter().eq(files.keys()) {
        return Ok(false);
    }
    for (path, file) in files {
        let path = data.join(path);
        let metadata = std::fs::metadata(&path)?;
        let mode = metadata.mode() & 0o777;
        let (user, group) = owners(file, readers);
        let same = mode == file_mode(file.mode, readers)
            && user.is_none_or(|user| metadata.uid() == user)
            && group.is_none_or(|group| metadata.gid() == group);
        // Without the permission to read its own file the agent writes it anew.
        match std::fs::read(&path) {
            Ok(bytes) if bytes == file.bytes && same => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn list(base: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(base.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => list(base, &path, found)?,
            false => {
                found.insert(path);
            }
        }
    }
    Ok(())
}

/// Links for the names at the top, and none for names that are gone.
fn link_names(folder: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<OsString> = files.keys().filter_map(|path| top(path)).collect();
    for name in &wanted {
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.as_bytes().starts_with(b"..") && !wanted.contains(&name) {
            std::fs::remove_file(folder.join(&name))?;
        }
    }
    Ok(())
}

fn top(path: &Path) -> Option<OsString> {
    match path.components().next()? {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    }
}
