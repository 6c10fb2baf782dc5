//! The agent's end of the connection to a guest process.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::Protocol;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::descriptors::send_with;
use crate::protocol::{
    Bound, Event, FromProcess, Numbered, OLDEST, Request, Response, TAKES_PORTS, VERSION, receive,
    send,
};

/// Requests on their way to a process.
const OUTBOX: usize = 1024;
/// How long a process may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// Name of a process's socket in its folder.
pub(super) const SOCKET: &str = "socket";

/// The path of a process's socket by way of an open folder: paths of sockets are bounded at 107
/// bytes, paths of folders are not.
pub(super) fn socket_path(folder: &File) -> std::path::PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
}

/// What happens at a process, for the runtime that owns the connection.
pub(super) trait Listener: Send + Sync {
    fn event(&self, event: Event);
}

/// A connection. The tasks that serve it end with it.
pub(super) struct Client {
    version: u32,
    requests: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    _tasks: DropGuard,
}

struct Outgoing {
    request: Numbered<Request>,
    /// What goes beside it.
    descriptor: Option<OwnedFd>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    bound: Mutex<HashSet<Bound>>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Pending {
    next: u64,
    /// None once the connection is gone.
    answers: HashMap<u64, oneshot::Sender<Response>>,
    gone: bool,
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the guest process closed its connection",
    )
}

impl Client {
    /// Connects to the process of a folder, agrees on a version, and learns its listeners.
    pub(super) async fn connect(folder: &Path, listener: Arc<dyn Listener>) -> io::Result<Self> {
        let folder = File::open(folder)?;
        let stream = UnixStream::connect(socket_path(&folder)).await?;
        let (mut reader, mut writer) = stream.into_split();
        let version = tokio::time::timeout(HELLO, greet(&mut reader, &mut writer))
            .await
            .map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the guest process does not answer")
            })??;
        let shared = Arc::new(Shared::default());
        let (requests, outbox) = mpsc::channel(OUTBOX);
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(write(writer, outbox)));
        let reading = shared.clone();
        let ended = end.clone();
        tokio::spawn(async move {
            let _closed = reading.closed.clone().drop_guard();
            tokio::select! {
                () = read(reader, &reading, &*listener) => {}
                () = ended.cancelled() => {}
            }
            let mut pending = reading.pending.lock();
            pending.gone = true;
            pending.answers.clear();
        });
        let client = Self {
            version,
            requests,
            shared,
            _tasks: end.drop_guard(),
        };
        if let Response::Listeners(bound) = client.request(Request::Listeners).await? {
            client.shared.bound.lock().extend(bound);
        }
        Ok(client)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn request(&self, request: Request) -> io::Result<Response> {
        self.request_with(request, None).await
    }

    /// Asks with a descriptor beside the request, and waits for the answer.
    pub(super) async fn request_with(
        &self,
        request: Request,
        descriptor: Option<OwnedFd>,
    ) -> io::Result<Response> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut pending = self.shared.pending.lock();
            if pending.gone {
                return Err(gone());
            }
            pending.next += 1;
            let id = pending.next;
            pending.answers.insert(id, answer);
            id
        };
        let request = Numbered { id, body: request };
        let outgoing = Outgoing {
            request,
            descriptor,
        };
        let sent = self.requests.send(outgoing).await;
        sent.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Sockets on which guests of the process listen.
    pub(super) fn listeners(&self) -> Vec<Bound> {
        self.shared.bound.lock().iter().cloned().collect()
    }

    /// Whether the process takes ports of the node, and all these are listeners of its guests.
    pub(super) fn may_take(&self, endpoints: &[SocketAddr]) -> bool {
        if self.version < TAKES_PORTS {
            return false;
        }
        let mut missing: HashSet<&SocketAddr> = endpoints.iter().collect();
        for bound in &*self.shared.bound.lock() {
            if bound.protocol == Protocol::Tcp {
                missing.remove(&bound.address);
            }
        }
        missing.is_empty()
    }

    /// Resolves when the connection is gone.
    pub(super) async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Cancelled when the connection is gone.
    pub(super) fn closed_token(&self) -> CancellationToken {
        self.shared.closed.clone()
    }
}

async fn greet(reader: &mut OwnedReadHalf, writer: &mut OwnedWriteHalf) -> io::Result<u32> {
    let hello = Request::Hello {
        version: VERSION,
        oldest: OLDEST,
    };
    send(writer, &Numbered { id: 0, body: hello }).await?;
    match receive(reader).await? {
        Some(FromProcess::Response(Numbered {
            body: Response::Hello { version },
            ..
        })) => Ok(version),
        Some(FromProcess::Response(Numbered {
            body: Response::Failed(message),
            ..
        })) => Err(io::Error::new(io::ErrorKind::Unsupported, message)),
        _ => Err(gone()),
    }
}

async fn write(mut writer: OwnedWriteHalf, mut outbox: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = outbox.recv().await {
        let sent = match &outgoing.descriptor {
            None => send(&mut writer, &outgoing.request).await,
            Some(descriptor) => send_with(&mut writer, &outgoing.request, descriptor.as_fd()).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a guest process does not hear");
            return;
        }
    }
}

async fn read(mut reader: OwnedReadHalf, shared: &Shared, listener: &dyn Listener) {
    loop {
        match receive(&mut reader).await {
            Ok(Some(FromProcess::Response(response))) => {
                let waiting = shared.pending.lock().answers.remove(&response.id);
                if let Some(answer) = waiting {
                    // Whoever asked does not wait any more.
                    let _ = answer.send(response.body);
                }
            }
            Ok(Some(FromProcess::Event(event))) => {
                match &event {
                    Event::Bound(bound) => {
                        shared.bound.lock().insert(bound.clone());
                    }
                    Event::Unbound(bound) => {
                        shared.bound.lock().remove(bound);
                    }
                    Event::Exited { .. } | Event::Unserved { .. } => {}
                }
                listener.event(event);
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a guest process's connection broke");
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Deaf;

    impl Listener for Deaf {
        fn event(&self, _: Event) {}
    }

    /// A process of an earlier or this release, with one listener.
    async fn process(socket: tokio::net::UnixListener, version: u32, bound: Bound) {
        let (mut stream, _) = socket.accept().await.unwrap();
        while let Some(request) = receive::<Numbered<Request>>(&mut stream).await.unwrap() {
            let body = match request.body {
                Request::Hello { .. } => Response::Hello { version },
                Request::Listeners => Response::Listeners(vec![bound.clone()]),
                other => panic!("{other:?} is not for version {version}"),
            };
            let id = request.id;
            let response = FromProcess::Response(Numbered { id, body });
            send(&mut stream, &response).await.unwrap();
        }
    }

    #[tokio::test]
    async fn only_a_process_that_takes_ports_is_offered_one() {
        let address: SocketAddr = "10.42.0.1:80".parse().unwrap();
        let bound = Bound {
            sandbox: coracle_runtime::SandboxId("pod".into()),
            protocol: Protocol::Tcp,
            address,
            actual: "127.0.0.1:40000".parse().unwrap(),
        };
        for (version, takes) in [(1, false), (2, true)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(SOCKET);
            let socket = tokio::net::UnixListener::bind(path).unwrap();
            let process = tokio::spawn(process(socket, version, bound.clone()));
            let client = Client::connect(folder.path(), Arc::new(Deaf))
                .await
                .unwrap();
            assert_eq!(client.may_take(&[address]), takes, "version {version}");
            let another = "10.42.0.2:80".parse().unwrap();
            assert!(!client.may_take(&[address, another]));
            drop(client);
            process.await.unwrap();
        }
    }
}
