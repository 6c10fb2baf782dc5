//! How long a shim waits for an agent.
//!
//! An agent that has been greeted finds the shim in its records, and so does the next one. One that is
//! killed while it starts a shim may not have come so far, and then nobody would ever look for it: so a
//! shim that nobody has met does not wait for long.

use std::time::{Duration, Instant};

/// How long it waits for the first one, which connects as soon as it has started the shim.
const FIRST: Duration = Duration::from_secs(60);

/// What a shim knows of agents, as far as its own end is concerned.
pub(super) struct Patience {
    /// How long it waits for a next one; for ever if none is given.
    long: Option<Duration>,
    /// Since when no agent is connected.
    lonely: Option<Instant>,
    met: bool,
}

impl Patience {
    /// That of a shim to which no agent is connected yet.
    pub(super) fn new(long: Option<Duration>, now: Instant) -> Self {
        Self {
            long,
            lonely: Some(now),
            met: false,
        }
    }

    /// An agent has been greeted.
    pub(super) fn met(&mut self) {
        self.met = true;
    }

    /// Whether an agent is connected now.
    pub(super) fn see(&mut self, connected: bool, now: Instant) {
        self.lonely = match connected {
            true => None,
            false => Some(self.lonely.unwrap_or(now)),
        };
    }

    /// When it is over, if nobody comes until then.
    pub(super) fn end(&self) -> Option<Instant> {
        let first = self.long.map_or(FIRST, |long| long.min(FIRST));
        let long = match self.met {
            true => self.long,
            false => Some(first),
        };
        self.lonely.zip(long).map(|(since, long)| since + long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_never_met_does_not_wait_for_ever() {
        let second = Duration::from_secs(1);
        let hour = 3600 * second;
        for (long, before, after) in [
            (None, FIRST, None),
            (Some(second), second, Some(second)),
            (Some(hour), FIRST, Some(hour)),
        ] {
            let begun = Instant::now();
            let mut patience = Patience::new(long, begun);
            assert_eq!(patience.end(), Some(begun + before));
            // One that has gone before it was greeted is none.
            patience.see(true, begun);
            assert_eq!(patience.end(), None);
            let gone = begun + second;
            patience.see(false, gone);
            patience.see(false, gone + second);
            assert_eq!(patience.end(), Some(gone + before));
            patience.met();
            assert_eq!(patience.end(), after.map(|after| gone + after));
        }
    }
}
