//! The replicated, revisioned key space under the API server.
//!
//! One trait, [`Store`], over keys and encoded objects. Revisions are one cluster-wide counter,
//! advanced once per mutation when its command is applied; preconditions are checked at that
//! moment too, so they are linearizable. Applying is deterministic and reads no clock.
//!
//! Deliberately absent: the store knows no kinds, no defaults and no admission. It sees the
//! bytes, and beside them the [`Attributes`] by which selectors and watches choose.

mod codec;
mod command;
mod encodings;
mod heap;
mod memory;
mod raft;
mod record;
mod replica;
mod state;
mod subscription;
pub mod suite;
mod types;
mod value;
mod wal;

pub use memory::MemoryStore;
pub use raft::{
    Batch, Message, NoTransport, OpenError, RaftConfig, RaftStore, Refusal, Reply, Timing,
    Transport, TransportError, TypeConfig,
};
pub use types::*;
pub use wal::{DataError, Disk, Fatal, File, OsDisk};

/// The largest value that the store takes, in bytes. The API server takes bodies of 3 MB; what
/// it adds to them (defaults, managed fields) must fit as well.
pub const MAX_VALUE_BYTES: usize = 4 << 20;
