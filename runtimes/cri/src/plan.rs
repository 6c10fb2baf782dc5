//! From what the kubelet asks to the messages of the CRI. Functions from data to data; what cannot
//! be asked of a runtime is refused by name.
//!
//! What the kubelet wants to read again later (its whole configuration) goes with each object as an
//! annotation, which runtimes keep: a next agent finds it where the object is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_runtime::cgroup::pods::pod_cgroup;
use coracle_runtime::{
    AppArmor, CPU_PERIOD, ContainerConfig, LogLimits, MASKED_PATHS, Mount, Namespaces, Network,
    PodIdentity, PodSandboxConfig, Propagation, READ_ONLY_PATHS, Resources, Seccomp, Security,
    TERMINATION_LOG, files,
};
use serde::{Deserialize, Serialize};

use crate::signals;
use crate::wire::{self, groups_policy, namespace, profile, propagation};

/// The label of all that belongs to a node: its folder.
pub(crate) const NODE_LABEL: &str = "coracle.dev/node";
/// The annotation with what the kubelet has asked for.
pub(crate) const CONFIG: &str = "coracle.dev/config";

/// What is kept with a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) pod: PodIdentity,
    pub(crate) config: ContainerConfig,
    /// Where its log is, on the machine.
    pub(crate) log: PathBuf,
}

