//! The agent's end of a connection to one of its processes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::frames::{FromProcess, Numbered, encode, receive, send};

/// Requests on their way to a process.
const OUTBOX: usize = 1024;
/// How long a process may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// Descriptors that go beside one frame, at most.
pub const DESCRIPTORS: usize = 3;
/// Name of a process's socket in its folder.
pub const SOCKET: &str = "socket";

/// The path of a process's socket by way of an open folder: paths of sockets are bounded at 107
/// bytes, paths of folders are not.
pub fn socket_path(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
}

/// A connection on which requests of type `Q` go out and answers of type `A` come in. The tasks
/// that serve it end with it.
pub struct Connection<Q, A> {
    requests: mpsc::Sender<Outgoing<Q>>,
    shared: Arc<Shared<A>>,
    _tasks: DropGuard,
}

struct Outgoing<Q> {
    request: Numbered<Q>,
    /// What goes beside it.
    descriptors: Vec<OwnedFd>,
}

struct Shared<A> {
    pending: Mutex<Pending<A>>,
    closed: CancellationToken,
}

struct Pending<A> {
    next: u64,
    answers: HashMap<u64, oneshot::Sender<A>>,
    /// Whether the connection is gone.
    gone: bool,
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the process closed its connection",
    )
}

impl<Q, A> Connection<Q, A>
where
    Q: Serialize + Send + Sync + 'static,
    A: DeserializeOwned + Send + 'static,
{
    /// Connects to the process of a folder and greets it; gives the answer to that, which is the
    /// caller's to judge. `event` hears what the process tells.
    pub async fn open<E: DeserializeOwned + Send + 'static>(
        folder: &Path,
        hello: Q,
        event: impl FnMut(E) + Send + 'static,
    ) -> io::Result<(Self, A)> {
        let folder = File::open(folder)?;
        let stream = UnixStream::connect(socket_path(&folder)).await?;
        let (mut reader, mut writer) = stream.into_split();
        let greeted = greet::<Q, A, E>(&mut reader, &mut writer, hello);
        let answer = tokio::time::timeout(HELLO, greeted).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the process does not answer")
        })??;
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending {
                next: 0,
                answers: HashMap::new(),
                gone: false,
            }),
            closed: CancellationToken::new(),
        });
        let (requests, outbox) = mpsc::channel(OUTBOX);
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(write(writer, outbox)));
        let reading = shared.clone();
        let ended = end.clone();
        tokio::spawn(async move {
            let _closed = reading.closed.clone().drop_guard();
            tokio::select! {
                () = read(reader, &reading, event) => {}
                () = ended.cancelled() => {}
            }
            let mut pending = reading.pending.lock();
            pending.gone = true;
            pending.answers.clear();
        });
        let connection = Self {
            requests,
            shared,
            _tasks: end.drop_guard(),
        };
        Ok((connection, answer))
    }

    /// Asks, and waits for the answer.
    pub async fn request(&self, request: Q) -> io::Result<A> {
        self.request_with(request, Vec::new()).await
    }

    /// Asks with descriptors beside the request, and waits for the answer.
    pub async fn request_with(&self, request: Q, descriptors: Vec<OwnedFd>) -> io::Result<A> {
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
            descriptors,
        };
        let sent = self.requests.send(outgoing).await;
        sent.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Cancelled when the connection is gone.
    pub fn closed_token(&self) -> CancellationToken {
        self.shared.closed.clone()
    }
}

async fn greet<Q: Serialize, A: DeserializeOwned, E: DeserializeOwned>(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    hello: Q,
) -> io::Result<A> {
    send(writer, &Numbered { id: 0, body: hello }).await?;
    match receive::<FromProcess<A, E>>(reader).await? {
        Some(FromProcess::Response(answer)) => Ok(answer.body),
        _ => Err(gone()),
    }
}

async fn write<Q: Serialize>(mut writer: OwnedWriteHalf, mut outbox: mpsc::Receiver<Outgoing<Q>>) {
    while let Some(outgoing) = outbox.recv().await {
        let descriptors: Vec<BorrowedFd<'_>> =
            outgoing.descriptors.iter().map(AsFd::as_fd).collect();
        let sent = match descriptors.is_empty() {
            true => send(&mut writer, &outgoing.request).await,
            false => send_with(&mut writer, &outgoing.request, &descriptors).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a process does not hear");
            return;
        }
    }
}

async fn read<A: DeserializeOwned, E: DeserializeOwned>(
    mut reader: OwnedReadHalf,
    shared: &Shared<A>,
    mut event: impl FnMut(E),
) {
    loop {
        match receive::<FromProcess<A, E>>(&mut reader).await {
            Ok(Some(FromProcess::Response(response))) => {
                let waiting = shared.pending.lock().answers.remove(&response.id);
                if let Some(answer) = waiting {
                    // Whoever asked does not wait any more.
                    let _ = answer.send(response.body);
                }
            }
            Ok(Some(FromProcess::Event(happened))) => event(happened),
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a process's connection broke");
                return;
            }
        }
    }
}

/// Room for the descriptors of a frame; the kernel closes any other that comes with it.
const SPACE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS));

/// Reads what is there, no further than to where the next descriptors were sent: how many bytes,
/// and the descriptors that came beside them.
pub fn receive_with(stream: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    Ok((received.bytes, descriptors))
}

/// Writes one frame with descriptors beside it, at most [`DESCRIPTORS`].
pub async fn send_with<T: Serialize>(
    writer: &mut OwnedWriteHalf,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = encode(message)?;
    let stream: &UnixStream = writer.as_ref();
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("no room for so many descriptors"));
        }
        let bytes = [IoSlice::new(&frame)];
        Ok(sendmsg(stream, &bytes, &mut beside, SendFlags::NOSIGNAL)?)
    });
    // A socket that is nearly full takes a part; the descriptors went with its first byte.
    let sent = sent.await?;
    writer.write_all(&frame[sent..]).await
}
