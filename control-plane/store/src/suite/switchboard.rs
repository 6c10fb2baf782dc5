//! A transport in memory: members call each other directly, unless the line is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::raft::{Message, RaftStore, Reply, Transport, TransportError};

/// Lines between the members of a cluster in one process.
#[derive(Default)]
pub struct Switchboard {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<u64, Weak<RaftStore>>,
    cut: BTreeSet<u64>,
}

impl Switchboard {
    /// A board without lines.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The transport of one member.
    #[must_use]
    pub fn line(self: &Arc<Self>, member: u64) -> Arc<dyn Transport> {
        Arc::new(Line {
            board: self.clone(),
            member,
        })
    }

    /// Lets others reach a member.
    pub fn connect(&self, member: u64, store: &Arc<RaftStore>) {
        let mut state = self.state.lock();
        state.members.insert(member, Arc::downgrade(store));
        state.cut.remove(&member);
    }

    /// Cuts a member off, in both directions. Answers that are under way are lost.
    pub fn cut(&self, member: u64) {
        self.state.lock().cut.insert(member);
    }

    /// Undoes [`Self::cut`].
    pub fn mend(&self, member: u64) {
        self.state.lock().cut.remove(&member);
    }

    fn reach(&self, from: u64, to: u64) -> Result<Arc<RaftStore>, TransportError> {
        let state = self.state.lock();
        let cut = state.cut.contains(&from) || state.cut.contains(&to);
        let store = state
            .members
            .get(&to)
            .filter(|_| !cut)
            .and_then(Weak::upgrade);
        store.ok_or_else(|| TransportError::Unreachable(to, "the line is cut".to_owned()))
    }
}

struct Line {
    board: Arc<Switchboard>,
    member: u64,
}

#[async_trait]
impl Transport for Line {
    async fn call(
        &self,
        member: u64,
        _address: &str,
        message: Message,
    ) -> Result<Reply, TransportError> {
        let store = self.board.reach(self.member, member)?;
        // On its own task: a caller that gives up does not stop the member that was called.
        let answer = tokio::spawn(async move { store.handle(message).await }).await;
        self.board.reach(self.member, member)?;
        answer.map_err(|error| TransportError::Failed(member, error.to_string()))?
    }
}
