//! The agent's end of the connection to a guest process.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use coracle_runtime::Protocol;
use coracle_runtime::connection::Connection;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::protocol::{Bound, Event, OLDEST, Request, Response, TAKES_PORTS, VERSION};

/// What happens at a process, for the runtime that owns the connection.
pub(super) trait Listener: Send + Sync {
    fn event(&self, event: Event);
}

/// A connection, with what it has told so far of the guests' listeners.
pub(super) struct Client {
    version: u32,
    connection: Connection<Request, Response>,
    bound: Arc<Mutex<HashSet<Bound>>>,
}

impl Client {
    /// Connects to the process of a folder, agrees on a version, and learns its listeners.
    pub(super) async fn connect(folder: &Path, listener: Arc<dyn Listener>) -> io::Result<Self> {
        let bound: Arc<Mutex<HashSet<Bound>>> = Arc::default();
        let telling = bound.clone();
        let hear = move |event: Event| {
            match &event {
                Event::Bound(bound) => {
                    telling.lock().insert(bound.clone());
                }
                Event::Unbound(bound) => {
                    telling.lock().remove(bound);
                }
                Event::Exited { .. } | Event::Unserved { .. } => {}
            }
            listener.event(event);
        };
        let hello = Request::Hello {
            version: VERSION,
            oldest: OLDEST,
        };
        let (connection, answer) = Connection::open(folder, hello, hear).await?;
        let version = match answer {
            Response::Hello { version } => version,
            Response::Failed(message) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            other => return Err(io::Error::other(format!("greeted with {other:?}"))),
        };
        let client = Self {
            version,
            connection,
            bound,
        };
        if let Response::Listeners(bound) = client.request(Request::Listeners).await? {
            client.bound.lock().extend(bound);
        }
        Ok(client)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn request(&self, request: Request) -> io::Result<Response> {
        self.connection.request(request).await
    }

    /// Asks with descriptors beside the request, and waits for the answer.
    pub(super) async fn request_with(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Response> {
        self.connection.request_with(request, descriptors).await
    }

    /// The version of the protocol that both sides speak.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Sockets on which guests of the process listen.
    pub(super) fn listeners(&self) -> Vec<Bound> {
        self.bound.lock().iter().cloned().collect()
    }

    /// Whether the process takes ports of the node, and all these are listeners of its guests.
    pub(super) fn may_take(&self, endpoints: &[SocketAddr]) -> bool {
        if self.version < TAKES_PORTS {
            return false;
        }
        let mut missing: HashSet<&SocketAddr> = endpoints.iter().collect();
        for bound in &*self.bound.lock() {
            if bound.protocol == Protocol::Tcp {
                missing.remove(&bound.address);
            }
        }
        missing.is_empty()
    }

    /// Resolves when the connection is gone.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Cancelled when the connection is gone.
    pub(super) fn closed_token(&self) -> CancellationToken {
        self.connection.closed_token()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_runtime::connection::SOCKET;
    use coracle_runtime::frames::{FromProcess, Numbered, receive, send};

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
            let response = FromProcess::<_, Event>::Response(Numbered { id, body });
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
