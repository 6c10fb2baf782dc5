//! What a container may do on the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files of `/proc` and `/sys` that say too much of the machine, or change it.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Those that may be read.
pub const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// As whom a container runs, and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// User; none: the image's.
    pub user: Option<u32>,
    /// Group; none: the image's, or that of the user in the image.
    pub group: Option<u32>,
    /// Groups beside it, and beside those that the user has in the image, unless
    /// [`Self::strict_groups`] leaves those out.
    pub supplemental_groups: Vec<u32>,
    /// Leaves out the groups that the user has in the image (`supplementalGroupsPolicy: Strict`).
    pub strict_groups: bool,
    /// Refuses to start as root.
    pub non_root: bool,
    /// Capabilities beside the default ones, without `CAP_`; `ALL` are all.
    pub add_capabilities: Vec<String>,
    /// Capabilities that are taken away, before others are added.
    pub drop_capabilities: Vec<String>,
    /// All rights of root on the machine.
    pub privileged: bool,
    /// Whether set-id programs and file capabilities give nothing.
    pub no_new_privileges: bool,
    /// Whether the container's own files cannot be written.
    pub read_only_root: bool,
    /// Whether nothing of `/proc` is hidden or read-only.
    pub unmasked_proc: bool,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// The profile of AppArmor; where none is asked for, the runtime decides.
    pub app_armor: Option<AppArmor>,
}

/// A profile of AppArmor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AppArmor {
    /// The runtime's own.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// The one of that name, which is loaded.
    Localhost(String),
}

/// A filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// The runtime's own.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// The one of a file of the machine, in the JSON of the OCI runtime specification.
    Localhost(PathBuf),
}
