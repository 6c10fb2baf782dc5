//! From a container's configuration and its image's to the OCI runtime specification.
//!
//! A function from data to data: what must be read for it (users of the image, what kind of
//! cgroups the machine has) comes in. What a container may do by default follows what container
//! engines have in common, as their documentation states it.
//!
//! `linux.seccomp` and an explicit `noNewPrivileges: false` are left out on purpose: the filter is
//! installed by the runtime's own executor ([`crate::seccomp`]), for later processes of a container
//! too.

pub(crate) mod apparmor;
mod capabilities;
mod device;
mod mounts;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_images::ImageConfig;
use coracle_runtime::{
    CPU_PERIOD, ContainerConfig, ContainerUser, MASKED_PATHS, Namespaces, Network,
    PodSandboxConfig, Propagation, READ_ONLY_PATHS, Resources, Seccomp, Security,
};
use serde_json::{Value, json};

use crate::place;
use crate::protocol::{Pinned, PodUsers, Staged};
use crate::shim::PROCESSES;
use crate::snapshots::UserFiles;

pub(crate) use capabilities::Capabilities;
pub(crate) use device::Device;
pub(crate) use user::{give_home, of_image};

/// Where programs are looked for if neither the image nor the container says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything that a specification is made of.
pub(crate) struct Input<'a> {
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) users: &'a UserFiles,
    /// Absolute, from the root of every hierarchy.
    pub(crate) cgroup: &'a Path,
    /// Whether the machine has the unified hierarchy alone.
    pub(crate) unified: bool,
    /// Where the older hierarchies are mounted.
    pub(crate) hierarchies: &'a [PathBuf],
    /// Whether a container's processes can use no other devices than they are to.
    pub(crate) filters_devices: bool,
    /// Sizes of huge pages that are limited, in bytes.
    pub(crate) huge_pages: &'a [u64],
    /// Files of the sandbox that a container sees if no volume is there.
    pub(crate) files: &'a [(PathBuf, &'static str)],
    /// Folders for the image's volumes, where a container may write also if its root is
    /// read-only: of the machine, and in the container.
    pub(crate) volumes: &'a [(PathBuf, PathBuf)],
    /// The layers of images whose files are mounted, by the images' digests.
    pub(crate) images: &'a BTreeMap<String, Vec<PathBuf>>,
    /// The process that holds the Pod's namespaces.
    pub(crate) shim: i32,
    /// Leads to the namespace of the Pod's own users, if it has some.
    pub(crate) pod_users: &'a Path,
    /// Leads to the namespace of processes that containers of the Pod may share.
    pub(crate) processes: &'a Path,
    /// Devices of the machine, for a container with all rights.
    pub(crate) devices: &'a [Device],
    /// The profile of AppArmor, see [`apparmor::profile`].
    pub(crate) app_armor: Option<&'a str>,
    /// The capabilities that the agent has itself, a bit for each.
    pub(crate) capabilities: u64,
    /// What `oom_score_adj` can be at least.
    pub(crate) least_oom_score: i32,
    /// The folder of the container.
    pub(crate) bundle: &'a Path,
}

impl Input<'_> {
    /// Whether its processes are in a namespace of which the first process is another's.
    fn joins_processes(&self) -> bool {
        self.sandbox.namespaces.share_processes || self.config.target.is_some()
    }
}

/// Where the shim puts a link to the namespace of the processes of a container's target.
pub(crate) fn target_processes(bundle: &Path) -> PathBuf {
    bundle.join(PROCESSES)
}

/// What is run, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// The OCI runtime specification.
    pub(crate) spec: Value,
    /// As whom its first process begins.
    pub(crate) user: ContainerUser,
    /// What every process of the container may do once its filter is in.
    pub(crate) capabilities: Capabilities,
    /// Volumes that are put in their places before the container is made.
    pub(crate) staged: Vec<Staged>,
    /// The Pod's own users, if it has some.
    pub(crate) users: Option<PodUsers>,
}

/// Whether system calls of a container are filtered.
pub(crate) fn filtered(security: &Security) -> bool {
    !security.privileged && security.seccomp != Seccomp::Unconfined
}

