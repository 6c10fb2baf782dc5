//! Commands: what is decided before it is proposed, and applied without a clock.

use std::sync::Arc;

use crate::types::{Precondition, Value};

/// Who asked, and the how-manieth of its requests this is; by it a request that arrives twice
/// is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// Drawn at random by each process when it opens the store.
    pub(crate) session: u64,
    /// Counted by the session from 1.
    pub(crate) sequence: u64,
    /// Every request of the session below this one is settled: it will not come again.
    pub(crate) settled: u64,
}

/// A mutation of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) key: Arc<str>,
    pub(crate) operation: Operation,
}

/// What to do with the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create(Value),
    Swap(Precondition, Value),
    Delete(Precondition),
}

/// A command and its request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) command: Command,
}

impl Command {
    /// Bytes that the command makes the store hold, roughly: what queues and batches count.
    pub(crate) fn weight(&self) -> usize {
        let value = match &self.operation {
            Operation::Create(value) | Operation::Swap(_, value) => value.get().weight(),
            Operation::Delete(_) => 0,
        };
        self.key.len() + value + 128
    }

    /// Whether the command frees space rather than taking it.
    pub(crate) fn frees(&self) -> bool {
        matches!(self.operation, Operation::Delete(_))
    }
}
