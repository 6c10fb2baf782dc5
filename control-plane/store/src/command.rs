//! Commands: what is decided before it is proposed, and applied without a clock.

use crate::types::{Precondition, Record};

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

/// A mutation of one key. What is to be written is a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Create(Record),
    Swap(Precondition, Record),
    Delete(Precondition, Box<str>),
}

/// A command and its request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) command: Command,
}

impl Command {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Create(draft) | Self::Swap(_, draft) => draft.key(),
            Self::Delete(_, key) => key,
        }
    }

    /// Bytes that the command makes the store hold, roughly: what queues and batches count.
    pub(crate) fn weight(&self) -> usize {
        let held = match self {
            Self::Create(draft) | Self::Swap(_, draft) => draft.weight(),
            Self::Delete(_, key) => key.len(),
        };
        held + 128
    }

    /// Whether the command frees space rather than taking it.
    pub(crate) fn frees(&self) -> bool {
        matches!(self, Self::Delete(..))
    }
}
