//! A shim's end of the connection to an agent.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use coracle_runtime::connection::receive_with;
use coracle_runtime::frames::{Numbered, decode, encode};

use crate::protocol::{FromShim, Request};

/// Bytes on their way to an agent; one that reads no faster is let go.
const OUTBOX: usize = 4 << 20;
/// Groups of descriptors whose requests have not come.
const GROUPS: usize = 16;

/// An agent.
pub(super) struct Agent {
    /// Tells it from agents before it.
    pub(super) number: u64,
    stream: UnixStream,
    came: Vec<u8>,
    descriptors: VecDeque<Vec<OwnedFd>>,
    leaving: Vec<u8>,
    gone: bool,
}

impl Agent {
    pub(super) fn new(number: u64, stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            number,
            stream,
            came: Vec::new(),
            descriptors: VecDeque::new(),
            leaving: Vec::new(),
            gone: false,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether there is something that could not be written yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.leaving.is_empty()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Reads what is there, but no more groups of descriptors than are kept: the rest is still
    /// there when requests have taken theirs.
    pub(super) fn read(&mut self) {
        let mut bytes = [0; 16 << 10];
        while self.descriptors.len() < GROUPS {
            match receive_with(&self.stream, &mut bytes) {
                Ok((read @ 1.., descriptors)) => {
                    if !descriptors.is_empty() {
                        self.descriptors.push_back(descriptors);
                    }
                    self.came.extend_from_slice(&bytes[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// The next request that has come whole. Whoever sends descriptors that no request takes is
    /// let go.
    pub(super) fn request(&mut self) -> Option<Numbered<Request>> {
        match decode(&mut self.came) {
            Ok(Some(request)) => Some(request),
            Ok(None) => {
                self.gone |= self.descriptors.len() >= GROUPS;
                None
            }
            Err(_) => {
                self.gone = true;
                None
            }
        }
    }

    /// The descriptors that came with the request that was just taken.
    pub(super) fn descriptors(&mut self) -> Vec<OwnedFd> {
        self.descriptors.pop_front().unwrap_or_default()
    }

    /// Sends a frame, now or when the agent reads.
    pub(super) fn send(&mut self, frame: &FromShim) {
        match encode(frame) {
            Ok(frame) if self.leaving.len() + frame.len() <= OUTBOX => {
                self.leaving.extend_from_slice(&frame);
                self.write();
            }
            _ => self.gone = true,
        }
    }

    /// Writes what the agent takes.
    pub(super) fn write(&mut self) {
        while !self.leaving.is_empty() {
            match self.stream.write(&self.leaving) {
                Ok(0) => self.gone = true,
                Ok(n) => {
                    self.leaving.drain(..n);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_runtime::ContainerId;
    use coracle_runtime::connection::send_with;
    use coracle_runtime::streaming::Wanted;

    use super::*;

    /// An agent that has sent that many requests, each with a pipe's ends beside it.
    async fn asked(request: &Request, times: u64) -> Agent {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let (_reader, mut writer) = far.into_split();
        let (reader, end) = io::pipe().unwrap();
        for id in 0..times {
            let body = request.clone();
            let numbered = Numbered { id, body };
            let beside = [reader.as_fd(), end.as_fd()];
            send_with(&mut writer, &numbered, &beside).await.unwrap();
        }
        writer.forget();
        Agent::new(1, near.into_std().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn more_requests_with_descriptors_come_than_are_kept_at_once() {
        let request = Request::Attach {
            container: ContainerId("c".into()),
            wanted: Wanted::default(),
        };
        let times = 3 * GROUPS as u64 + 1;
        let mut agent = asked(&request, times).await;
        let mut taken = 0;
        while taken < times {
            agent.read();
            let before = taken;
            while let Some(request) = agent.request() {
                assert_eq!((request.id, agent.descriptors().len()), (taken, 2));
                taken += 1;
            }
            assert!(taken > before, "{taken} were taken");
            // It has hung up when it has asked all.
            assert!(taken == times || !agent.is_gone(), "{taken} were taken");
        }
    }

    #[tokio::test]
    async fn descriptors_that_nobody_takes_are_bounded() {
        let mut agent = asked(&Request::Running, 2 * GROUPS as u64).await;
        agent.read();
        while agent.request().is_some() {}
        assert!(agent.is_gone());
        assert_eq!(agent.descriptors.len(), GROUPS);
    }
}
