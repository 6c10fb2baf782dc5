//! A device of the machine.

use std::path::PathBuf;

use serde_json::{Value, json};

/// A node of `/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    pub(crate) block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Device {
    /// As the OCI runtime specification has it.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "path": self.path,
            "type": if self.block { "b" } else { "c" },
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        })
    }
}
