//! Streams into and out of containers: what exec, attach and port-forward give.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::process::readiness;
use crate::service::Result;

/// Where input goes.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// Where output comes from.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a port of a Pod.
pub type PortConnection = Box<dyn Duplex>;

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height")]
    pub height: u16,
}

/// Which streams are wanted of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors. A process on a terminal has no stream of them.
    pub stderr: bool,
}

/// What is to be run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecConfig {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether it runs on a terminal.
    pub terminal: bool,
    /// Its streams; the others lead nowhere.
    pub wanted: Wanted,
    /// Whether dropping its session, or of that the future of its end, kills it.
    pub kill_on_drop: bool,
}

/// Changes the size of a terminal.
pub type Resize = Arc<dyn Fn(TerminalSize) + Send + Sync>;

/// The streams of a process. Dropping `stdin` is its end; dropping all lets go of the process,
/// which goes on, but for one on a terminal of its own, which is hung up on, and one that is to be
/// killed ([`ExecConfig::kill_on_drop`]).
pub struct Session {
    /// Its input, if that was wanted and it has any.
    pub stdin: Option<Input>,
    /// Its output.
    pub stdout: Option<Output>,
    /// Its errors.
    pub stderr: Option<Output>,
    /// For a process on a terminal.
    pub resize: Option<Resize>,
    /// Its end: the exit code, or why it never ran. Its output may still be on its way.
    pub exit: BoxFuture<'static, Result<i32>>,
}

/// A pipe's end, or the master of a terminal, in the current runtime.
#[derive(Clone)]
pub struct Descriptor(Arc<AsyncFd<OwnedFd>>);

impl Descriptor {
    /// Registers a descriptor for one or both directions.
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(Arc::new(readiness::registered(fd, interest)?)))
    }

    /// Resolves when nobody reads from the pipe any more.
    pub async fn abandoned(&self) {
        while let Ok(mut guard) = self.0.ready(Interest::ERROR).await {
            if guard.ready().is_error() {
                return;
            }
            guard.clear_ready();
        }
    }

    /// Changes the size of the terminal of which it is the master.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        resize(self.0.get_ref(), size)
    }
}

/// Changes the size of a terminal.
pub fn resize(terminal: impl AsFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

impl AsyncRead for Descriptor {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let read = ready.try_io(|fd| {
                let room = into.initialize_unfilled();
                match rustix::io::read(fd, room) {
                    // Nobody has a terminal open any more.
                    Err(Errno::IO) => Ok(0),
                    read => Ok(read?),
                }
            });
            match read {
                Ok(Ok(read)) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One side's ends of a process's pipes.
#[derive(Default)]
pub struct Pipes {
    stdin: Option<Descriptor>,
    stdout: Option<Descriptor>,
    stderr: Option<Descriptor>,
}

impl Pipes {
    /// Makes those that are wanted: these ends, and the others for input, output and errors.
    pub fn new(wanted: Wanted) -> io::Result<(Self, [Option<OwnedFd>; 3])> {
        let mut pipes = Self::default();
        let mut ends = [None, None, None];
        if wanted.stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            pipes.stdin = Some(Descriptor::new(writer, Interest::WRITABLE)?);
            ends[0] = Some(reader);
        }
        for (wanted, own, end) in [
            (wanted.stdout, &mut pipes.stdout, 1),
            (wanted.stderr, &mut pipes.stderr, 2),
        ] {
            if wanted {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                *own = Some(Descriptor::new(reader, Interest::READABLE)?);
                ends[end] = Some(writer);
            }
        }
        Ok((pipes, ends))
    }

    /// The session over them.
    pub fn session(self, resize: Option<Resize>, exit: BoxFuture<'static, Result<i32>>) -> Session {
        Session {
            stdin: self.stdin.map(|end| Box::pin(end) as _),
            stdout: self.stdout.map(|end| Box::pin(end) as _),
            stderr: self.stderr.map(|end| Box::pin(end) as _),
            resize,
            exit,
        }
    }
}
