//! What of a node may run short, and how much there is of it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::node::machine;

/// An eviction signal, in the order in which shortages are met: memory first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory that is free or can be given back at once.
    MemoryAvailable,
    /// Room on the disk of Pods, logs and what containers write.
    NodeFsAvailable,
    /// Files that it may still have.
    NodeFsInodesFree,
    /// Room on the disk of images.
    ImageFsAvailable,
    /// Files that it may still have.
    ImageFsInodesFree,
    /// Processes and threads that may still be.
    PidAvailable,
}

/// A condition of the node that a shortage makes.
#[allow(clippy::enum_variant_names, reason = "they are the names of the API")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    DiskPressure,
    MemoryPressure,
    PidPressure,
}

impl Signal {
    pub(super) const ALL: [Self; 6] = [
        Self::MemoryAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::PidAvailable,
    ];

    /// As flags spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// What is short, in the words of messages.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    pub(super) fn condition(self) -> Condition {
        match self {
            Self::MemoryAvailable => Condition::MemoryPressure,
            Self::PidAvailable => Condition::PidPressure,
            _ => Condition::DiskPressure,
        }
    }
}

impl Condition {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DiskPressure => "DiskPressure",
            Self::MemoryPressure => "MemoryPressure",
            Self::PidPressure => "PIDPressure",
        }
    }

    /// The event that says so, and the one that says that it is over.
    pub(super) fn event(self, holds: bool) -> &'static str {
        match (self, holds) {
            (Self::DiskPressure, true) => "NodeHasDiskPressure",
            (Self::DiskPressure, false) => "NodeHasNoDiskPressure",
            (Self::MemoryPressure, true) => "NodeHasInsufficientMemory",
            (Self::MemoryPressure, false) => "NodeHasSufficientMemory",
            (Self::PidPressure, true) => "NodeHasInsufficientPID",
            (Self::PidPressure, false) => "NodeHasSufficientPID",
        }
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) available: u64,
    pub(crate) capacity: u64,
}

/// By signal; what the system does not tell is missing.
pub(crate) type Observations = BTreeMap<Signal, Observation>;

/// Asks the system: four small questions.
pub(super) fn observe(pods: &Path, images: &Path) -> Observations {
    let mut all = Observations::new();
    let mut put = |signal, available, capacity| {
        let observation = Observation {
            available,
            capacity,
        };
        all.insert(signal, observation);
    };
    if let Some(memory) = machine::memory() {
        let available = memory.total.saturating_sub(memory.working_set);
        put(Signal::MemoryAvailable, available, memory.total);
    }
    if let Some(disk) = machine::disk(pods) {
        put(Signal::NodeFsAvailable, disk.available, disk.capacity);
        // Some file systems have as many as they need, and say none.
        if disk.inodes > 0 {
            put(Signal::NodeFsInodesFree, disk.inodes_free, disk.inodes);
        }
    }
    if let Some(disk) = machine::disk(images) {
        put(Signal::ImageFsAvailable, disk.available, disk.capacity);
        if disk.inodes > 0 {
            put(Signal::ImageFsInodesFree, disk.inodes_free, disk.inodes);
        }
    }
    if let Some((used, most)) = machine::processes() {
        put(Signal::PidAvailable, most.saturating_sub(used), most);
    }
    all
}
