//! Between members: one message type, one trait that carries it, and openraft's view of both.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Snapshot, SnapshotMeta, Vote};
use serde::{Deserialize, Serialize};

use super::types::{Batch, TypeConfig};

/// How long a whole snapshot may take to arrive.
const SNAPSHOT: Duration = Duration::from_secs(120);

/// What one member asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Take these entries.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Vote for me.
    Vote(VoteRequest<u64>),
    /// Take this state.
    Snapshot {
        /// The leader's vote.
        vote: Vote<u64>,
        /// Where the state stands.
        meta: SnapshotMeta<u64, BasicNode>,
        /// The state.
        bytes: Vec<u8>,
    },
    /// Commit these requests: you lead.
    Propose(Batch),
    /// What must be applied to have read everything that was acknowledged?
    ReadIndex,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Message::Append`].
    Append(AppendEntriesResponse<u64>),
    /// To [`Message::Vote`].
    Vote(VoteResponse<u64>),
    /// To [`Message::Snapshot`].
    Snapshot(SnapshotResponse<u64>),
    /// To [`Message::Propose`]; whether they were committed.
    Proposed(Result<(), Refusal>),
    /// To [`Message::ReadIndex`].
    ReadIndex(Result<u64, String>),
}

/// Why a member did not commit what was proposed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not lead, or no longer.
    NotLeader,
    /// Its disk is full, and not all of it frees space.
    Full(String),
    /// It is going down.
    Stopping,
}

/// A message did not arrive, or its answer did not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// There is no way to the member now.
    #[error("member {0} is unreachable: {1}")]
    Unreachable(u64, String),
    /// The member could not answer.
    #[error("member {0} failed: {1}")]
    Failed(u64, String),
}

/// Carries messages to other members. Each call has a deadline set by the caller, who drops it.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a message to a member at an address, and waits for its answer.
    async fn call(
        &self,
        member: u64,
        address: &str,
        message: Message,
    ) -> Result<Reply, TransportError>;
}

/// For a cluster of one: there is nobody to talk to.
pub struct NoTransport;

#[async_trait]
impl Transport for NoTransport {
    async fn call(&self, member: u64, _: &str, _: Message) -> Result<Reply, TransportError> {
        Err(TransportError::Unreachable(
            member,
            "this server has no peers".to_owned(),
        ))
    }
}

/// The other members.
pub(super) struct Peers {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) timeout: Duration,
    /// Addresses are those of the membership.
    pub(super) shared: Arc<super::machine::Shared>,
}

impl Peers {
    pub(super) async fn call(
        &self,
        member: u64,
        message: Message,
    ) -> Result<Reply, TransportError> {
        let address = {
            let memberships = self.shared.memberships.lock();
            let node = memberships.current.membership().get_node(&member).cloned();
            node.map(|node| node.addr).unwrap_or_default()
        };
        let call = self.transport.call(member, &address, message);
        tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or_else(|_| {
                Err(TransportError::Unreachable(
                    member,
                    "no answer in time".to_owned(),
                ))
            })
    }
}

/// Makes connections for openraft.
pub(super) struct Network {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) backoff: Duration,
}

/// A connection for openraft.
pub(super) struct Connection {
    transport: Arc<dyn Transport>,
    backoff: Duration,
    member: u64,
    address: String,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, member: u64, node: &BasicNode) -> Connection {
        let (transport, backoff) = (self.transport.clone(), self.backoff);
        Connection {
            transport,
            backoff,
            member,
            address: node.addr.clone(),
        }
    }
}

impl Connection {
    async fn call(&self, message: Message, within: Duration) -> Result<Reply, TransportError> {
        let call = self.transport.call(self.member, &self.address, message);
        tokio::time::timeout(within, call)
            .await
            .unwrap_or_else(|_| {
                Err(TransportError::Unreachable(
                    self.member,
                    "no answer in time".to_owned(),
                ))
            })
    }

    fn unexpected(&self) -> TransportError {
        TransportError::Failed(self.member, "an answer to another question".to_owned())
    }
}

type Answer<T> = Result<T, RPCError<u64, BasicNode, RaftError<u64>>>;

fn rpc_error(error: &TransportError) -> RPCError<u64, BasicNode, RaftError<u64>> {
    match error {
        TransportError::Unreachable(..) => RPCError::Unreachable(Unreachable::new(error)),
        TransportError::Failed(..) => RPCError::Network(NetworkError::new(error)),
    }
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Answer<AppendEntriesResponse<u64>> {
        match self.call(Message::Append(request), option.hard_ttl()).await {
            Ok(Reply::Append(response)) => Ok(response),
            Ok(_) => Err(rpc_error(&self.unexpected())),
            Err(error) => Err(rpc_error(&error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Answer<VoteResponse<u64>> {
        match self.call(Message::Vote(request), option.hard_ttl()).await {
            Ok(Reply::Vote(response)) => Ok(response),
            Ok(_) => Err(rpc_error(&self.unexpected())),
            Err(error) => Err(rpc_error(&error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let message = Message::Snapshot {
            vote,
            meta: snapshot.meta,
            bytes: *snapshot.snapshot,
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.call(message, SNAPSHOT) => match answer {
                Ok(Reply::Snapshot(response)) => Ok(response),
                Ok(_) => Err(StreamingError::Network(NetworkError::new(&self.unexpected()))),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.backoff))
    }
}
