//! The binary form of what the store writes to disk and to its peers: fixed-width little-endian
//! numbers and length-prefixed bytes. Versions are the business of the frame around it.

use crate::command::{Command, Request, RequestId};
use crate::state::{Position, Session, Sessions};
use crate::types::{Precondition, Record, ValueRef};
use crate::value;

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("malformed record")]
pub(crate) struct Malformed;

impl From<value::Malformed> for Malformed {
    fn from(_: value::Malformed) -> Self {
        Self
    }
}

type Result<T> = std::result::Result<T, Malformed>;

/// Appends to a buffer.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn len(&mut self, length: usize) {
        // Nothing that is written is near 4 GiB: values are bounded, and so are batches.
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn position(&mut self, position: Position) {
        self.u64(position.term);
        self.u64(position.leader);
        self.u64(position.index);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn value(&mut self, value: ValueRef<'_>) {
        self.bytes(value.encoded());
    }

    fn precondition(&mut self, precondition: &Precondition) {
        let uid = precondition.uid.as_deref();
        self.u8(u8::from(uid.is_some()) | u8::from(precondition.revision.is_some()) << 1);
        self.bytes(uid.unwrap_or_default().as_bytes());
        self.u64(precondition.revision.unwrap_or_default());
    }

    pub(crate) fn request(&mut self, request: &Request) {
        self.u64(request.id.session);
        self.u64(request.id.sequence);
        self.u64(request.id.settled);
        self.bytes(request.command.key().as_bytes());
        match &request.command {
            Command::Create(draft) => {
                self.u8(1);
                self.value(draft.value());
            }
            Command::Swap(precondition, draft) => {
                self.u8(2);
                self.precondition(precondition);
                self.value(draft.value());
            }
            Command::Delete(precondition, _) => {
                self.u8(3);
                self.precondition(precondition);
            }
        }
    }

    pub(crate) fn record(&mut self, record: &Record) {
        self.bytes(record.key().as_bytes());
        self.u64(record.revision());
        self.u64(record.created());
        self.value(record.value());
    }

    pub(crate) fn sessions(&mut self, sessions: &Sessions) {
        self.u64(sessions.clock);
        self.len(sessions.sessions.len());
        for (id, session) in &sessions.sessions {
            self.u64(*id);
            self.u64(session.settled);
            self.u64(session.heard);
            self.len(session.applied.len());
            for sequence in &session.applied {
                self.u64(*sequence);
            }
        }
    }
}

/// Reads from a buffer, and past its end never.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn len(&mut self) -> Result<usize> {
        Ok(self.u32()? as usize)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.len()?;
        self.take(length)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(crate) fn position(&mut self) -> Result<Position> {
        Ok(Position {
            term: self.u64()?,
            leader: self.u64()?,
            index: self.u64()?,
        })
    }

    fn value(&mut self) -> Result<ValueRef<'a>> {
        Ok(ValueRef::decode(self.bytes()?)?)
    }

    fn precondition(&mut self) -> Result<Precondition> {
        let parts = self.u8()?;
        let uid = self.string()?;
        let revision = self.u64()?;
        Ok(Precondition {
            uid: (parts & 1 != 0).then(|| uid.to_owned()),
            revision: (parts & 2 != 0).then_some(revision),
        })
    }

    pub(crate) fn request(&mut self) -> Result<Request> {
        let id = RequestId {
            session: self.u64()?,
            sequence: self.u64()?,
            settled: self.u64()?,
        };
        let key = self.string()?;
        let command = match self.u8()? {
            1 => Command::Create(Record::draft(key, self.value()?)),
            2 => Command::Swap(self.precondition()?, Record::draft(key, self.value()?)),
            3 => Command::Delete(self.precondition()?, key.into()),
            _ => return Err(Malformed),
        };
        Ok(Request { id, command })
    }

    pub(crate) fn record(&mut self) -> Result<Record> {
        let key = self.string()?;
        let (revision, created) = (self.u64()?, self.u64()?);
        let value = self.value()?;
        Ok(Record::new(key, revision, created, value))
    }

    pub(crate) fn sessions(&mut self) -> Result<Sessions> {
        let mut sessions = Sessions {
            clock: self.u64()?,
            ..Sessions::default()
        };
        for _ in 0..self.len()? {
            let id = self.u64()?;
            let mut session = Session {
                settled: self.u64()?,
                heard: self.u64()?,
                ..Session::default()
            };
            for _ in 0..self.len()? {
                session.applied.insert(self.u64()?);
            }
            sessions.sessions.insert(id, session);
        }
        Ok(sessions)
    }
}
