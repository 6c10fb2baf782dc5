//! Users of a Pod's own, as the process knows them that makes a container of theirs
//! (`hostUsers: false`, KEP-127).
//!
//! Files stay on the disk as they are: layers, volumes and what the node writes for the container
//! are mounted with IDs that are mapped as the Pod's are (mount_setattr(2), `MOUNT_ATTR_IDMAP`), so
//! that root of the container owns what root of the machine does, and what it writes to a volume is
//! root's on the disk. What it writes over its image alone is its own: the folder for that is given
//! to it, and goes with the container. Overlays take such layers since Linux 5.19, and a file system
//! that cannot be mounted so, of a volume or of the images, is an error, as the KEP wants it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_images::unpack::Root;
use coracle_runtime::IdRange;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Uid, chownat, fchown, fstat};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, move_mount,
    open_tree, unmount,
};

use super::executor::Joins;
use crate::overlay::{self, Upper};
use crate::place;
use crate::protocol::PodUsers;

/// The users of a Pod.
pub(super) struct Users {
    namespace: OwnedFd,
    range: IdRange,
}

impl Users {
    pub(super) fn open(of: &PodUsers) -> io::Result<Self> {
        Ok(Self {
            namespace: File::open(&of.namespace)?.into(),
            range: of.range,
        })
    }

    /// For the executor of a process that libcontainer does not take to them. The descriptor stays
    /// open as long as this process, and those that it becomes.
    pub(super) fn into_joins(self) -> Joins {
        Joins {
            namespace: self.namespace.into_raw_fd(),
            range: self.range,
        }
    }

    fn root(&self) -> (Option<Uid>, Option<Gid>) {
        let first = self.range.first;
        (Some(Uid::from_raw(first)), Some(Gid::from_raw(first)))
    }

    /// Gives pipes to root of the Pod, who may open them again by a name then, as without users of
    /// its own. What else a process may have for its streams is the machine's.
    pub(super) fn give_pipes(&self, stdio: &[OwnedFd]) -> io::Result<()> {
        let (uid, gid) = self.root();
        for stream in stdio {
            if FileType::from_raw_mode(fstat(stream)?.st_mode) == FileType::Fifo {
                fchown(stream, uid, gid)?;
            }
        }
        Ok(())
    }

    /// Gives a folder to root of the Pod.
    pub(super) fn give_folder(&self, path: &Path) -> io::Result<()> {
        let (uid, gid) = self.root();
        Ok(chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives what of a path of a container's files this process has made: nothing else there is of
    /// root of the machine.
    pub(super) fn give_made(&self, root: &Root, path: &Path) -> io::Result<()> {
        let (uid, gid) = self.root();
        for path in path.ancestors() {
            let found = root.any(path)?;
            if fstat(&found)?.st_uid == 0 {
                chownat(&found, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        Ok(())
    }

    /// Maps the IDs of a mount that is in no namespace yet.
    pub(super) fn map(&self, tree: &OwnedFd) -> io::Result<()> {
        // SAFETY: a mount_attr of zeros changes nothing.
        let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
        attributes.attr_set = libc::MOUNT_ATTR_IDMAP;
        attributes.userns_fd = u64::from(self.namespace.as_raw_fd().unsigned_abs());
        overlay::set_attributes(tree, &attributes).map_err(|error| {
            let text = format!("its file system cannot be mounted with a Pod's own users: {error}");
            io::Error::new(error.kind(), text)
        })
    }

    /// Mounts folders over each other as [`overlay::overlay`] does, with IDs that are mapped.
    pub(super) fn overlay(
        &self,
        lowers: &[PathBuf],
        upper: Option<&Upper<'_>>,
        target: &Path,
        flags: MountFlags,
    ) -> io::Result<()> {
        let mut mapped = Vec::new();
        for (number, lower) in lowers.iter().enumerate() {
            let at = place::layer(number);
            fs::create_dir_all(&at)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, lower, flags)?;
            self.map(&tree).map_err(|error| {
                let text = format!("layer {}: {error}", lower.display());
                io::Error::new(error.kind(), text)
            })?;
            attach(&tree, &at)?;
            mapped.push(at);
        }
        overlay::overlay(&mapped, upper, target, flags)?;
        // The overlay has mounts of its own of them.
        for at in &mapped {
            unmount(at, UnmountFlags::DETACH)?;
        }
        Ok(())
    }
}

/// Puts a mount that is in no namespace where it is to be seen.
fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree, "", CWD, at, flags)?)
}

/// Makes the place for a container's parts, in a mount namespace of which the machine sees nothing,
/// and what libcontainer looks at before it is in the container.
pub(super) fn make_place(of: &PodUsers) -> io::Result<()> {
    fs::create_dir_all(place::PLACE)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("none", place::PLACE, "tmpfs", flags, c"mode=755")?;
    fs::create_dir(place::rootfs())?;
    for pinned in &of.pinned {
        if let Some(folder) = pinned.at.parent() {
            fs::create_dir_all(folder)?;
        }
        File::create(&pinned.at)?;
    }
    Ok(())
}

/// Puts namespaces where the container's specification has them.
pub(super) fn pin_namespaces(of: &PodUsers) -> io::Result<()> {
    for pinned in &of.pinned {
        mount_bind(&pinned.source, &pinned.at).map_err(|error| {
            let text = format!("namespace {}: {error}", pinned.source.display());
            io::Error::new(io::Error::from(error).kind(), text)
        })?;
    }
    Ok(())
}
