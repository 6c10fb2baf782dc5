//! A guest's two output streams, as wasmtime writes to them.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_runtime::log::{Lines, Log, Stream};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// Bytes that a guest writes at once: as many as `blocking-write-and-flush` takes. Each newline among
/// them is an entry of the log, written by a thread on which the guests of other Pods wait.
const AT_ONCE: usize = 4096;

/// Where a guest's stream leads.
#[derive(Clone)]
pub(crate) enum GuestOutput {
    /// Into its container's log.
    Log(Arc<Lines>),
    /// Into the pipe of a session. Writing waits for its reader, on the guest's own thread.
    Pipe(Arc<OwnedFd>),
    /// Nowhere.
    Nowhere,
}

impl GuestOutput {
    pub(crate) fn log(log: Arc<Log>, stream: Stream) -> Self {
        Self::Log(Arc::new(Lines::new(log, stream)))
    }

    pub(crate) fn pipe(pipe: Option<OwnedFd>) -> Self {
        pipe.map_or(Self::Nowhere, |pipe| Self::Pipe(Arc::new(pipe)))
    }

    /// What is written to the log, for others who hear it.
    pub(crate) fn lines(&self) -> Option<&Lines> {
        match self {
            Self::Log(lines) => Some(lines),
            Self::Pipe(_) | Self::Nowhere => None,
        }
    }

    pub(crate) fn put(&self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Log(lines) => lines.put(bytes),
            Self::Pipe(pipe) => {
                while !bytes.is_empty() {
                    match rustix::io::write(pipe, bytes) {
                        Ok(written) => bytes = &bytes[written..],
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Self::Nowhere => {}
        }
        Ok(())
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {
        if let Some(lines) = self.lines() {
            lines.room().await;
        }
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > AT_ONCE {
            return Err(StreamError::trap(
                "more was written than check-write permits",
            ));
        }
        self.put(&bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => StreamError::Closed,
            _ => StreamError::LastOperationFailed(error.into()),
        })
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        let is_full = self.lines().is_some_and(Lines::is_full);
        Ok(if is_full { 0 } else { AT_ONCE })
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.put(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_written_than_is_permitted() {
        let mut output = GuestOutput::Nowhere;
        let permitted = output.check_write().unwrap();
        assert_eq!(permitted, AT_ONCE);
        output.write(vec![b'\n'; permitted].into()).unwrap();
        let more = output.write(vec![b'\n'; permitted + 1].into());
        assert!(matches!(more, Err(StreamError::Trap(_))));
    }
}
