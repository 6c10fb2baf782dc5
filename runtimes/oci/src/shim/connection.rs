//! A shim's end of the connection to an agent.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use coracle_runtime::connection::DESCRIPTORS;
use coracle_runtime::frames::{Numbered, decode, encode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

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

    /// Reads what is there.
    pub(super) fn read(&mut self) {
        const SPACE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS));
        let mut bytes = [0; 16 << 10];
        loop {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.stream, &mut into, &mut beside, flags) {
                Ok(received) if received.bytes > 0 => {
                    for message in beside.drain() {
                        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                            self.descriptors.push_back(descriptors.collect());
                        }
                    }
                    self.came.extend_from_slice(&bytes[..received.bytes]);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                _ => {
                    self.gone = true;
                    return;
                }
            }
            if self.descriptors.len() > GROUPS {
                self.gone = true;
                return;
            }
        }
    }

    /// The next request that has come whole.
    pub(super) fn request(&mut self) -> Option<Numbered<Request>> {
        match decode(&mut self.came) {
            Ok(request) => request,
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
