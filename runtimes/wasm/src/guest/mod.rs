//! A guest as its process sees it: engine, store, limits, log, volumes and network.
//!
//! Everything here runs in a guest process or in the compiler's, never in the agent; only
//! [`engine`] is shared, since the agent needs the engine's compatibility hash.

pub(crate) mod cpu;
pub(crate) mod engine;
mod files;
pub(crate) mod limits;
pub(crate) mod outgoing;
pub(crate) mod output;
pub(crate) mod quota;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod streams;
mod variables;
pub(crate) mod volumes;
