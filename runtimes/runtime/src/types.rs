//! What the kubelet tells a runtime, and what it hears back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{IdRange, Protocol, Resources, Security};

/// Identifies a Pod sandbox: 64 lower-case hexadecimal digits, as with other runtimes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub String);

/// Identifies a container: 64 lower-case hexadecimal digits, as with other runtimes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

/// The Pod to which a sandbox belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub name: String,
    /// UID of the Pod.
    pub uid: String,
}

/// What a runtime needs to know to make the sandbox of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// The Pod.
    pub pod: PodIdentity,
    /// Counts the sandboxes that the Pod has had, from 0.
    pub attempt: u32,
    /// Host name that guests and containers see.
    pub hostname: String,
    /// The Pod's addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// Where the agent publishes what guests may know of the network, see [`crate::GuestNetwork`].
    pub network_snapshot: PathBuf,
    /// Folder that holds the logs of the Pod's containers.
    pub log_directory: PathBuf,
    /// Labels and annotations, for listing.
    pub labels: BTreeMap<String, String>,
    /// The cgroup under which processes of the Pod live, relative to the hierarchy's root;
    /// none where the agent may not manage cgroups.
    pub cgroup_parent: Option<PathBuf>,
    /// The handler that the Pod's RuntimeClass names, if it names one.
    #[serde(default)]
    pub handler: Option<String>,
    /// Whether one of its containers has all rights of root on the machine.
    #[serde(default)]
    pub privileged: bool,
    /// What its containers may use together.
    #[serde(default)]
    pub resources: Resources,
    /// Processes and threads that its containers may have together.
    #[serde(default)]
    pub pids_limit: Option<u64>,
    /// What the Pod shares with the machine. Of guests only the network is of interest.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// How its containers look names up; none: as the machine does.
    #[serde(default)]
    pub resolution: Option<Resolution>,
    /// What its containers find in their file of hosts beside the Pod under its host name.
    #[serde(default)]
    pub hosts: Hosts,
    /// See [`crate::Security::strict_groups`], which holds for all its containers.
    #[serde(default)]
    pub strict_groups: bool,
}

/// Names of a Pod's file of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The Pod's full name.
    pub full: Option<String>,
    /// Addresses of others, and their names.
    pub aliases: Vec<(String, Vec<String>)>,
}

/// What stands in a `resolv.conf`, as it does there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// Whom to ask.
    pub servers: Vec<String>,
    /// In which domains names are looked up that are not absolute.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl std::fmt::Display for Resolution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

/// The network of a Pod with containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// A namespace of its own with nothing but a loopback interface.
    #[default]
    Loopback,
    /// The machine's (`hostNetwork`).
    Host,
    /// The namespace of that path, which somebody else has furnished.
    Namespace(PathBuf),
}

/// How a Pod is joined to the node's network, where that has Pods in network namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attachment {
    /// An address in the namespace that all Pods of guests share.
    #[default]
    Address,
    /// A namespace of its own, for its containers and guests.
    Netns,
}

/// The kernel's namespaces in which the containers of a Pod run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Network.
    pub network: Network,
    /// Whether processes of the machine are seen (`hostPID`).
    pub host_pid: bool,
    /// Whether the machine's IPC objects are (`hostIPC`).
    pub host_ipc: bool,
    /// Whether containers see each other's processes (`shareProcessNamespace`).
    pub share_processes: bool,
    /// The machine's IDs for the Pod's users, where root of a container is nobody on the machine
    /// (`hostUsers: false`). A network namespace of the Pod's belongs to them.
    pub users: Option<IdRange>,
    /// Parameters of the kernel that belong to the Pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// State of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Containers may be created and run in it.
    Ready,
    /// It was stopped, or died.
    NotReady,
}

/// A sandbox as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandbox {
    /// Its identity.
    pub id: SandboxId,
    /// The configuration that it was made from.
    pub config: PodSandboxConfig,
    /// Its state.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: SystemTime,
}

/// A volume as a container sees it: a mount, or for a guest a preopened directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the host: a directory or a file. Of an image's files it is the path in them, without a
    /// slash before it.
    pub host_path: PathBuf,
    /// Manifest digest of the image whose files they are, where they are an image's and not the
    /// host's. It has been made ready ([`crate::RuntimeService::ensure_volume`]), and nobody writes to
    /// it.
    #[serde(default)]
    pub image: Option<String>,
    /// Absolute path inside.
    pub container_path: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether they are refused also in what is mounted below (`recursiveReadOnly`). Nothing below a
    /// guest's read-only directory can be written in any case.
    #[serde(default)]
    pub recursive_read_only: bool,
    /// What becomes of mounts that are made below it later.
    #[serde(default)]
    pub propagation: Propagation,
    /// Whether the path on the host was found free of links, and has to be so still when it is
    /// mounted: what containers write could lead out of their volume meanwhile (`subPath`).
    #[serde(default)]
    pub without_links: bool,
}

/// Where mounts are seen that are made below a volume while a container runs (`mountPropagation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// Where they are made.
    #[default]
    Private,
    /// Those of the machine in the container too.
    FromMachine,
    /// Those of the container on the machine as well.
    Both,
}

