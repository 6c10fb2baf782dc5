//! Growing delays between attempts, per subject.
//!
//! Source of the rule: the Pod lifecycle page of Kubernetes: 10 s, doubled up to five minutes,
//! and forgotten after ten minutes without a failure. Its owner passes the clock in.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// First delay.
const INITIAL: Duration = Duration::from_secs(10);
/// Longest delay.
const MAX: Duration = Duration::from_secs(300);

/// Delays of one Pod's containers or images, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackOff {
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: SystemTime,
}

impl Entry {
    fn is_stale(&self, at: SystemTime) -> bool {
        at.duration_since(self.updated).unwrap_or_default() > MAX * 2
    }
}

impl BackOff {
    /// The delay that follows a failure at `failed`, and the moment when it is over.
    pub(crate) fn until(&self, key: &str, failed: SystemTime) -> Option<(Duration, SystemTime)> {
        let entry = self.entries.get(key)?;
        match entry.is_stale(failed) {
            true => None,
            false => Some((entry.delay, failed + entry.delay)),
        }
    }

    /// Notes an attempt after a failure at `failed`; the next delay is longer.
    pub(crate) fn next(&mut self, key: &str, failed: SystemTime, now: SystemTime) {
        let delay = match self.entries.get(key) {
            Some(entry) if !entry.is_stale(failed) => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        let updated = now;
        self.entries
            .insert(key.to_owned(), Entry { delay, updated });
    }

    /// Forgets a subject.
    pub(crate) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_minutes_and_are_forgotten() {
        let mut back_off = BackOff::default();
        let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(
            back_off.until("c", now),
            None,
            "the first restart is at once"
        );
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            back_off.next("c", now, now);
            let failed = now + Duration::from_secs(1);
            let (delay, until) = back_off.until("c", failed).unwrap();
            assert_eq!(delay, Duration::from_secs(expected));
            assert_eq!(until, failed + delay);
            now = until;
        }
        assert_eq!(back_off.until("other", now), None);
        let long_after = now + Duration::from_secs(601);
        assert_eq!(back_off.until("c", long_after), None);
        back_off.next("c", long_after, long_after);
        let (delay, _) = back_off.until("c", long_after).unwrap();
        assert_eq!(delay, INITIAL, "ten good minutes begin anew");
    }
}
