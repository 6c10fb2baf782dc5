//! What raft replicates, and how it is written.

use std::sync::Arc;

use openraft::{BasicNode, CommittedLeaderId, EntryPayload, LogId, StoredMembership, Vote};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Malformed, Reader, Writer};
use crate::command::Request;
use crate::state::Position;
use crate::wal;

openraft::declare_raft_types!(
    /// The types that openraft is instantiated with.
    pub TypeConfig:
        D = Batch,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Vec<u8>,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type EntryId = LogId<u64>;
pub(crate) type Membership = StoredMembership<u64, BasicNode>;

/// Requests that are proposed together: one log entry, one fsync.
///
/// Serialized, it is one string of bytes.
#[derive(Clone, Debug, Default)]
pub struct Batch(pub(crate) Arc<Requests>);

#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Milliseconds since 1970, as the leader's clock had it.
    pub(crate) time: u64,
    /// Without room for more: entries wait in memory until the base has them.
    pub(crate) requests: Box<[Request]>,
}

impl Batch {
    pub(crate) fn new(time: u64, requests: Vec<Request>) -> Self {
        let requests = requests.into_boxed_slice();
        Self(Arc::new(Requests { time, requests }))
    }

    fn encode(&self, out: &mut Writer) {
        out.u64(self.0.time);
        out.len(self.0.requests.len());
        for request in &self.0.requests {
            out.request(request);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let time = from.u64()?;
        let count = from.len()?;
        let requests = (0..count)
            .map(|_| from.request())
            .collect::<Result<_, _>>()?;
        Ok(Self::new(time, requests))
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Writer::default();
        self.encode(&mut out);
        serializer.serialize_bytes(&out.into_bytes())
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Self::decode(&mut Reader::new(&bytes)).map_err(serde::de::Error::custom)
    }
}

/// An entry as the log keeps it.
pub(crate) fn encode_entry(entry: &Entry) -> Result<wal::Record, serde_json::Error> {
    let mut out = Writer::with_capacity(256);
    match &entry.payload {
        EntryPayload::Blank => out.u8(0),
        EntryPayload::Normal(batch) => {
            out.u8(1);
            batch.encode(&mut out);
        }
        EntryPayload::Membership(membership) => {
            out.u8(2);
            out.bytes(&serde_json::to_vec(membership)?);
        }
    }
    Ok(wal::Record::Entry(position(entry.log_id), out.into_bytes()))
}

/// The reverse of [`encode_entry`].
pub(crate) fn decode_entry(position: Position, payload: &[u8]) -> Result<Entry, Malformed> {
    let mut from = Reader::new(payload);
    let payload = match from.u8()? {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Batch::decode(&mut from)?),
        2 => {
            let membership = serde_json::from_slice(from.bytes()?);
            EntryPayload::Membership(membership.map_err(|_| Malformed)?)
        }
        _ => return Err(Malformed),
    };
    Ok(Entry {
        log_id: entry_id(position),
        payload,
    })
}

pub(crate) fn position(id: EntryId) -> Position {
    Position {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn entry_id(position: Position) -> EntryId {
    LogId::new(
        CommittedLeaderId::new(position.term, position.leader),
        position.index,
    )
}

impl From<&Vote<u64>> for wal::Vote {
    fn from(vote: &Vote<u64>) -> Self {
        let leader = vote.leader_id();
        Self {
            term: leader.term,
            node: leader.node_id,
            committed: vote.is_committed(),
        }
    }
}

impl From<wal::Vote> for Vote<u64> {
    fn from(vote: wal::Vote) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.node)
        } else {
            Self::new(vote.term, vote.node)
        }
    }
}
