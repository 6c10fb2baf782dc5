//! A guest's standard streams, and those who attach to them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::Stdio;
use coracle_runtime::log::{Log, Stream};
use coracle_runtime::streaming::{Descriptor, Wanted};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Interest};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::log::LogStream;

/// Bytes of input that wait for the guest.
const INPUT: usize = 64 << 10;
/// How long those who attached may take to read what a guest wrote last.
const LAST: Duration = Duration::from_secs(5);
/// How many may be attached to a guest.
const ATTACHED: usize = 64;

/// The streams of one guest.
#[derive(Clone)]
pub(crate) struct GuestStreams {
    pub(crate) stdout: LogStream,
    pub(crate) stderr: LogStream,
    stdin: Option<Arc<Input>>,
    /// What carries bytes to and from those who attached.
    tasks: TaskTracker,
    ended: CancellationToken,
}

/// A guest's input.
struct Input {
    /// Whether it ends with the first who writes.
    once: bool,
    /// None once it has ended.
    to: tokio::sync::Mutex<Option<DuplexStream>>,
    /// None once the guest has it.
    from: Mutex<Option<DuplexStream>>,
}

impl GuestStreams {
    /// Streams into a log, with an input if there is to be one.
    pub(crate) fn new(log: &Arc<Log>, stdio: Stdio) -> Self {
        let stdin = stdio.stdin.then(|| {
            let (to, from) = tokio::io::duplex(INPUT);
            Arc::new(Input {
                once: stdio.once,
                to: tokio::sync::Mutex::new(Some(to)),
                from: Mutex::new(Some(from)),
            })
        });
        Self {
            stdout: LogStream::new(log.clone(), Stream::Stdout),
            stderr: LogStream::new(log.clone(), Stream::Stderr),
            stdin,
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    /// The guest's end of its input, once.
    pub(crate) fn take_input(&self) -> Option<DuplexStream> {
        self.stdin.as_ref()?.from.lock().take()
    }

    /// Lets somebody join, within a runtime that carries the bytes.
    pub(crate) fn attach(&self, wanted: Wanted, pipes: Vec<OwnedFd>) -> Result<(), String> {
        if self.tasks.len() >= ATTACHED {
            return Err(format!("{ATTACHED} are attached to the guest already"));
        }
        let mut pipes = pipes.into_iter();
        let mut next = |wanted: bool, interest| match wanted.then(|| pipes.next()) {
            None => Ok(None),
            Some(None) => Err("a descriptor is missing".to_owned()),
            Some(Some(pipe)) => {
                let pipe = Descriptor::new(pipe, interest);
                pipe.map(Some).map_err(|error| error.to_string())
            }
        };
        let stdin = next(wanted.stdin, Interest::READABLE)?;
        let stdout = next(wanted.stdout, Interest::WRITABLE)?;
        let stderr = next(wanted.stderr, Interest::WRITABLE)?;
        if let Some((from, input)) = stdin.zip(self.stdin.clone()) {
            let ended = self.ended.clone();
            self.tasks.spawn(async move {
                let filled = ended.run_until_cancelled(input.fill(from)).await;
                if let Some(Err(error)) = filled {
                    tracing::debug!(%error, "the input of a guest broke");
                }
            });
        }
        for (stream, pipe) in [(&self.stdout, stdout), (&self.stderr, stderr)] {
            let Some(mut pipe) = pipe else { continue };
            let mut heard = stream.lines().listen();
            let watched = pipe.clone();
            self.tasks.spawn(async move {
                let carry = async {
                    while let Some(bytes) = heard.recv().await {
                        if pipe.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = carry => {}
                    () = watched.abandoned() => {}
                }
            });
        }
        Ok(())
    }

    /// The guest writes no more.
    pub(crate) fn end(&self) {
        self.stdout.lines().end();
        self.stderr.lines().end();
        self.ended.cancel();
    }

    /// Waits until those who attached have heard the end, or for [`LAST`]. For a thread that may
    /// block.
    pub(crate) fn heard(&self) -> io::Result<()> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        self.tasks.close();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let waited =
            runtime.block_on(async { tokio::time::timeout(LAST, self.tasks.wait()).await });
        waited.map_err(io::Error::from)
    }
}

impl Input {
    /// Carries what somebody writes to the guest.
    async fn fill(&self, mut from: Descriptor) -> io::Result<()> {
        let mut buffer = vec![0; INPUT];
        loop {
            let n = from.read(&mut buffer).await?;
            let mut to = self.to.lock().await;
            match &mut *to {
                // It has ended.
                None => return Ok(()),
                Some(_) if n == 0 && !self.once => return Ok(()),
                Some(_) if n == 0 => {
                    *to = None;
                    return Ok(());
                }
                Some(to) => to.write_all(&buffer[..n]).await?,
            }
        }
    }
}
