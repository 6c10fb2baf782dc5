//! What the agent and the shim of a Pod say to each other; how it is framed:
//! [`coracle_runtime::frames`].

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_runtime::frames;
use coracle_runtime::streaming::{TerminalSize, Wanted};
use coracle_runtime::{ContainerId, Exit, IdRange, LogLimits, Namespaces, Propagation, Stdio};
use libcontainer::oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use crate::spec::Capabilities;

/// The version of the protocol that this release speaks. An agent adopts the shims of the release
/// before: nothing has been released yet, so that all that is here is of the first version. What
/// comes after a release raises it, and is asked of no shim that has answered with less.
pub(crate) const VERSION: u32 = 1;
/// The oldest version that it still understands.
pub(crate) const OLDEST: u32 = 1;

/// What a shim is told on its command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The folder of the shim.
    pub folder: PathBuf,
    /// Name of the host that containers see.
    pub hostname: String,
    /// What the Pod shares with the machine; the shim makes and holds the rest.
    pub namespaces: Namespaces,
    /// The Pod's control group, which goes with the shim if nothing else is in it.
    pub cgroup: PathBuf,
    /// How long the shim waits for an agent before it ends with its containers, if it does not
    /// wait for ever.
    pub ephemeral: Option<Duration>,
}

/// All that a shim needs to run a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub container: ContainerId,
    /// The container's folder: `config.json` is the specification, `rootfs` where its files are
    /// mounted, `upper` and `work` what it writes.
    pub bundle: PathBuf,
    /// The unpacked layers, the lowest first.
    pub lowers: Vec<PathBuf>,
    /// Its working directory, made if the image lacks it.
    pub cwd: PathBuf,
    pub cgroup: PathBuf,
    /// Folders of the cgroup that are to be there before it is made, since they are mounted.
    #[serde(default)]
    pub cgroup_folders: Vec<PathBuf>,
    /// The cgroup that gets a filter of devices, where libcontainer does not filter them.
    #[serde(default)]
    pub filter_devices: Option<PathBuf>,
    /// Whether devices of its own files are devices.
    #[serde(default)]
    pub devices: bool,
    /// Volumes that are put in their places first.
    #[serde(default)]
    pub staged: Vec<Staged>,
    /// The Pod's own users, if it has some.
    #[serde(default)]
    pub users: Option<PodUsers>,
    pub confinement: Confinement,
    pub log_file: PathBuf,
    pub log_limits: LogLimits,
    pub stdio: Stdio,
    /// The container whose processes it sees.
    #[serde(default)]
    pub target: Option<ContainerId>,
    pub started_at: SystemTime,
    /// Where the shim writes how the container ended, before it tells so.
    pub exit_file: PathBuf,
}

/// A volume that is put in its place before libcontainer looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    pub source: PathBuf,
    /// Below the container's folder.
    pub at: PathBuf,
    pub propagation: Propagation,
    /// Whether no part of its path may be a link.
    #[serde(default)]
    pub without_links: bool,
    /// The unpacked layers of the image in which the source is, if it is in one; the lowest first.
    #[serde(default)]
    pub lowers: Vec<PathBuf>,
}

/// Users of a Pod's own, as whom libcontainer makes the container and looks for its parts
/// ([`crate::place`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodUsers {
    /// Leads to their namespace.
    pub namespace: PathBuf,
    pub range: IdRange,
    /// Namespaces that are put where the specification has them.
    pub pinned: Vec<Pinned>,
}

/// A namespace that is put in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub source: PathBuf,
    pub at: PathBuf,
}

/// What the executor does to each process of a container before it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confinement {
    /// Whether a filter of system calls is installed.
    pub filtered: bool,
    /// The filter, if it is not the default one.
    #[serde(default)]
    pub profile: Option<LinuxSeccomp>,
    /// What is left of the capabilities after that.
    pub capabilities: Capabilities,
}

/// A further process of a container. Its standard input, output and error come beside the frame;
/// one on a terminal makes no use of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub container: ContainerId,
    /// The process, as in the OCI runtime specification.
    pub process: serde_json::Value,
    /// Where the master of its terminal is sent, see [`crate::console`].
    pub console: Option<PathBuf>,
    /// A number by which the agent can have it killed, as it is if the agent goes; none for one
    /// that goes on whoever listens.
    pub kill: Option<u64>,
}

/// What the agent asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Hello {
        version: u32,
        oldest: u32,
    },
    /// Runs a container; answered when its program has been executed.
    Start(Box<Start>),
    /// Ends a container: by the signal, and by force when the grace period is over. Answered when
    /// it has ended.
    Stop {
        container: ContainerId,
        signal: i32,
        grace: Duration,
    },
    /// Runs a further process; answered when it has ended.
    Exec(Box<Exec>),
    /// Kills the further process of that number if it runs.
    Kill(u64),
    /// Joins the streams of a container. Beside the frame come, of those that are wanted, the end
    /// from which input is read, and those to which output and errors are written.
    Attach {
        container: ContainerId,
        wanted: Wanted,
    },
    /// Changes the size of a container's terminal.
    Resize {
        container: ContainerId,
        size: TerminalSize,
    },
    /// The containers that run.
    Running,
    /// Ends what runs, and then the shim.
    Close,
}

/// What a shim answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Response {
    Hello { version: u32 },
    Done,
    Ended(i32),
    Running(Vec<ContainerId>),
    Failed(String),
}

/// What a shim tells without being asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Exited { container: ContainerId, exit: Exit },
}

/// A frame from the shim to the agent.
pub(crate) type FromShim = frames::FromProcess<Response, Event>;
