//! Lets what runs of a Pod into the Pod's folders, and nobody else ([`Readers`]).
//!
//! Where a runtime runs guests as users of their own ([`RuntimeService::guest_user`]), the folder
//! of a Pod belongs to root and to that user's group, who may pass it; what lies in it is as open
//! as Kubernetes has it. The group is the Pod's implied `fsGroup`: files that the kubelet writes
//! get it, and it may read them, whatever mode the Pod asks for. Containers pass no folder, since
//! what they see is mounted for them: of a Pod of theirs alone files have the modes that it asks
//! for, and the `fsGroup` that it names. Everywhere else guests run as the agent does, and modes
//! are what the umask makes of them.
//!
//! Folders that guests own hold what guests put there: what is read from them is opened with
//! [`open_foreign`].
//!
//! [`RuntimeService::guest_user`]: coracle_runtime::RuntimeService::guest_user

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown};
use std::path::Path;

use coracle_runtime::GuestUser;
use rustix::fs::OFlags;

/// What runs of a Pod, and so may read what the kubelet makes for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// What runs as the agent does.
    Agent,
    /// Containers alone, of an agent that is root.
    Containers {
        /// As the Pod names it.
        fs_group: Option<u32>,
    },
    /// Guests of that user, and containers that may be beside them.
    Guests(GuestUser),
}

impl Readers {
    /// The group that may do what the mode of a file does not say.
    pub(crate) fn group(self) -> Option<u32> {
        match self {
            Self::Agent => None,
            Self::Containers { fs_group } => fs_group,
            Self::Guests(user) => Some(user.gid),
        }
    }

    /// The user of their own as whom guests run.
    pub(crate) fn guests(self) -> Option<GuestUser> {
        match self {
            Self::Guests(user) => Some(user),
            Self::Agent | Self::Containers { .. } => None,
        }
    }
}

/// What the group of an `fsGroup` may do with files of a volume that is only read.
const GROUP_READ: u32 = 0o440;
/// The same for volumes that are written.
const GROUP_WRITE: u32 = 0o660;

/// What is made in a folder has the folder's group.
const SET_GROUP: u32 = 0o2000;

/// Makes a folder that everybody may pass who knows the name of what lies in it.
pub(crate) fn passage(path: &Path, user: Option<GuestUser>) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    match user {
        Some(_) => set_mode(path, 0o711),
        None => Ok(()),
    }
}

/// Makes a folder that is a Pod's, below `root`, which all Pods share.
pub(crate) fn pod_folder(root: &Path, path: &Path, readers: Readers) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    match readers {
        Readers::Agent => return Ok(()),
        Readers::Containers { .. } => set_mode(path, 0o700)?,
        Readers::Guests(user) => {
            chown(path, None, Some(user.gid))?;
            set_mode(path, 0o710)?;
        }
    }
    let between = path.ancestors().skip(1);
    for folder in between.take_while(|folder| folder.starts_with(root)) {
        set_mode(folder, 0o711)?;
    }
    Ok(())
}

/// Makes a folder in which guests may do what they like, and others nothing.
pub(crate) fn own_folder(path: &Path, user: Option<GuestUser>) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    let Some(user) = user else {
        return Ok(());
    };
    chown(path, Some(user.uid), Some(user.gid))?;
    set_mode(path, 0o700)
}

/// Gives a file to the guests.
pub(crate) fn give_file(path: &Path, user: Option<GuestUser>) -> io::Result<()> {
    match user {
        Some(user) => {
            chown(path, Some(user.uid), Some(user.gid))?;
            set_mode(path, 0o600)
        }
        // The guest, under another user, writes it.
        None => set_mode(path, 0o666),
    }
}

/// Mode of a file that the kubelet writes.
pub(crate) fn file_mode(mode: u32, readers: Readers) -> u32 {
    mode | readers.group().map_or(0, |_| GROUP_READ)
}

/// Hands a volume that is written to the group of whoever does, for what is made in it as well.
/// What lies in it from a time when guests ran as the agent goes with it, once: a folder that has
/// been given to anybody is left alone.
pub(crate) fn give_volume(path: &Path, group: u32) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.gid() != rustix::process::getegid().as_raw() {
        return Ok(());
    }
    give_tree(path, group)?;
    chown(path, None, Some(group))?;
    set_mode(path, metadata.mode() & 0o7777 | SET_GROUP)
}

fn give_tree(folder: &Path, group: u32) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = std::fs::symlink_metadata(&path)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() {
            give_tree(&path, group)?;
            lchown(&path, None, Some(group))?;
            set_mode(&path, mode | GROUP_WRITE | 0o110)?;
        } else if metadata.is_file() && metadata.nlink() == 1 {
            // A file of several names may have one outside of the volume.
            lchown(&path, None, Some(group))?;
            set_mode(&path, mode | GROUP_WRITE)?;
        }
    }
    Ok(())
}

/// Opens a file that guests may have replaced by anything: links lead nowhere, and a pipe holds
/// nobody up.
pub(crate) fn open_foreign(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is no regular file", path.display()),
        )),
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_put_in_place_of_a_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("log"), "text").unwrap();
        assert!(open_foreign(&path("log")).is_ok());
        std::os::unix::fs::symlink(path("log"), path("link")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        let pipe = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            pipe,
            0,
        )
        .unwrap();
        for name in ["link", "folder", "pipe", "none"] {
            assert!(open_foreign(&path(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn without_a_group_modes_stay_what_they_are() {
        let containers = |fs_group| Readers::Containers { fs_group };
        let guests = Readers::Guests(GuestUser { uid: 1, gid: 1 });
        for (mode, readers, expected) in [
            (0o400, Readers::Agent, 0o400),
            (0o400, containers(None), 0o400),
            (0o400, containers(Some(1)), 0o440),
            (0o400, guests, 0o440),
            (0o644, guests, 0o644),
        ] {
            assert_eq!(file_mode(mode, readers), expected, "{mode:o} {readers:?}");
        }
    }
}
