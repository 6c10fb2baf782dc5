//! Sandboxes and containers on disk: one folder each, so that the next agent finds them.
//!
//! `sandboxes/<id>/sandbox.json`, and for a container `containers/<id>/` with `container.json`,
//! `started.json` once it was started, and `exit.json` once it has ended; the latter is written
//! by the guest's own process, which may end when no agent is there. A process with a user of its
//! own writes it into `guest/`, the only folder there that is its user's; what the agent writes
//! itself lies where guests cannot put anything in its place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, Exit, GuestUser, PodIdentity,
    PodSandbox, SandboxId,
};
use rand::Rng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Access};
use crate::protocol::Kind;

/// A new identity: 64 hexadecimal digits.
pub(super) fn new_id() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A container as it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub pod: PodIdentity,
    pub config: ContainerConfig,
    pub created_at: SystemTime,
}

/// That a container was started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub at: SystemTime,
    pub kind: Kind,
}

impl ContainerRecord {
    pub(super) fn with_state(&self, state: ContainerState) -> Container {
        Container {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            pod: self.pod.clone(),
            config: self.config.clone(),
            state,
            created_at: self.created_at,
        }
    }
}

/// Where a guest's process with a user of its own writes.
const GUEST: &str = "guest";
const EXIT: &str = "exit.json";

/// The runtime's folder.
pub(super) struct Records {
    root: PathBuf,
}

impl Records {
    /// Opens the folder. Guests with users of their own pass through parts of it.
    pub(super) fn open(root: &Path, users: bool) -> io::Result<Self> {
        for folder in ["sandboxes", "containers", "hosts"] {
            disk::private_dir(&root.join(folder))?;
        }
        if users {
            for folder in [root.to_owned(), root.join("containers"), root.join("hosts")] {
                disk::folder(&folder, Access::Passage)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    fn sandbox_folder(&self, id: &SandboxId) -> PathBuf {
        self.root.join("sandboxes").join(&id.0)
    }

    pub(super) fn container_folder(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(&id.0)
    }

    /// Where the process of a command guest lives.
    pub(super) fn runner_folder(&self, id: &ContainerId) -> PathBuf {
        self.container_folder(id).join("runner")
    }

    /// Where the HTTP host of a namespace lives.
    pub(super) fn host_folder(&self, namespace: &str) -> PathBuf {
        self.root.join("hosts").join(namespace)
    }

    /// Namespaces that have a folder for an HTTP host.
    pub(super) fn hosts(&self) -> io::Result<Vec<String>> {
        names(&self.root.join("hosts"))
    }

    /// Lets the process of a container in, and says where it writes how the guest ended.
    pub(super) fn admit(&self, id: &ContainerId, user: Option<GuestUser>) -> io::Result<PathBuf> {
        let folder = self.container_folder(id);
        let Some(user) = user else {
            return Ok(folder.join(EXIT));
        };
        let guest = folder.join(GUEST);
        disk::folder(&folder, Access::Group(user.gid))?;
        disk::folder(&guest, Access::User(user))?;
        Ok(guest.join(EXIT))
    }

    pub(super) fn write_sandbox(&self, sandbox: &PodSandbox) -> io::Result<()> {
        let folder = self.sandbox_folder(&sandbox.id);
        disk::private_dir(&folder)?;
        disk::write_json(&folder.join("sandbox.json"), sandbox)
    }

    pub(super) fn remove_sandbox(&self, id: &SandboxId) -> io::Result<()> {
        disk::remove_dir(&self.sandbox_folder(id))
    }

    pub(super) fn sandboxes(&self) -> io::Result<Vec<PodSandbox>> {
        read_all(&self.root.join("sandboxes"), "sandbox.json")
    }

    pub(super) fn write_container(&self, record: &ContainerRecord) -> io::Result<()> {
        let folder = self.container_folder(&record.id);
        disk::private_dir(&folder)?;
        disk::write_json(&folder.join("container.json"), record)
    }

    pub(super) fn remove_container(&self, id: &ContainerId) -> io::Result<()> {
        disk::remove_dir(&self.container_folder(id))
    }

    pub(super) fn containers(&self) -> io::Result<Vec<ContainerRecord>> {
        read_all(&self.root.join("containers"), "container.json")
    }

    pub(super) fn write_started(&self, id: &ContainerId, started: &Started) -> io::Result<()> {
        disk::write_json(&self.container_folder(id).join("started.json"), started)
    }

    pub(super) fn started(&self, id: &ContainerId) -> io::Result<Option<Started>> {
        disk::read_json(&self.container_folder(id).join("started.json"))
    }

    pub(super) fn write_exit(&self, id: &ContainerId, exit: &Exit) -> io::Result<()> {
        disk::write_json(&self.container_folder(id).join(EXIT), exit)
    }

    pub(super) fn exit(&self, id: &ContainerId) -> io::Result<Option<Exit>> {
        let folder = self.container_folder(id);
        match disk::read_json(&folder.join(EXIT))? {
            Some(exit) => Ok(Some(exit)),
            None => disk::read_foreign_json(&folder.join(GUEST).join(EXIT)),
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Reads a record of every folder in `parent`. A folder without one was cut off while it was
/// made, or damaged: it is removed, as whoever wanted it asks again.
fn read_all<T: DeserializeOwned>(parent: &Path, file: &str) -> io::Result<Vec<T>> {
    let mut records = Vec::new();
    for name in names(parent)? {
        let folder = parent.join(name);
        match disk::read_json(&folder.join(file)) {
            Ok(Some(record)) => records.push(record),
            result => {
                let error = result.err();
                tracing::warn!(folder = %folder.display(), ?error, "dropping a damaged record");
                disk::remove_dir(&folder)?;
            }
        }
    }
    Ok(records)
}
