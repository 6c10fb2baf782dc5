//! What the agent and a guest process say to each other over a Unix socket.
//!
//! How it is framed, numbered and greeted: [`coracle_runtime::frames`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_runtime::frames;
use coracle_runtime::streaming::Wanted;
use coracle_runtime::{
    Attachment, ContainerId, Exit, LogLimits, Mount, PodIdentity, Protocol, Resources, SandboxId,
    Stdio,
};
use serde::{Deserialize, Serialize};

/// The version of the protocol that this release speaks.
pub(crate) const VERSION: u32 = 3;
/// The oldest version that it still understands.
pub(crate) const OLDEST: u32 = 1;
/// The version from which on a process takes ports of the node.
pub(crate) const TAKES_PORTS: u32 = 2;
/// The version from which on somebody may attach to a guest.
pub(crate) const ATTACHES: u32 = 3;

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A core module with `_start` that imports WASI preview 1.
    Core,
    /// A component that exports `wasi:cli/run`.
    Command,
    /// A component that exports `wasi:http/incoming-handler`.
    Http,
}

/// All that a process needs to run a guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GuestSpec {
    pub container: ContainerId,
    pub sandbox: SandboxId,
    pub pod: PodIdentity,
    pub kind: Kind,
    /// The compiled module, see [`crate::compile`].
    pub artifact: PathBuf,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub mounts: Vec<Mount>,
    pub resources: Resources,
    /// Where an HTTP guest is served.
    pub port: u16,
    pub ips: Vec<IpAddr>,
    pub network_snapshot: PathBuf,
    /// Whether the process is alone with its Pod in its network namespace.
    #[serde(default)]
    pub attachment: Attachment,
    pub log_file: PathBuf,
    pub log_limits: LogLimits,
    pub termination_message: Option<PathBuf>,
    #[serde(default)]
    pub termination_path: Option<PathBuf>,
    /// Whether it has an input, which those have who attach. Guests have no terminals.
    #[serde(default)]
    pub stdio: Stdio,
    pub started_at: SystemTime,
    /// Where the process writes how the guest ended, before it tells so.
    pub exit_file: PathBuf,
}

/// A socket on which a guest listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub sandbox: SandboxId,
    pub protocol: Protocol,
    /// As the Pod's peers know it, or a loopback address, which its own processes alone dial.
    pub address: SocketAddr,
    /// The host's socket.
    pub actual: SocketAddr,
}

/// What one guest uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Use {
    pub container: ContainerId,
    pub cpu: Duration,
    pub memory_bytes: u64,
    /// Requests that ended in a trap. A process of version 1 does not tell.
    #[serde(default)]
    pub traps: u64,
}

/// A port of the node whose connections a host takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dispatch {
    /// Tells this dispatch from earlier ones of the same port.
    pub number: u64,
    pub port: u16,
    /// Addresses of Pods that the host serves.
    pub endpoints: Vec<SocketAddr>,
    /// Whether a client stays with its endpoint.
    pub affinity: bool,
}

/// What the agent asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Hello {
        version: u32,
        oldest: u32,
    },
    /// Runs or serves a guest; answered when it runs.
    Serve(Box<GuestSpec>),
    /// Runs a guest whose streams come beside the frame as those of [`Request::Attach`] do;
    /// answered when it runs. Only for a process that has just been started.
    Exec {
        spec: Box<GuestSpec>,
        wanted: Wanted,
    },
    /// Ends a guest; answered when it has ended.
    Stop {
        container: ContainerId,
        grace: Duration,
    },
    Update {
        container: ContainerId,
        resources: Resources,
    },
    Stats,
    Listeners,
    Guests,
    /// Accepts from the listening socket that comes beside the frame, until it is withdrawn, no
    /// endpoint is left, or the connection ends. Replaces an earlier dispatch of the port.
    Dispatch(Dispatch),
    /// Stops accepting for a port of the node.
    Withdraw {
        port: u16,
    },
    /// Joins the streams of a guest. Beside the frame come, of those that are wanted, the end from
    /// which input is read, and those to which output and errors are written.
    Attach {
        container: ContainerId,
        wanted: Wanted,
    },
    /// Ends the process if it has no guest left.
    Close,
}

/// What a process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Hello { version: u32 },
    Done,
    Stats(Vec<Use>),
    Listeners(Vec<Bound>),
    Guests(Vec<ContainerId>),
    Failed(String),
}

/// What a process tells without being asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Bound(Bound),
    Unbound(Bound),
    Exited {
        container: ContainerId,
        exit: Exit,
    },
    /// A dispatched port has no endpoint left; told to the agent that dispatched it.
    Unserved {
        port: u16,
        number: u64,
    },
}

/// A frame from the process to the agent.
pub(crate) type FromProcess = frames::FromProcess<Response, Event>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The specification of a guest of which nothing matters yet.
    pub(crate) fn spec() -> GuestSpec {
        GuestSpec {
            container: ContainerId("c".into()),
            sandbox: SandboxId("s".into()),
            pod: PodIdentity::default(),
            kind: Kind::Command,
            artifact: PathBuf::new(),
            argv: Vec::new(),
            env: Vec::new(),
            termination_path: None,
            working_dir: None,
            mounts: Vec::new(),
            resources: Resources::default(),
            port: 0,
            ips: Vec::new(),
            network_snapshot: PathBuf::new(),
            attachment: Attachment::default(),
            log_file: PathBuf::new(),
            log_limits: LogLimits::default(),
            termination_message: None,
            stdio: Stdio::default(),
            started_at: SystemTime::UNIX_EPOCH,
            exit_file: PathBuf::new(),
        }
    }
}
