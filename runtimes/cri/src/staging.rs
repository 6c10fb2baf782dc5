//! Volumes in whose path a container may have put a link meanwhile (`subPath`).
//!
//! A runtime of the machine follows links when it mounts a volume, and knows its source by name
//! alone. So what was found free of links is mounted, without following any, at a place that no
//! container can reach, and the runtime is told that one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use coracle_runtime::{Mount, mountinfo};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// Puts those volumes that need it below a folder: the place of each. Blocks.
pub(crate) fn stage(mounts: &[Mount], folder: &Path) -> io::Result<Vec<Option<PathBuf>>> {
    let stage = |(index, mount): (usize, &Mount)| {
        if !mount.without_links || mount.image.is_some() {
            return Ok(None);
        }
        let at = folder.join(index.to_string());
        put(&mount.host_path, &at).map_err(|error| {
            let path = mount.host_path.display();
            io::Error::new(error.kind(), format!("volume {path}: {error}"))
        })?;
        Ok(Some(at))
    };
    mounts.iter().enumerate().map(stage).collect()
}

fn put(source: &Path, at: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = openat2(CWD, source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let tree = open_tree(
        &source,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    let kind = FileType::from_raw_mode(fstat(&tree)?.st_mode);
    match (kind, at.parent()) {
        (FileType::Directory, _) | (_, None) => fs::create_dir_all(at)?,
        (_, Some(parent)) => {
            fs::create_dir_all(parent)?;
            File::create(at)?;
        }
    }
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&tree, "", CWD, at, how)?)
}

/// Unmounts whatever is mounted below a folder, and removes the folder with the places. Blocks.
///
/// Nothing is removed through a mount: a place that is one still holds somebody's files.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    let folder = match folder.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        folder => folder?,
    };
    let below = |mounts: Vec<mountinfo::MountPoint>| {
        let below = mounts.into_iter().filter(|at| at.path.starts_with(&folder));
        below.collect::<Vec<_>>()
    };
    // Those that lie on others were mounted later.
    for mount in below(mountinfo::of_this_process()?).into_iter().rev() {
        unmount(&mount.path, UnmountFlags::DETACH)?;
    }
    if !below(mountinfo::of_this_process()?).is_empty() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    for place in fs::read_dir(&folder)? {
        let place = place?;
        match place.file_type()?.is_dir() {
            true => clear(&place.path())?,
            false => fs::remove_file(place.path())?,
        }
    }
    fs::remove_dir(&folder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_nothing_is_removed_through_a_mount() {
        let root = tempfile::tempdir().unwrap();
        let [volume, at] = ["volume", "staged"].map(|name| root.path().join(name));
        fs::create_dir_all(volume.join("in")).unwrap();
        fs::write(volume.join("in/file"), "kept").unwrap();
        std::os::unix::fs::symlink("in", volume.join("link")).unwrap();
        let mount = |path: &str| Mount {
            host_path: volume.join(path),
            without_links: true,
            ..Mount::default()
        };
        let staged = stage(&[mount("in"), mount("in/file"), Mount::default()], &at);
        let staged = match staged {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("SKIPPED: mounting takes root");
                return;
            }
            staged => staged.unwrap(),
        };
        let places: Vec<PathBuf> = staged.into_iter().flatten().collect();
        assert_eq!(places.len(), 2);
        assert_eq!(fs::read(places[0].join("file")).unwrap(), b"kept");
        assert_eq!(fs::read(&places[1]).unwrap(), b"kept");
        assert!(stage(&[mount("link")], &at.join("more")).is_err());
        for _ in 0..2 {
            clear(&at).unwrap();
        }
        assert!(!at.exists());
        assert_eq!(fs::read(volume.join("in/file")).unwrap(), b"kept");
    }
}
