//! Calls of the runtime over its socket.
//!
//! One connection serves all calls; one that has ended is made anew by the next call. A call is
//! repeated only while the runtime says that it cannot hear any yet: beyond that, whoever asks knows
//! whether it may be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::grpc::{Connection, INTERNAL, Status, Target, UNAVAILABLE};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::wire::{Message, Verb};

/// How long a call may take that does not wait for a container (the kubelet's
/// `runtimeRequestTimeout`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an answer (the kubelet's `maxMsgSize`).
const MOST: usize = 16 << 20;
/// How often a runtime is asked that has just started.
const START: Duration = Duration::from_millis(100);
/// The code of a call that took too long.
const DEADLINE_EXCEEDED: u32 = 4;

/// The socket of an endpoint: `unix:///PATH`, or the path alone.
pub(crate) fn socket(endpoint: &str) -> Result<PathBuf, String> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    match Path::new(path) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(format!(
            "{endpoint:?} is no endpoint of a container runtime: it takes unix:///PATH, as in \
             unix:///run/containerd/containerd.sock"
        )),
    }
}

/// A client of a runtime.
pub(crate) struct Client {
    socket: PathBuf,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            connection: Mutex::default(),
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>, Status> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|known| !known.is_closed()) {
            return Ok(connection.clone());
        }
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| Status::new(UNAVAILABLE, error.to_string()))?;
        let connection = Arc::new(Connection::open(stream).await?);
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// A call that is answered soon.
    pub(crate) async fn call<A: Message, B: Message>(
        &self,
        verb: Verb<A, B>,
        request: &A,
    ) -> Result<B, Status> {
        self.call_within(PATIENCE, verb, request).await
    }

    /// A call that may take that long.
    pub(crate) async fn call_within<A: Message, B: Message>(
        &self,
        patience: Duration,
        verb: Verb<A, B>,
        request: &A,
    ) -> Result<B, Status> {
        let request = request.encode();
        let call = async || {
            let connection = self.connection().await?;
            let target = Target {
                scheme: "http",
                authority: "localhost",
                path: verb.path,
                agent: "coracle",
            };
            let answer = connection.call(target, &request, MOST).await?;
            B::decode(&answer).ok_or_else(|| {
                Status::new(
                    INTERNAL,
                    format!("the answer to {} does not read", verb.path),
                )
            })
        };
        let started = async {
            loop {
                match call().await {
                    Err(status) if is_starting(&status) => tokio::time::sleep(START).await,
                    answered => return answered,
                }
            }
        };
        match tokio::time::timeout(patience, started).await {
            Ok(answered) => answered,
            Err(_) => Err(Status::new(
                DEADLINE_EXCEEDED,
                format!("no answer within {} s", patience.as_secs()),
            )),
        }
    }
}

/// containerd listens before it can answer, and says so in words alone.
fn is_starting(status: &Status) -> bool {
    status.message.contains("server is not initialized yet")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets() {
        for endpoint in ["unix:///run/c.sock", "/run/c.sock"] {
            assert_eq!(socket(endpoint).unwrap(), Path::new("/run/c.sock"));
        }
        for endpoint in ["run/c.sock", "tcp://127.0.0.1:1", "unix://c.sock", ""] {
            let error = socket(endpoint).unwrap_err();
            assert!(error.contains("unix:///PATH"), "{error}");
        }
    }
}
