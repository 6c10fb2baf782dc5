//! Who ends when the machine does, and within which time; pure.
//!
//! Source of the rules: KEP-2000 and KEP-2712 (graceful node shutdown, based on Pods' priorities).

use std::collections::BTreeMap;
use std::time::Duration;

/// Priority from which a Pod is critical to the cluster.
const CRITICAL: i32 = 2_000_000_000;

/// How long Pods may take to end when the machine does (`KubeletConfiguration`). All zero: they are
/// not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownPolicy {
    /// All of them.
    pub grace: Duration,
    /// Of that, the critical ones, which end after all others.
    pub critical: Duration,
    /// Those of at least that priority, and of less than the next; instead of the two above.
    pub by_priority: BTreeMap<i32, Duration>,
}

impl ShutdownPolicy {
    /// Whether it is one.
    ///
    /// # Errors
    /// What contradicts itself, for people.
    pub fn check(&self) -> Result<(), String> {
        let plain = !self.grace.is_zero() || !self.critical.is_zero();
        if plain && !self.by_priority.is_empty() {
            return Err("shutdown-grace-period-by-pod-priority goes without \
                shutdown-grace-period and shutdown-grace-period-critical-pods"
                .to_owned());
        }
        if self.critical > self.grace {
            return Err(
                "shutdown-grace-period-critical-pods must be <= shutdown-grace-period".to_owned(),
            );
        }
        let all = [self.grace, self.critical].into_iter();
        let short = |period: &Duration| !period.is_zero() && *period < Duration::from_secs(1);
        if all
            .chain(self.by_priority.values().copied())
            .any(|period| short(&period))
        {
            return Err(
                "a shutdown grace period must be either zero or at least a second".to_owned(),
            );
        }
        Ok(())
    }

    /// How long from which priority on.
    fn periods(&self) -> BTreeMap<i32, Duration> {
        if !self.by_priority.is_empty() {
            return self.by_priority.clone();
        }
        if self.grace.is_zero() {
            return BTreeMap::new();
        }
        [
            (0, self.grace.saturating_sub(self.critical)),
            (CRITICAL, self.critical),
        ]
        .into()
    }

    /// How long the machine has to wait; none if nothing is to be done.
    pub(crate) fn total(&self) -> Option<Duration> {
        let total: Duration = self.periods().values().sum();
        (!total.is_zero()).then_some(total)
    }
}

/// A Pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) uid: String,
    pub(super) priority: i32,
    /// What the Pod itself allows.
    pub(super) grace: Duration,
}

/// Pods that end at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) within: Duration,
    /// UIDs with what each gets.
    pub(super) pods: Vec<(String, Duration)>,
}

/// The groups in the order in which they end: those of low priority first. Who is below the lowest
/// priority that is named belongs to it.
pub(super) fn groups(policy: &ShutdownPolicy, pods: Vec<Candidate>) -> Vec<Group> {
    let periods: Vec<(i32, Duration)> = policy.periods().into_iter().collect();
    let mut groups: Vec<Group> = periods
        .iter()
        .map(|(_, within)| Group {
            within: *within,
            pods: Vec::new(),
        })
        .collect();
    for pod in pods {
        let above = periods.partition_point(|(from, _)| *from <= pod.priority);
        if let Some(group) = groups.get_mut(above.saturating_sub(1)) {
            group.pods.push((pod.uid, pod.grace.min(group.within)));
        }
    }
    groups.retain(|group| !group.pods.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plain(grace: u64, critical: u64) -> ShutdownPolicy {
        ShutdownPolicy {
            grace: seconds(grace),
            critical: seconds(critical),
            ..ShutdownPolicy::default()
        }
    }

    fn by_priority(periods: &[(i32, u64)]) -> ShutdownPolicy {
        let periods = periods.iter().map(|(from, of)| (*from, seconds(*of)));
        ShutdownPolicy {
            by_priority: periods.collect(),
            ..ShutdownPolicy::default()
        }
    }

    #[test]
    fn low_priorities_end_first_and_nobody_gets_more_than_his_group() {
        // Priorities and graces of Pods, who are named after their place.
        type Pods = &'static [(i32, u64)];
        type Groups = &'static [(u64, &'static [(&'static str, u64)])];
        let cases: [(ShutdownPolicy, Pods, Groups); 7] = [
            (plain(0, 0), &[(0, 30)], &[]),
            (plain(30, 10), &[], &[]),
            (
                plain(30, 10),
                &[
                    (0, 30),
                    (2_000_000_000, 30),
                    (5, 3),
                    (-5, 30),
                    (2_000_001_000, 0),
                ],
                &[
                    (20, &[("0", 20), ("2", 3), ("3", 20)]),
                    (10, &[("1", 10), ("4", 0)]),
                ],
            ),
            // A group without Pods is not waited for.
            (plain(30, 10), &[(2_000_000_000, 5)], &[(10, &[("0", 5)])]),
            (plain(30, 30), &[(0, 5)], &[(0, &[("0", 0)])]),
            (
                by_priority(&[(100, 10), (0, 60), (1000, 5)]),
                &[
                    (100, 30),
                    (99, 30),
                    (-1, 90),
                    (5000, 30),
                    (1000, 2),
                    (101, 30),
                ],
                &[
                    (60, &[("1", 30), ("2", 60)]),
                    (10, &[("0", 10), ("5", 10)]),
                    (5, &[("3", 5), ("4", 2)]),
                ],
            ),
            (by_priority(&[(100, 10)]), &[(0, 30)], &[(10, &[("0", 10)])]),
        ];
        for (policy, pods, expected) in cases {
            let pods = pods
                .iter()
                .enumerate()
                .map(|(place, (priority, grace))| Candidate {
                    uid: place.to_string(),
                    priority: *priority,
                    grace: seconds(*grace),
                });
            let expected: Vec<Group> = expected
                .iter()
                .map(|(within, pods)| Group {
                    within: seconds(*within),
                    pods: pods
                        .iter()
                        .map(|(uid, of)| ((*uid).to_owned(), seconds(*of)))
                        .collect(),
                })
                .collect();
            assert_eq!(groups(&policy, pods.collect()), expected, "{policy:?}");
        }
    }

    #[test]
    fn policies_are_checked() {
        assert_eq!(plain(0, 0).total(), None);
        assert_eq!(plain(30, 10).total(), Some(seconds(30)));
        assert_eq!(by_priority(&[(0, 5), (9, 6)]).total(), Some(seconds(11)));
        assert!(plain(30, 10).check().is_ok() && by_priority(&[(0, 5)]).check().is_ok());
        let mut both = by_priority(&[(0, 5)]);
        both.grace = seconds(1);
        let short = ShutdownPolicy {
            grace: Duration::from_millis(500),
            ..ShutdownPolicy::default()
        };
        for (policy, said) in [
            (plain(10, 30), "must be <="),
            (both, "goes without"),
            (short, "at least a second"),
        ] {
            assert!(
                policy.check().is_err_and(|error| error.contains(said)),
                "{policy:?}"
            );
        }
    }
}
