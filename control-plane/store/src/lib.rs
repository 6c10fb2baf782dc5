//! The replicated, revisioned key space under the API server.
//!
//! One trait, [`Store`], over keys and encoded objects. Revisions are one cluster-wide counter,
//! advanced once per mutation when its command is applied; preconditions are checked at that
//! moment too, so they are linearizable. Applying is deterministic and reads no clock.
//!
//! Deliberately absent: the store knows no kinds, no defaults and no admission. It sees the
//! bytes, and beside them the [`Attributes`] by which selectors and watches choose.

mod types;

pub use types::*;
