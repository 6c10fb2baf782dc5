//! A guest's standard streams: its container's log and those who attach to it, or the pipes of a
//! session.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::Stdio;
use coracle_runtime::log::{Log, Stream};
use coracle_runtime::streaming::{Descriptor, Wanted};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, Interest};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::output::GuestOutput;

/// Bytes of input that wait for the guest.
const INPUT: usize = 64 << 10;
/// How long those who attached may take to read what a guest wrote last.
const LAST: Duration = Duration::from_secs(5);
/// How many may be attached to a guest.
const ATTACHED: usize = 64;

/// The streams of one guest.
#[derive(Clone)]
pub(crate) struct GuestStreams {
    pub(crate) stdout: GuestOutput,
    pub(crate) stderr: GuestOutput,
    stdin: Option<Arc<Input>>,
    /// The input of a session, until the guest has it.
    pipe: Arc<Mutex<Option<OwnedFd>>>,
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
            stdout: GuestOutput::log(log.clone(), Stream::Stdout),
            stderr: GuestOutput::log(log.clone(), Stream::Stderr),
            stdin,
            pipe: Arc::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    /// The streams of a session: of those that are wanted, the ends of its pipes.
    pub(crate) fn piped(wanted: Wanted, pipes: Vec<OwnedFd>) -> Result<Self, String> {
        let mut pipes = pipes.into_iter();
        let mut next = |wanted: bool| match wanted.then(|| pipes.next()) {
            None => Ok(None),
            Some(None) => Err("a descriptor is missing".to_owned()),
            Some(pipe) => Ok(pipe),
        };
        Ok(Self {
            pipe: Arc::new(Mutex::new(next(wanted.stdin)?)),
            stdout: GuestOutput::pipe(next(wanted.stdout)?),
            stderr: GuestOutput::pipe(next(wanted.stderr)?),
            stdin: None,
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        })
    }

    /// The guest's end of its input, once, within the runtime that polls the guest.
    pub(crate) fn take_input(&self) -> Option<Box<dyn AsyncRead + Send + Sync + Unpin>> {
        if let Some(pipe) = self.pipe.lock().take() {
            return match Descriptor::new(pipe, Interest::READABLE) {
                Ok(pipe) => Some(Box::new(pipe)),
                Err(error) => {
                    eprintln!("the input of a session: {error}");
                    None
                }
            };
        }
        let input = self.stdin.as_ref()?.from.lock().take()?;
        Some(Box::new(input))
    }

    /// Says something that is not the guest's to who has it in a session.
    pub(crate) fn tell(&self, message: &str) {
        if let GuestOutput::Pipe(_) = self.stderr {
            // Nobody listens any more.
            let _ = self.stderr.put(format!("{message}\n").as_bytes());
        }
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
            let Some((mut pipe, lines)) = pipe.zip(stream.lines()) else {
                continue;
            };
            let mut heard = lines.listen();
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
        let logs = [&self.stdout, &self.stderr];
        let logs = logs.into_iter().filter_map(|output| output.lines());
        logs.for_each(|lines| lines.end());
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
