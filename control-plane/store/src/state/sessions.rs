//! Requests that were applied, so that one that arrives twice is applied once.
//!
//! A forwarded request may be sent again when the leader that took it fell silent. Each process
//! numbers its requests, and says with each which of the earlier ones are settled; what has to
//! be remembered is bounded by what a process may have in flight.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::RequestId;

/// Sessions that are remembered: one per process that wrote lately. A process that is pushed out
/// by so many younger ones is long gone.
const MOST_SESSIONS: usize = 64;

/// The memory of applied requests. Deterministic: part of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    pub(crate) sessions: BTreeMap<u64, Session>,
    /// Counts admissions; orders the sessions by when they were last heard.
    pub(crate) clock: u64,
}

/// One process's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// Requests below this one are settled.
    pub(crate) settled: u64,
    /// Those from it on that were applied.
    pub(crate) applied: BTreeSet<u64>,
    pub(crate) heard: u64,
}

impl Sessions {
    /// Whether the request is to be applied; remembers that it was.
    pub(crate) fn admit(&mut self, id: RequestId) -> bool {
        self.clock += 1;
        if !self.sessions.contains_key(&id.session) && self.sessions.len() >= MOST_SESSIONS {
            let oldest = self
                .sessions
                .iter()
                .min_by_key(|(_, session)| session.heard);
            if let Some(oldest) = oldest.map(|(session, _)| *session) {
                self.sessions.remove(&oldest);
            }
        }
        let session = self.sessions.entry(id.session).or_default();
        session.heard = self.clock;
        if id.settled > session.settled {
            session.settled = id.settled;
            session.applied = session.applied.split_off(&id.settled);
        }
        id.sequence >= session.settled && session.applied.insert(id.sequence)
    }
}