/// The specification, or why there is none.
pub(crate) fn plan(input: &Input<'_>) -> Result<Plan, String> {
    let (config, security) = (input.config, &input.config.security);
    let shared = &input.sandbox.namespaces;
    if shared.users.is_some()
        && (shared.host_pid || shared.host_ipc || shared.network == Network::Host)
    {
        return Err("hostUsers: false goes with no namespace of the machine's".into());
    }
    let argv = input.image.argv(&config.command, &config.args);
    if argv.is_empty() {
        return Err(format!(
            "no command specified: neither the container nor its image {} names one",
            config.image
        ));
    }
    let user = user::resolve(security, &input.image.user, input.users)?;
    if security.non_root && user.uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".into());
    }
    if shared.users.is_some() {
        user::check_range(&user)?;
    }
    let own = [("PATH", PATH), ("HOSTNAME", &*input.sandbox.hostname)];
    let mut env = input.image.environment(&own, &config.env);
    // Where it is missing or empty libcontainer asks the C library, inside the container: that loads what
    // nsswitch.conf names there, into a process that has more rights than the container and no filter.
    let home = user::home(user.uid, input.users);
    match env.iter_mut().find(|(name, _)| name == "HOME") {
        Some((_, value)) if value.is_empty() => *value = home.to_owned(),
        Some(_) => {}
        None => env.push(("HOME".to_owned(), home.to_owned())),
    }
    check_environment(&env)?;
    let env: Vec<String> = env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let cwd = config.working_dir.as_deref();
    let cwd = cwd
        .or(Some(&*input.image.working_dir))
        .filter(|cwd| !cwd.is_empty());
    let cwd = Path::new("/").join(cwd.unwrap_or("/"));
    let capabilities = Capabilities::of(security, input.filters_devices, input.capabilities)?;
    // The rights to install the filter and to join the Pod's users, which the executor takes away
    // again.
    let filters = filtered(security) && !security.no_new_privileges;
    let granted = match (shared.users, filters) {
        (Some(_), _) => capabilities.with_joining_rights(),
        (None, true) => capabilities.with_filter_rights(),
        (None, false) => capabilities.clone(),
    };
    let mut process = json!({
        "terminal": config.stdio.terminal,
        "user": user::to_json(&user),
        "args": argv,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": granted.names(),
            "effective": granted.names(),
            "permitted": granted.names(),
        },
    });
    if security.no_new_privileges {
        process["noNewPrivileges"] = true.into();
    }
    if let Some(score) = config.oom_score_adj {
        process["oomScoreAdj"] = score.max(input.least_oom_score).into();
    }
    // Further processes begin as this one, and get it too.
    if let Some(profile) = input.app_armor {
        process["apparmorProfile"] = profile.into();
    }
    let (namespaces, pinned) = namespaces(input);
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": input.cgroup,
        "resources": resources(&config.resources, input.unified, input.huge_pages),
        "sysctl": sysctls(shared)?,
    });
    let (mounts, staged) = mounts::mounts(input)?;
    if staged.iter().any(|of| of.propagation == Propagation::Both) {
        // What is mounted in the container is to be seen outside.
        linux["rootfsPropagation"] = "shared".into();
    }
    if security.privileged {
        linux["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        linux["devices"] = input.devices.iter().map(Device::to_json).collect();
    }
    // libcontainer mounts the container's part of each older hierarchy for writing, and so the folder
    // in which they are.
    let own = input.hierarchies.iter().filter_map(|path| path.file_name());
    let own = own.map(|name| Path::new("/sys/fs/cgroup").join(name));
    let folder = (!input.hierarchies.is_empty()).then(|| "/sys/fs/cgroup".into());
    let mut read_only: Vec<PathBuf> = own.chain(folder).collect();
    if security.privileged {
        read_only.clear();
    } else if !security.unmasked_proc {
        linux["maskedPaths"] = json!(MASKED_PATHS);
        read_only.extend(READ_ONLY_PATHS.map(PathBuf::from));
    }
    linux["readonlyPaths"] = json!(read_only);
    let rootfs = match shared.users {
        Some(_) => place::rootfs(),
        None => "rootfs".into(),
    };
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": rootfs, "readonly": security.read_only_root},
        "mounts": mounts,
        "linux": linux,
    });
    Ok(Plan {
        spec,
        user,
        capabilities,
        staged,
        users: shared.users.map(|range| PodUsers {
            namespace: input.pod_users.to_owned(),
            range,
            pinned,
        }),
    })
}