/// A port that a container says it serves. For an HTTP guest the first TCP port is where its
/// host listens for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name, may be empty.
    pub name: String,
    /// Number, 1 to 65535.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// The default of `terminationMessagePath` in the Pod API.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// What a runtime needs to know to make a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Name of the container in its Pod.
    pub name: String,
    /// Counts the restarts of the container, from 0.
    pub attempt: u32,
    /// Manifest digest (`sha256:…`) of an image that [`crate::RuntimeService::ensure_image`]
    /// has made ready.
    pub image_digest: String,
    /// The reference that the Pod names, for reports.
    pub image: String,
    /// Replaces the image's entrypoint if not empty. A wasm guest takes it as `argv[0..]`.
    pub command: Vec<String>,
    /// Replaces the image's arguments if not empty.
    pub args: Vec<String>,
    /// Working directory, if the Pod names one.
    pub working_dir: Option<String>,
    /// Environment, in order; a later entry of a name replaces an earlier one.
    pub env: Vec<(String, String)>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// Limits and requests.
    pub resources: Resources,
    /// Ports.
    pub ports: Vec<Port>,
    /// Log file, relative to the sandbox's log directory, in the CRI log format
    /// (`<RFC 3339 nanoseconds> stdout|stderr F|P <line>`).
    pub log_path: PathBuf,
    /// Size in bytes past which the log is rotated, and how many files are kept.
    pub log_limits: LogLimits,
    /// Host file to which the guest's `terminationMessagePath` leads, if any; a trap's message
    /// is written there.
    pub termination_message: Option<PathBuf>,
    /// Where the container finds that file; none: at [`TERMINATION_LOG`].
    #[serde(default)]
    pub termination_path: Option<PathBuf>,
    /// Labels, for listing.
    pub labels: BTreeMap<String, String>,
    /// How it is connected.
    #[serde(default)]
    pub stdio: Stdio,
    /// As whom it runs and what it may do. A guest has a sandbox of its own, see
    /// [`crate::RuntimeService::guest_user`].
    #[serde(default)]
    pub security: Security,
    /// The signal that asks it to end, as `SIGTERM`; none: the image's. A guest knows no signals.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// How soon its processes go where the machine runs out of memory: from -1000, never, to 1000
    /// (`oom_score_adj` in proc(5)); none: as the agent's.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// The running container of the same sandbox whose processes it sees, and which ends it when it
    /// ends itself; none: its own, or its Pod's. Guests have no processes that could be seen.
    #[serde(default)]
    pub target: Option<ContainerId>,
}

/// How a container's first process is connected (`stdin`, `stdinOnce`, `tty`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stdio {
    /// Whether it has an input, which those have who attach.
    pub stdin: bool,
    /// Whether its input ends with the first of them.
    pub once: bool,
    /// Whether it runs on a terminal.
    pub terminal: bool,
}

/// Bounds of a container's log on disk (`containerLogMaxSize`, `containerLogMaxFiles`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes in one file.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// The kubelet's defaults: 10 MiB, 5 files.
    fn default() -> Self {
        Self {
            max_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Started and not ended.
    Running {
        /// When it started.
        started_at: SystemTime,
    },
    /// Ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When it had started; none if it never did.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub finished_at: SystemTime,
    /// Exit code; 128 + signal for a signal.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, …
    pub reason: String,
    /// What a user should read, for instance the message of a trap.
    pub message: String,
}

impl Exit {
    /// The end of a container that could not be started, for that reason.
    pub fn not_started(message: &str) -> Self {
        Self {
            started_at: None,
            finished_at: SystemTime::now(),
            code: 128,
            reason: "StartError".into(),
            message: message.to_owned(),
        }
    }
}

/// As whom the first process of a container began, by the numbers that it sees itself (KEP-3619).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    /// User.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// All groups that it has beside.
    pub supplemental_groups: Vec<u32>,
}

/// A container as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its identity.
    pub id: ContainerId,
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// The Pod that it belongs to.
    pub pod: PodIdentity,
    /// The configuration that it was made from.
    pub config: ContainerConfig,
    /// Its state.
    pub state: ContainerState,
    /// As whom it began; none until it has, and for guests, which have no users of their own.
    pub user: Option<ContainerUser>,
    /// When it was made.
    pub created_at: SystemTime,
}

/// What all Pods of a node may use together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsLimits {
    /// Their share of the processor, and memory.
    pub resources: Resources,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Use of a container at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// The container.
    pub id: ContainerId,
    /// When it was measured.
    pub at: SystemTime,
    /// CPU time used since the start.
    pub cpu: Duration,
    /// Memory in use, bytes.
    pub memory_bytes: u64,
    /// Faults of guest code that ended a request and not the container, since the start.
    pub traps: u64,
}

/// A socket on which a guest listens. In the unprivileged form of the Pod network the address
/// that others dial differs from the one that is bound, and whoever dials needs this pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The Pod's addresses: whose `localhost` it is, where the address is of that.
    pub pod_ips: Vec<IpAddr>,
    /// Protocol.
    pub protocol: Protocol,
    /// The Pod's address and port, as others know it, or a loopback address and port, which only
    /// the Pod's own processes may dial.
    pub address: SocketAddr,
    /// The socket on the host that serves it.
    pub actual: SocketAddr,
}

/// What a runtime tells without being asked. An event is a hint to look again
/// ([`crate::RuntimeService::list_containers`], [`crate::RuntimeService::listeners`]):
/// one may be lost when a subscriber lags, none is invented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeEvent {
    /// A container changed its state.
    Container {
        /// UID of its Pod.
        pod_uid: String,
        /// The container.
        id: ContainerId,
    },
    /// A sandbox changed its state.
    Sandbox {
        /// UID of its Pod.
        pod_uid: String,
        /// The sandbox.
        id: SandboxId,
    },
    /// The set of listeners changed.
    Listeners,
}

/// A user of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestUser {
    /// User id.
    pub uid: u32,
    /// Group id; the only group that the user has.
    pub gid: u32,
}
