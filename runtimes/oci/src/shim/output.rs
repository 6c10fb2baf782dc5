//! The output of a container on its way into its log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use coracle_runtime::log::{Lines, Log, Stream};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};

/// Bytes that are read at once: a pipe holds no more.
const CHUNK: usize = 64 << 10;

/// One stream of a container.
pub(super) struct Output {
    pipe: OwnedFd,
    lines: Lines,
}

impl Output {
    /// A stream into a log, and where the container writes to.
    pub(super) fn new(log: &Arc<Log>, stream: Stream) -> io::Result<(Self, OwnedFd)> {
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let lines = Lines::new(log.clone(), stream);
        Ok((Self { pipe, lines }, writer))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Takes some of what is there, so that one container that writes without end holds up no
    /// other; false at the stream's end.
    pub(super) fn take(&self, buffer: &mut Vec<u8>) -> bool {
        buffer.resize(CHUNK, 0);
        match read(&self.pipe, &mut buffer[..]) {
            Ok(0) => false,
            Ok(n) => {
                self.lines.put(&buffer[..n]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Takes what is left when the container has ended, as much as a pipe holds.
    pub(super) fn finish(self, buffer: &mut Vec<u8>) {
        buffer.resize(CHUNK, 0);
        let mut left = 1 << 20;
        while left > 0 {
            match read(&self.pipe, &mut buffer[..]) {
                Ok(n @ 1..) => {
                    self.lines.put(&buffer[..n]);
                    left -= n.min(left);
                }
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}