/// Refuses variables that no process can have, of which images may name any: libcontainer (0.7) would
/// panic over them in the container's process.
fn check_environment(env: &[(String, String)]) -> Result<(), String> {
    let none = |(name, value): &&(String, String)| {
        name.is_empty() || name.contains('\0') || value.contains('\0')
    };
    match env.iter().find(none) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "invalid environment variable {name:?}: it has no name, or holds a zero byte"
        )),
    }
}

/// Namespaces of a container: those of the Pod are held by its shim. Where the Pod has users of its
/// own, namespaces that are joined are put in a place of theirs first.
fn namespaces(input: &Input<'_>) -> (Value, Vec<Pinned>) {
    let (shared, shim) = (&input.sandbox.namespaces, input.shim);
    let of_shim = |file: &str| Some(PathBuf::from(format!("/proc/{shim}/ns/{file}")));
    let mut all = vec![("mount", None), ("uts", of_shim("uts"))];
    match &shared.network {
        Network::Host => {}
        Network::Loopback => all.push(("network", of_shim("net"))),
        Network::Namespace(path) => all.push(("network", Some(path.clone()))),
    }
    match (shared.host_pid, shared.share_processes) {
        (true, _) => {}
        (false, false) if input.config.target.is_some() => {
            all.push(("pid", Some(target_processes(input.bundle))));
        }
        (false, false) => all.push(("pid", None)),
        (false, true) => all.push(("pid", Some(input.processes.to_owned()))),
    }
    if !shared.host_ipc {
        all.push(("ipc", of_shim("ipc")));
    }
    // On the older hierarchies engines show a container's cgroup under its full name.
    if input.unified && !input.config.security.privileged {
        all.push(("cgroup", None));
    }
    let mut pinned = Vec::new();
    if shared.users.is_some() {
        all.push(("user", Some(input.pod_users.to_owned())));
        for (kind, path) in &mut all {
            if let Some(path) = path {
                let at = place::namespace(kind);
                let source = std::mem::replace(path, at.clone());
                pinned.push(Pinned { source, at });
            }
        }
    }
    let all = all.into_iter().map(|(kind, path)| match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    });
    (all.collect(), pinned)
}

/// Limits in the units of the kernel. Of devices nothing is allowed but what every container has, and
/// of huge pages those alone that were asked for.
fn resources(of: &Resources, unified: bool, huge_pages: &[u64]) -> Value {
    let mut cpu = json!({"shares": of.cpu_shares()});
    if let Some(quota) = of.cpu_quota() {
        cpu["period"] = CPU_PERIOD.into();
        cpu["quota"] = quota.into();
    }
    let mut resources = json!({
        "cpu": cpu,
        "devices": [{"allow": false, "access": "rwm"}],
    });
    if let Some(bytes) = of.memory_limit() {
        resources["memory"] = json!({"limit": bytes, "swap": bytes});
    }
    if unified {
        // A container ends as a whole, as kubelets have it.
        resources["unified"] = json!({"memory.oom.group": "1"});
    }
    let huge_pages = of.huge_page_limits(huge_pages);
    if !huge_pages.is_empty() {
        let limits = huge_pages.iter();
        let limits = limits.map(|(size, bytes)| json!({"pageSize": size, "limit": bytes}));
        resources["hugepageLimits"] = limits.collect();
    }
    resources
}

/// Parameters of the kernel that belong to namespaces of the Pod's own.
fn sysctls(of: &Namespaces) -> Result<Value, String> {
    const IPC: [&str; 4] = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];
    for name in of.sysctls.keys() {
        let shared = if name.starts_with("net.") {
            of.network == Network::Host
        } else if IPC.iter().any(|prefix| name.starts_with(prefix)) {
            of.host_ipc
        } else {
            return Err(format!(
                "sysctl \"{name}\" is not of a namespace of the Pod's"
            ));
        };
        if shared {
            return Err(format!(
                "sysctl \"{name}\" is the machine's where the Pod shares that namespace with it"
            ));
        }
    }
    Ok(json!(of.sysctls))
}

#[cfg(test)]
mod tests;
