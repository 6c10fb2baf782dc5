//! Whether a node is short of something, and since when; pure.
//!
//! ```text
//!              available < threshold               for its grace period
//!   enough ─────────────────────────────▶ crossed ──────────────────────▶ met: reclaim
//!      ▲                                     │                              │
//!      └─────────────────────────────────────┴──────────────────────────────┘
//!            available ≥ threshold, once met ≥ threshold + minimum reclaim
//! ```
//!
//! A condition of the node holds while a threshold of it is crossed, and for the transition period
//! after that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::signals::{Condition, Observation, Observations};
use super::thresholds::{EvictionPolicy, Threshold};

/// The conditions that hold.
pub(crate) type Conditions = BTreeSet<Condition>;

/// What the last looks have shown.
pub(super) struct Pressure {
    thresholds: Vec<Threshold>,
    transition: Duration,
    /// Since when thresholds are crossed, by their place.
    crossed: BTreeMap<usize, Instant>,
    met: BTreeSet<usize>,
    held: BTreeMap<Condition, Instant>,
}

/// What follows from a look.
pub(super) struct Finding {
    pub(super) conditions: Conditions,
    /// The threshold for which something is to be done now.
    pub(super) reclaim: Option<Threshold>,
}

impl Pressure {
    pub(super) fn new(policy: &EvictionPolicy) -> Self {
        let mut thresholds = policy.thresholds();
        // Of one signal hard ones stay first.
        thresholds.sort_by_key(|threshold| threshold.signal);
        Self {
            thresholds,
            transition: policy.transition,
            crossed: BTreeMap::new(),
            met: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    /// Whether there is anything to look for.
    pub(super) fn is_watched(&self) -> bool {
        !self.thresholds.is_empty()
    }

    pub(super) fn look(&mut self, observations: &Observations, now: Instant) -> Finding {
        let mut crossed = BTreeMap::new();
        for (place, threshold) in self.thresholds.iter().enumerate() {
            let Some(seen) = observations.get(&threshold.signal) else {
                continue;
            };
            if is_crossed(threshold, *seen, self.met.contains(&place)) {
                let since = self.crossed.get(&place).copied().unwrap_or(now);
                crossed.insert(place, since);
                self.held.insert(threshold.signal.condition(), now);
            }
        }
        self.crossed = crossed;
        let transition = self.transition;
        self.held
            .retain(|_, at| *at == now || now.saturating_duration_since(*at) < transition);
        let met = self.crossed.iter().filter(|(place, since)| {
            let grace = self.thresholds[**place].grace.unwrap_or_default();
            now.saturating_duration_since(**since) >= grace
        });
        self.met = met.map(|(place, _)| *place).collect();
        let first = self.met.first();
        Finding {
            conditions: self.held.keys().copied().collect(),
            reclaim: first.map(|place| self.thresholds[*place].clone()),
        }
    }

    /// Whether so much is available that nothing more has to go.
    pub(super) fn is_relieved(&self, observations: &Observations) -> bool {
        !self.thresholds.iter().any(|threshold| {
            let seen = observations.get(&threshold.signal);
            seen.is_some_and(|seen| is_crossed(threshold, *seen, true))
        })
    }
}

fn is_crossed(threshold: &Threshold, seen: Observation, was_met: bool) -> bool {
    let more = threshold.minimum_reclaim.as_ref().filter(|_| was_met);
    let more = more.map_or(0, |more| more.of(seen.capacity));
    seen.available < threshold.below.of(seen.capacity).saturating_add(more)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::signals::Signal;
    use super::super::thresholds::{parse_amounts, parse_periods, parse_thresholds};
    use super::*;

    fn seen(available: u64) -> Observations {
        let observation = Observation {
            available,
            capacity: 1000,
        };
        [(Signal::MemoryAvailable, observation)].into()
    }

    #[test]
    fn thresholds_are_met_after_their_grace_and_left_after_their_reclaim() {
        let policy = EvictionPolicy {
            hard: parse_thresholds("memory.available<100").unwrap(),
            soft: parse_thresholds("memory.available<20%").unwrap(),
            soft_grace: parse_periods("memory.available=30s").unwrap(),
            minimum_reclaim: parse_amounts("memory.available=50").unwrap(),
            transition: Duration::from_secs(60),
            ..EvictionPolicy::default()
        };
        let began = Instant::now();
        let mut pressure = Pressure::new(&policy);
        // At which second, what is available, whether there is pressure, and what is to be done.
        for (second, available, holds, reclaims) in [
            (0, 200, false, None),
            (10, 199, true, None),
            (20, 300, true, None),
            (69, 300, true, None),
            (70, 300, false, None),
            (80, 150, true, None),
            (109, 150, true, None),
            (110, 150, true, Some("soft")),
            // What was met is over when more than that is there.
            (120, 240, true, Some("soft")),
            (130, 250, true, None),
            (140, 240, true, None),
            (150, 99, true, Some("hard")),
            (160, 149, true, Some("hard")),
            (170, 150, true, None),
            (180, 150, true, Some("soft")),
            (190, 250, true, None),
            (240, 250, false, None),
        ] {
            let finding = pressure.look(&seen(available), began + Duration::from_secs(second));
            let held: Vec<_> = finding.conditions.into_iter().collect();
            assert_eq!(held == [Condition::MemoryPressure], holds, "at {second}");
            let kind = finding.reclaim.map(|threshold| match threshold.grace {
                Some(_) => "soft",
                None => "hard",
            });
            assert_eq!(kind, reclaims, "at {second}");
            assert_eq!(pressure.is_relieved(&seen(available)), available >= 250);
        }
    }

    #[test]
    fn memory_is_met_before_disks() {
        let policy = EvictionPolicy {
            hard: parse_thresholds("pid.available<9,nodefs.available<9,memory.available<9")
                .unwrap(),
            ..EvictionPolicy::default()
        };
        let none = Observation {
            available: 0,
            capacity: 1000,
        };
        let mut all: Observations = Signal::ALL.map(|signal| (signal, none)).into();
        let now = Instant::now();
        let mut pressure = Pressure::new(&policy);
        let finding = pressure.look(&all, now);
        assert_eq!(finding.conditions.len(), 3);
        assert_eq!(finding.reclaim.unwrap().signal, Signal::MemoryAvailable);
        all.remove(&Signal::MemoryAvailable);
        let finding = pressure.look(&all, now);
        assert_eq!(finding.reclaim.unwrap().signal, Signal::NodeFsAvailable);
    }
}
