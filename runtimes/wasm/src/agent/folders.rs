//! Folders of guests' processes, beside the records of the containers that they run.
//!
//! A process with a user of its own writes how its guest ended into `guest/` of the container's
//! folder, the only folder there that is its user's; what the agent writes itself lies where
//! guests cannot put anything in its place.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_runtime::disk::{self, Access};
use coracle_runtime::ledger::{EXIT, Records, names};
use coracle_runtime::usage::{DiskUsage, disk_usage};
use coracle_runtime::{ContainerId, Exit, GuestUser};
use serde::{Deserialize, Serialize};

use crate::launch::SCRATCH;
use crate::protocol::Kind;

/// Where a guest's process with a user of its own writes.
const GUEST: &str = "guest";

/// That a container was started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub at: SystemTime,
    pub kind: Kind,
}

/// The runtime's folder, as guests' processes meet it.
pub(super) struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Makes the folders. Guests with users of their own pass through parts of them.
    pub(super) fn open(root: &Path, users: bool) -> io::Result<Self> {
        disk::private_dir(&root.join("hosts"))?;
        if users {
            for folder in [root.to_owned(), root.join("containers"), root.join("hosts")] {
                disk::folder(&folder, Access::Passage)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Where the process of a command guest lives.
    pub(super) fn runner(records: &Records, id: &ContainerId) -> PathBuf {
        records.container_folder(id).join("runner")
    }

    /// Where an HTTP host lives, see [`super::home::Home::folder`].
    pub(super) fn host(&self, name: &str) -> PathBuf {
        self.root.join("hosts").join(name)
    }

    /// Names of folders of HTTP hosts.
    pub(super) fn hosts(&self) -> io::Result<Vec<String>> {
        names(&self.root.join("hosts"))
    }
}

/// What a guest has written beside its volumes: where one of those is a single file, the guest can put
/// others next to it. `process` is the folder of its process, a runner of its own or a host of many.
pub(super) fn written(
    runner: &Path,
    process: Option<&Path>,
    id: &ContainerId,
) -> io::Result<DiskUsage> {
    let of_host = process.map(|process| process.join(SCRATCH).join(&id.0));
    let folders = [Some(runner.join(SCRATCH)), of_host];
    let folders = folders.into_iter().flatten();
    folders.map(|folder| disk_usage(&folder)).sum()
}

/// Lets the process of a container in, and says where it writes how the guest ended.
pub(super) fn admit(
    records: &Records,
    id: &ContainerId,
    user: Option<GuestUser>,
) -> io::Result<PathBuf> {
    let folder = records.container_folder(id);
    let Some(user) = user else {
        return Ok(folder.join(EXIT));
    };
    let guest = folder.join(GUEST);
    disk::folder(&folder, Access::Group(user.gid))?;
    disk::folder(&guest, Access::User(user))?;
    Ok(guest.join(EXIT))
}

/// How a guest ended, as its process or the agent wrote it.
pub(super) fn exit(records: &Records, id: &ContainerId) -> io::Result<Option<Exit>> {
    match records.exit(id)? {
        Some(exit) => Ok(Some(exit)),
        None => disk::read_foreign_json(&records.container_folder(id).join(GUEST).join(EXIT)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_file_volumes_is_the_guests() {
        const SIZE: usize = 256 << 10;
        let folder = tempfile::tempdir().unwrap();
        let (runner, host) = (folder.path().join("runner"), folder.path().join("host"));
        let id = ContainerId("one".into());
        let bytes = |process| written(&runner, process, &id).unwrap().bytes;
        assert_eq!(bytes(None), 0);
        let put = |below: PathBuf| {
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("file"), vec![1; SIZE]).unwrap();
        };
        put(runner.join(SCRATCH).join("0"));
        // Another container's.
        put(host.join(SCRATCH).join("two"));
        let of_runner = bytes(Some(&*runner));
        assert!(of_runner >= SIZE as u64 && of_runner < 2 * SIZE as u64);
        assert_eq!(bytes(Some(&*host)), of_runner);
        put(host.join(SCRATCH).join("one"));
        assert!(bytes(Some(&*host)) >= 2 * SIZE as u64);
    }
}
