//! Sandboxes and containers on disk: one folder each, so that the next agent finds them.
//!
//! `sandboxes/<id>/sandbox.json`, and for a container `containers/<id>/` with `container.json`,
//! `started.json` once it was started, and `exit.json` once it has ended; the latter may be
//! written by the container's own process, which may end when no agent is there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::{
    Container, ContainerConfig, ContainerId, ContainerState, Exit, PodIdentity, PodSandbox,
    SandboxId,
};

/// A container as it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its identity.
    pub id: ContainerId,
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// The Pod that it belongs to.
    pub pod: PodIdentity,
    /// The configuration that it was made from.
    pub config: ContainerConfig,
    /// When it was made.
    pub created_at: SystemTime,
}

impl ContainerRecord {
    pub(super) fn with_state(&self, state: ContainerState) -> Container {
        Container {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            pod: self.pod.clone(),
            config: self.config.clone(),
            state,
            user: None,
            created_at: self.created_at,
        }
    }
}

/// Name of the file that says how a container ended.
pub const EXIT: &str = "exit.json";

/// The folders of sandboxes and containers. Only one agent may use them at a time.
pub struct Records {
    root: PathBuf,
}

impl Records {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        for folder in ["sandboxes", "containers"] {
            disk::private_dir(&root.join(folder))?;
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// The folder of a sandbox.
    pub fn sandbox_folder(&self, id: &SandboxId) -> PathBuf {
        self.root.join("sandboxes").join(&id.0)
    }

    /// The folder of a container.
    pub fn container_folder(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(&id.0)
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

    /// Writes down that a container was started, with what a runtime must know of it.
    pub fn write_started<T: Serialize>(&self, id: &ContainerId, started: &T) -> io::Result<()> {
        disk::write_json(&self.container_folder(id).join("started.json"), started)
    }

    /// What [`Self::write_started`] wrote.
    pub fn started<T: DeserializeOwned>(&self, id: &ContainerId) -> io::Result<Option<T>> {
        disk::read_record(&self.container_folder(id).join("started.json"))
    }

    pub(super) fn write_exit(&self, id: &ContainerId, exit: &Exit) -> io::Result<()> {
        disk::write_json(&self.container_folder(id).join(EXIT), exit)
    }

    /// How a container ended.
    pub fn exit(&self, id: &ContainerId) -> io::Result<Option<Exit>> {
        disk::read_record(&self.container_folder(id).join(EXIT))
    }
}

/// Names of what is in a folder.
pub fn names(folder: &Path) -> io::Result<Vec<String>> {
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
