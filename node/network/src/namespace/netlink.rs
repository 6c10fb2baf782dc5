//! Netlink messages and sockets, as far as the plumbing of Pods needs them (RFC 3549, and the
//! kernel's `linux/netlink.h`).
//!
//! What is asked here is answered by the kernel at once, so the calls block. A handful of
//! requests of two families does not pay for a client of each.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force,
    set_socket_timeout,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Make what is not there.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Put it behind what is there.
pub(crate) const NLM_F_APPEND: u16 = 0x800;
/// Fail if it is there.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// Put it in the place of what is there.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A kernel that does not answer in this time never will.
const ANSWER: Duration = Duration::from_secs(5);
/// A dump is asked for again this often when what it lists changed meanwhile.
const DUMPS: usize = 5;

/// What every socket has room for.
const SMALL: usize = 16 << 10;
/// What the kernel reckons for a short answer.
const ACKNOWLEDGEMENT: usize = 1 << 10;

/// Why a batch was not made.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct BatchError {
    /// The place of the first change that failed; none if it is the batch that did.
    pub(crate) position: Option<usize>,
    #[source]
    pub(crate) source: io::Error,
}

/// One message; length and sequence number are set when it is sent.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        Self { bytes }
    }

    /// Appends a header of the family, whose length is a multiple of four.
    pub(crate) fn put(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attribute(self, kind: u16, payload: &[u8]) -> Self {
        self.enclose(kind, |message| message.put(payload), payload.len())
    }

    /// The attributes of another message.
    pub(crate) fn append(self, attributes: &Self) -> Self {
        self.put(attributes.bytes.get(HEADER..).unwrap_or_default())
    }

    /// A text with the final zero that the kernel wants.
    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A number in the machine's order, as rtnetlink has them.
    pub(crate) fn native(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_ne_bytes())
    }

    /// A number in the network's order, as nftables has them.
    pub(crate) fn network(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_be_bytes())
    }

    pub(crate) fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        let mut message = self.enclose(kind | NLA_F_NESTED, fill, 0);
        let length = message.bytes.len() - start;
        message.set_length(start, length);
        message
    }

    fn enclose(mut self, kind: u16, fill: impl FnOnce(Self) -> Self, payload: usize) -> Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        let mut message = fill(self);
        message.set_length(start, ATTRIBUTE_HEADER + payload);
        message
    }

    fn set_length(&mut self, start: usize, length: usize) {
        // Attributes here are names, addresses and rules of a few hundred bytes.
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let flags = flags | u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A socket that speaks to the kernel about the network namespace of the thread that made it.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks for a change and waits until it is made.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        self.send(&message.finish(NLM_F_ACK, self.sequence))?;
        self.acknowledged(self.sequence)
    }

    /// Asks for one thing: the payload of the answer, with its family's header.
    pub(crate) fn get(&mut self, message: Message) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        self.send(&message.finish(0, self.sequence))?;
        loop {
            for answer in self.receive()? {
                if answer.sequence != self.sequence {
                    continue;
                }
                if answer.kind != NLMSG_ERROR {
                    return Ok(answer.payload);
                }
                answer.outcome()?;
            }
        }
    }

    /// Asks for changes that are made all or not at all; `begin` and `end` enclose them.
    pub(crate) fn batch(
        &mut self,
        begin: Message,
        changes: Vec<Message>,
        end: Message,
    ) -> Result<(), BatchError> {
        let count = changes.len();
        let first = self.sequence + 2;
        let mut bytes = begin.finish(0, self.sequence + 1);
        self.sequence += 1;
        for (position, change) in changes.into_iter().enumerate() {
            self.sequence += 1;
            // One is enough: whatever fails says so unasked, and before it.
            let last = position + 1 == count;
            bytes.extend(change.finish(if last { NLM_F_ACK } else { 0 }, self.sequence));
        }
        let last = self.sequence;
        self.sequence += 1;
        bytes.extend(end.finish(0, self.sequence));
        if count == 0 {
            return Ok(());
        }
        let whole = |source: io::Error| BatchError {
            position: None,
            source,
        };
        self.make_room(bytes.len(), count).map_err(whole)?;
        self.send(&bytes).map_err(whole)?;
        loop {
            for answer in self.receive().map_err(whole)? {
                if answer.kind != NLMSG_ERROR {
                    continue;
                }
                // Any failure of a batch is the batch's.
                answer.outcome().map_err(|source| BatchError {
                    position: answer
                        .sequence
                        .checked_sub(first)
                        .and_then(|position| usize::try_from(position).ok())
                        .filter(|position| *position < count),
                    source,
                })?;
                if answer.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// A batch is sent at once; if nothing of it works every message comes back with its error.
    fn make_room(&self, bytes: usize, messages: usize) -> io::Result<()> {
        if bytes < SMALL {
            return Ok(());
        }
        set_socket_send_buffer_size_force(&self.fd, bytes)?;
        set_socket_recv_buffer_size_force(&self.fd, bytes * 2 + messages * ACKNOWLEDGEMENT)?;
        Ok(())
    }

    /// Asks for a list: the payloads of the answers, each with its family's header.
    pub(crate) fn dump(&mut self, message: impl Fn() -> Message) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMPS {
            self.sequence += 1;
            self.send(&message().finish(NLM_F_DUMP, self.sequence))?;
            if let Some(found) = self.list(self.sequence)? {
                return Ok(found);
            }
        }
        Err(io::Error::other(
            "what the kernel lists keeps changing while it is read",
        ))
    }

    /// The answers of a dump; none if it was interrupted by a change.
    fn list(&mut self, sequence: u32) -> io::Result<Option<Vec<Vec<u8>>>> {
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            for answer in self.receive()? {
                if answer.sequence != sequence {
                    continue;
                }
                whole &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.kind {
                    NLMSG_DONE => return Ok(whole.then_some(found)),
                    NLMSG_ERROR => answer.outcome()?,
                    _ => found.push(answer.payload),
                }
            }
        }
    }

    fn acknowledged(&mut self, sequence: u32) -> io::Result<()> {
        loop {
            for answer in self.receive()? {
                if answer.kind != NLMSG_ERROR {
                    continue;
                }
                // Any failure of a batch is the batch's.
                answer.outcome()?;
                if answer.sequence >= sequence {
                    return Ok(());
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.fd, bytes, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<Answer>> {
        // The kernel fills at most 32 KiB at a time (NLMSG_GOODSIZE and the dumps' limit), or returns
        // a message that failed.
        let mut buffer = vec![0; 80 << 10];
        let (length, _) = loop {
            match recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    return Err(io::Error::new(
                        ErrorKind::TimedOut,
                        "the kernel did not answer",
                    ));
                }
                received => break received?,
            }
        };
        Ok(answers(&buffer[..length]))
    }
}

/// A message from the kernel.
struct Answer {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Answer {
    /// What an acknowledgement says.
    fn outcome(&self) -> io::Result<()> {
        match number(&self.payload, 0).map(u32::cast_signed) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(ErrorKind::InvalidData.into()),
        }
    }
}

fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(flags), Some(sequence)) = (
        number(bytes, 0),
        short(bytes, 4),
        short(bytes, 6),
        number(bytes, 8),
    ) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(HEADER..length) else {
            break;
        };
        found.push(Answer {
            kind,
            flags,
            sequence,
            payload: payload.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attributes after a header of `skip` bytes.
pub(crate) fn attributes(payload: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = payload.get(skip..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(short(rest, 0)?);
        let kind = short(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind after a header of `skip` bytes.
pub(crate) fn attribute(payload: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    let mut found = attributes(payload, skip).filter(|(found, _)| *found == kind);
    found.next().map(|(_, value)| value)
}

/// A number in the machine's order.
pub(crate) fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn short(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same_attributes() {
        let bytes = Message::new(7, NLM_F_CREATE)
            .put(&[9; 4])
            .text(1, "abc")
            .nested(2, |inner| inner.network(3, 0x0102_0304).attribute(4, &[5]))
            .native(6, 8)
            .finish(NLM_F_ACK, 11);
        let answers = answers(&bytes);
        assert_eq!(answers.len(), 1);
        let answer = &answers[0];
        assert_eq!((answer.kind, answer.sequence), (7, 11));
        assert_eq!(answer.flags, NLM_F_CREATE | NLM_F_REQUEST | NLM_F_ACK);
        let found: Vec<_> = attributes(&answer.payload, 4).collect();
        assert_eq!(found[0], (1, &b"abc\0"[..]));
        assert_eq!(found[2], (6, &8_u32.to_ne_bytes()[..]));
        let inner: Vec<_> = attributes(found[1].1, 0).collect();
        assert_eq!(inner, [(3, &[1, 2, 3, 4][..]), (4, &[5][..])]);
    }

    #[test]
    fn cut_off_messages_are_passed_over() {
        let bytes = Message::new(7, 0).native(1, 2).finish(0, 1);
        for length in 0..bytes.len() {
            assert!(answers(&bytes[..length]).is_empty(), "{length}");
        }
        assert_eq!(attributes(&[200, 0, 1, 0], 0).count(), 0);
    }
}