impl Kept {
    pub(crate) fn limits(&self) -> LogLimits {
        self.config.log_limits
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Labels by which tools of the runtime know what belongs to which Pod, and we what is ours.
fn labels(pod: &PodIdentity, node: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let known = [
        (NODE_LABEL, node),
        ("io.kubernetes.pod.name", &*pod.name),
        ("io.kubernetes.pod.namespace", &*pod.namespace),
        ("io.kubernetes.pod.uid", &*pod.uid),
    ];
    let all = known.into_iter().chain(more.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Selects what belongs to a node.
pub(crate) fn ours(node: &str) -> BTreeMap<String, String> {
    [(NODE_LABEL.to_owned(), node.to_owned())].into()
}

/// The control group of a Pod as the runtime names it. systemd has slices, whose names have those
/// above them.
pub(crate) fn cgroup_parent(path: &Path, systemd: bool) -> String {
    let parts = path.components().filter_map(|part| match part {
        std::path::Component::Normal(part) => Some(part.to_string_lossy()),
        _ => None,
    });
    match systemd {
        false => format!("/{}", parts.collect::<Vec<_>>().join("/")),
        true => {
            // A dash stands for a level.
            let parts = parts.map(|part| part.replace('-', "_"));
            format!("{}.slice", parts.collect::<Vec<_>>().join("-"))
        }
    }
}

fn namespaces(of: &Namespaces) -> wire::NamespaceOption {
    let of_node = |is_node: bool| match is_node {
        true => namespace::NODE,
        false => namespace::POD,
    };
    wire::NamespaceOption {
        network: of_node(of.network == Network::Host),
        pid: match (of.host_pid, of.share_processes) {
            (true, _) => namespace::NODE,
            (false, true) => namespace::POD,
            (false, false) => namespace::CONTAINER,
        },
        ipc: of_node(of.host_ipc),
        target_id: String::new(),
    }
}

/// Limits in the units of the kernel.
pub(crate) fn resources(of: &Resources) -> wire::LinuxContainerResources {
    wire::LinuxContainerResources {
        cpu_period: CPU_PERIOD as i64,
        // Without a quota it is unlimited, also where there was one.
        cpu_quota: of.cpu_quota().unwrap_or(-1),
        cpu_shares: of.cpu_shares() as i64,
        memory_limit_in_bytes: of.memory_limit().unwrap_or(0),
        ..Default::default()
    }
}

/// Limits of huge pages, which do not change later. A runtime passes over them where nothing limits
/// them.
fn huge_pages(of: &Resources, sizes: &[u64]) -> Vec<wire::HugepageLimit> {
    let limits = of.huge_page_limits(sizes).into_iter();
    limits
        .map(|(page_size, limit)| wire::HugepageLimit { page_size, limit })
        .collect()
}

/// A sandbox, or why there can be none.
pub(crate) fn sandbox(
    config: &PodSandboxConfig,
    node: &str,
    systemd: bool,
) -> Result<wire::PodSandboxConfig, String> {
    if config.namespaces.users.is_some() {
        return Err(
            "hostUsers: false is not supported with --container-runtime-endpoint".to_owned(),
        );
    }
    let kept = serde_json::to_string(config).map_err(|error| error.to_string())?;
    let resolution = config.resolution.as_ref();
    Ok(wire::PodSandboxConfig {
        metadata: Some(wire::PodSandboxMetadata {
            name: config.pod.name.clone(),
            uid: config.pod.uid.clone(),
            namespace: config.pod.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: match config.namespaces.network {
            Network::Host => String::new(),
            _ => config.hostname.clone(),
        },
        log_directory: text(&config.log_directory),
        dns_config: resolution.map(|of| wire::DnsConfig {
            servers: of.servers.clone(),
            searches: of.searches.clone(),
            options: of.options.clone(),
        }),
        labels: labels(&config.pod, node, &[]),
        annotations: [(CONFIG.to_owned(), kept)].into(),
        linux: Some(wire::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(&pod_cgroup(config), systemd),
            security_context: Some(wire::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(&config.namespaces)),
                privileged: config.privileged,
                seccomp: Some(wire::SecurityProfile {
                    profile_type: profile::RUNTIME_DEFAULT,
                    localhost_ref: String::new(),
                }),
                supplemental_groups_policy: groups(config.strict_groups),
            }),
            sysctls: config.namespaces.sysctls.clone(),
            resources: Some(resources(&config.resources)),
        }),
    })
}

/// Everything that a container is made of.
pub(crate) struct Input<'a> {
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a wire::Image,
    pub(crate) node: &'a str,
    /// The folder with the sandbox's files.
    pub(crate) files: &'a Path,
    /// Whether the runtime makes mounts read-only at all depths.
    pub(crate) recursive_read_only: bool,
    /// Sizes of huge pages that the machine has, in bytes.
    pub(crate) huge_pages: &'a [u64],
    /// Whether the machine has the unified hierarchy of control groups alone.
    pub(crate) unified: bool,
    /// Whether it can leave out the groups of images.
    pub(crate) strict_groups: bool,
    /// Where volumes are that must not be reached by a link: their place for each of the mounts.
    pub(crate) staged: &'a [Option<PathBuf>],
}

/// A container, or why there can be none.
pub(crate) fn container(input: &Input<'_>) -> Result<wire::ContainerConfig, String> {
    let (config, pod) = (input.config, &input.sandbox.pod);
    let kept = Kept {
        pod: pod.clone(),
        config: config.clone(),
        log: input.sandbox.log_directory.join(&config.log_path),
    };
    let kept = serde_json::to_string(&kept).map_err(|error| error.to_string())?;
    let envs = config.env.iter().map(|(key, value)| wire::KeyValue {
        key: key.clone(),
        value: value.clone(),
    });
    Ok(wire::ContainerConfig {
        metadata: Some(wire::ContainerMetadata {
            name: config.name.clone(),
            attempt: config.attempt,
        }),
        image: Some(wire::ImageSpec {
            image: input.image.id.clone(),
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone().unwrap_or_default(),
        envs: envs.collect(),
        mounts: mounts(input)?,
        labels: labels(
            pod,
            input.node,
            &[("io.kubernetes.container.name", &config.name)],
        ),
        annotations: [(CONFIG.to_owned(), kept)].into(),
        log_path: text(&config.log_path),
        stdin: config.stdio.stdin,
        stdin_once: config.stdio.once,
        tty: config.stdio.terminal,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(wire::LinuxContainerResources {
                oom_score_adj: config.oom_score_adj.unwrap_or(0).into(),
                hugepage_limits: huge_pages(&config.resources, input.huge_pages),
                // Where memory runs out, it ends as a whole, as kubelets have it.
                unified: match input.unified {
                    true => [("memory.oom.group".to_owned(), "1".to_owned())].into(),
                    false => BTreeMap::new(),
                },
                ..resources(&config.resources)
            }),
            security_context: Some(security(input)?),
        }),
        stop_signal: stop_signal(config)?,
    })
}

fn stop_signal(config: &ContainerConfig) -> Result<i32, String> {
    let Some(name) = &config.stop_signal else {
        return Ok(0);
    };
    let known = signals::number(name);
    known.ok_or_else(|| format!("stopSignal {name}: the container runtime knows no such signal"))
}

/// Files of the sandbox and volumes; what a volume hides is left out.
fn mounts(input: &Input<'_>) -> Result<Vec<wire::Mount>, String> {
    let config = input.config;
    let read_only = config.security.read_only_root;
    let own = files::list(input.files).into_iter();
    let mut all: Vec<(PathBuf, PathBuf, bool)> = own
        .map(|(host, inside)| (host, inside.into(), read_only))
        .collect();
    if let Some(message) = &config.termination_message {
        let path = config.termination_path.as_deref();
        let path = path.unwrap_or(Path::new(TERMINATION_LOG));
        // It is written also where nothing else can be.
        all.push((message.clone(), path.to_owned(), false));
    }
    let clean = |path: &Path| path.components().collect::<PathBuf>();
    all.retain(|(_, inside, _)| {
        let volumes = config.mounts.iter();
        let mut places = volumes.map(|volume| clean(&volume.container_path));
        places.all(|place| place != clean(inside))
    });
    let own = all.iter().map(|(host, inside, read_only)| wire::Mount {
        container_path: text(inside),
        host_path: text(host),
        readonly: *read_only,
        ..Default::default()
    });
    let mut mounts: Vec<wire::Mount> = own.collect();
    for (index, mount) in config.mounts.iter().enumerate() {
        let staged = input.staged.get(index).and_then(Option::as_deref);
        mounts.push(volume(mount, staged, input.recursive_read_only)?);
    }
    Ok(mounts)
}

fn volume(
    mount: &Mount,
    staged: Option<&Path>,
    recursive_read_only: bool,
) -> Result<wire::Mount, String> {
    let inside = mount.container_path.display();
    if mount.image.is_some() {
        return Err(format!(
            "the volume at {inside} is an image, which is not supported with \
             --container-runtime-endpoint"
        ));
    }
    if mount.recursive_read_only && !recursive_read_only {
        return Err(format!(
            "recursiveReadOnly of the volume at {inside}: the container runtime does not support it"
        ));
    }
    Ok(wire::Mount {
        container_path: text(&mount.container_path),
        host_path: text(staged.unwrap_or(&mount.host_path)),
        readonly: mount.read_only,
        propagation: match mount.propagation {
            Propagation::Private => propagation::PRIVATE,
            Propagation::FromMachine => propagation::HOST_TO_CONTAINER,
            Propagation::Both => propagation::BIDIRECTIONAL,
        },
        recursive_read_only: mount.recursive_read_only,
    })
}

fn security(input: &Input<'_>) -> Result<wire::LinuxContainerSecurityContext, String> {
    let of = &input.config.security;
    if of.strict_groups && !input.strict_groups {
        return Err(
            "supplementalGroupsPolicy: Strict: the container runtime does not support it"
                .to_owned(),
        );
    }
    let mut namespaces = namespaces(&input.sandbox.namespaces);
    if let Some(target) = &input.config.target
        && namespaces.pid == namespace::CONTAINER
    {
        namespaces.pid = namespace::TARGET;
        namespaces.target_id = target.0.clone();
    }
    let (user, name) = user(of, input.image)?;
    let paths = |all: &[&str]| match of.unmasked_proc {
        true => Vec::new(),
        false => all.iter().map(|path| (*path).to_owned()).collect(),
    };
    let more = of.supplemental_groups.iter().copied().map(i64::from);
    Ok(wire::LinuxContainerSecurityContext {
        capabilities: Some(wire::Capability {
            add_capabilities: of.add_capabilities.clone(),
            drop_capabilities: of.drop_capabilities.clone(),
        }),
        privileged: of.privileged,
        namespace_options: Some(namespaces),
        run_as_user: user.map(|value| wire::Int64Value { value }),
        run_as_username: name,
        run_as_group: of.group.map(|group| wire::Int64Value {
            value: group.into(),
        }),
        readonly_rootfs: of.read_only_root,
        supplemental_groups: more.collect(),
        no_new_privs: of.no_new_privileges,
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READ_ONLY_PATHS),
        seccomp: Some(seccomp(&of.seccomp)),
        // Without one the runtime decides.
        apparmor: of.app_armor.as_ref().map(apparmor),
        supplemental_groups_policy: groups(of.strict_groups),
    })
}

fn groups(strict: bool) -> i32 {
    match strict {
        true => groups_policy::STRICT,
        false => groups_policy::MERGE,
    }
}

/// The user by number or by name: the Pod's, or else the image's.
fn user(of: &Security, image: &wire::Image) -> Result<(Option<i64>, String), String> {
    let own = of.user.map(i64::from);
    let uid = own.or(image.uid.as_ref().map(|uid| uid.value));
    if of.non_root {
        match (uid, &*image.username) {
            (Some(0), _) => {
                return Err(match own {
                    Some(_) => "container's runAsUser breaks non-root policy",
                    None => "container has runAsNonRoot and image will run as root",
                }
                .to_owned());
            }
            (None, name) if !name.is_empty() => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({name}), cannot \
                     verify user is non-root"
                ));
            }
            (None, _) => {
                return Err("container has runAsNonRoot and image will run as root".to_owned());
            }
            (Some(_), _) => {}
        }
    }
    Ok(match uid {
        Some(uid) => (Some(uid), String::new()),
        None => (None, image.username.clone()),
    })
}

fn apparmor(of: &AppArmor) -> wire::SecurityProfile {
    let (profile_type, localhost_ref) = match of {
        AppArmor::RuntimeDefault => (profile::RUNTIME_DEFAULT, String::new()),
        AppArmor::Unconfined => (profile::UNCONFINED, String::new()),
        AppArmor::Localhost(name) => (profile::LOCALHOST, name.clone()),
    };
    wire::SecurityProfile {
        profile_type,
        localhost_ref,
    }
}

fn seccomp(of: &Seccomp) -> wire::SecurityProfile {
    let (profile_type, localhost_ref) = match of {
        Seccomp::RuntimeDefault => (profile::RUNTIME_DEFAULT, String::new()),
        Seccomp::Unconfined => (profile::UNCONFINED, String::new()),
        Seccomp::Localhost(path) => (profile::LOCALHOST, text(path)),
    };
    wire::SecurityProfile {
        profile_type,
        localhost_ref,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
