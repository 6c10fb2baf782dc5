//! What the agent and a guest process say to each other over a Unix socket.
//!
//! Frames are a length (u32, little endian) and that many bytes of JSON. The agent opens with
//! [`Request::Hello`]; a process answers with the version that both speak, so that an agent of
//! the next release can adopt processes of this one. Every request carries a number that its
//! response repeats; events come unasked, in order with the responses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_runtime::{
    ContainerId, Exit, LogLimits, Mount, PodIdentity, Protocol, Resources, SandboxId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of the protocol that this release speaks.
pub(crate) const VERSION: u32 = 2;
/// The oldest version that it still understands.
pub(crate) const OLDEST: u32 = 1;
/// The version from which on a process takes ports of the node.
pub(crate) const TAKES_PORTS: u32 = 2;
/// No frame is longer: enough for the listeners of 10,000 Pods.
const MAX_FRAME: usize = 16 << 20;

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
    pub log_file: PathBuf,
    pub log_limits: LogLimits,
    pub termination_message: Option<PathBuf>,
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

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    pub id: u64,
    pub body: T,
}

/// A frame from the process to the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromProcess {
    Response(Numbered<Response>),
    Event(Event),
}

/// Encodes a frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a frame of {length} bytes is past the bound of {MAX_FRAME}"),
        ));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Writes one frame.
pub(crate) async fn send<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    writer.write_all(&encode(message)?).await
}

/// Reads one frame; `None` at the end of the stream.
pub(crate) async fn receive<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes is past the bound of {MAX_FRAME}"),
        ));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_survives_the_wire() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let sent = Numbered {
            id: 7,
            body: Request::Stats,
        };
        send(&mut near, &sent).await.unwrap();
        drop(near);
        let received: Option<Numbered<Request>> = receive(&mut far).await.unwrap();
        assert_eq!(received.unwrap().id, 7);
        let end: Option<Numbered<Request>> = receive(&mut far).await.unwrap();
        assert!(end.is_none());
    }

    #[tokio::test]
    async fn a_frame_past_the_bound_is_refused_before_it_is_read() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let result: io::Result<Option<Numbered<Request>>> = receive(&mut far).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&3u32.to_le_bytes()).await.unwrap();
        near.write_all(b"{]!").await.unwrap();
        let result: io::Result<Option<Numbered<Request>>> = receive(&mut far).await;
        assert!(result.is_err());
    }
}
