//! The control groups of a node's Pods: what is above the containers' of one Pod, of a class of Pods,
//! and of all.
//!
//! They are changed while they are held ([`PodCgroups::hold`]), together with what is known of
//! sandboxes: what this process removes, it does not remove from under what it makes.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};

use super::{Hierarchies, pod_weight};
use crate::{PodSandbox, PodSandboxConfig, PodsLimits, Resources, SandboxState};

/// Above the Pods' cgroups where the kubelet has named none.
const CGROUPS: &str = "/coracle";

/// The control groups of Pods.
pub struct PodCgroups {
    hierarchies: Hierarchies,
    changing: Mutex<()>,
    /// The cgroup above all Pods', which comes and goes with them, and what may be used in it.
    limits: Mutex<Option<(PathBuf, PodsLimits)>>,
}

impl PodCgroups {
    /// Those of this machine.
    pub fn detect() -> io::Result<Self> {
        Ok(Self {
            hierarchies: Hierarchies::detect()?,
            changing: Mutex::default(),
            limits: Mutex::default(),
        })
    }

    /// The control groups of the machine.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Keeps others from changing them.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Bounds what all Pods use together, from now on. Blocks.
    pub fn limit_all(&self, root: &Path, limits: PodsLimits) -> io::Result<()> {
        *self.limits.lock() = Some((root.to_owned(), limits));
        // Pods of an earlier agent may be there.
        let _held = self.hold();
        self.limit_root()
    }

    /// Limits what all Pods use together, as far as there are any and something is reserved.
    fn limit_root(&self) -> io::Result<()> {
        let Some((root, limits)) = self.limits.lock().clone() else {
            return Ok(());
        };
        let cgroup = self.hierarchies.cgroup(&root);
        if !cgroup.exists() {
            return Ok(());
        }
        cgroup.limit(&limits.resources, pod_weight)?;
        cgroup.limit_pids(limits.processes)
    }

    /// Makes the cgroup of a Pod, with its limits; `sandboxes` are all that are known. Blocks.
    pub fn make(&self, config: &PodSandboxConfig, sandboxes: &[PodSandbox]) -> io::Result<()> {
        let path = pod_cgroup(config);
        let cgroup = self.hierarchies.cgroup(&path);
        cgroup.create()?;
        self.limit_root()?;
        cgroup.limit(&config.resources, pod_weight)?;
        cgroup.keep_from_swap()?;
        cgroup.limit_pids(config.pids_limit)?;
        cgroup.limit_huge_pages(&config.resources)?;
        self.weigh_class(&path, sandboxes)
    }

    /// Changes the limits of a Pod's cgroup. Blocks.
    pub fn resize(&self, path: &Path, of: &Resources) -> io::Result<()> {
        self.hierarchies.cgroup(path).limit(of, pod_weight)
    }

    /// Removes a Pod's cgroup with whatever is left in it. Blocks.
    pub fn clear(&self, path: &Path) -> io::Result<()> {
        self.hierarchies.cgroup(path).clear()
    }

    /// Removes those above a Pod's cgroup in which nothing is; the others have the share of the Pods
    /// that are left.
    pub fn cleared(&self, path: &Path, sandboxes: &[PodSandbox]) {
        self.hierarchies.cgroup(path).remove_upwards();
        // There may be no Pod of the class left.
        let _ = self.weigh_class(path, sandboxes);
    }

    /// A class of Pods has the share of the processor that its Pods have asked for together.
    pub fn weigh_class(&self, pod: &Path, sandboxes: &[PodSandbox]) -> io::Result<()> {
        // What is right below the root is weighed by whoever owns the machine.
        let class = pod.parent().filter(|class| class.components().count() > 2);
        let Some(class) = class else { return Ok(()) };
        let of_class = sandboxes.iter().filter(|sandbox| {
            sandbox.state == SandboxState::Ready
                && pod_cgroup(&sandbox.config).parent() == Some(class)
        });
        let asked = of_class.filter_map(|sandbox| sandbox.config.resources.cpu_request_millis);
        let asked = asked.fold(0, u64::saturating_add);
        self.hierarchies.cgroup(class).weigh(asked)
    }
}

/// The cgroup of a Pod, from the root of every hierarchy.
pub fn pod_cgroup(config: &PodSandboxConfig) -> PathBuf {
    match &config.cgroup_parent {
        Some(parent) => Path::new("/").join(parent),
        None => own_pod_cgroup(&config.pod.uid),
    }
}

/// That of a Pod whose kubelet names none.
pub fn own_pod_cgroup(uid: &str) -> PathBuf {
    Path::new(CGROUPS).join(format!("pod{uid}"))
}
