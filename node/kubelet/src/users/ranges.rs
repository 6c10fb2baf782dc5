//! Which Pod has which range: data alone.

use std::collections::{BTreeMap, BTreeSet};

use coracle_runtime::IdRange;

/// The first ID that is given: beyond the users as whom guests run, and beyond all that systemd and
/// distributions document as given to somebody, as those are. A multiple of a range's length, as
/// KEP-127 wants it.
const FIRST: u32 = 30_519 * IdRange::LENGTH;
/// How many ranges there are: up to 2^31, which some tools take for the end of IDs.
const RANGES: u32 = (1 << 31) / IdRange::LENGTH - FIRST / IdRange::LENGTH;

/// The IDs that are for Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) first: u32,
    /// How many ranges there are from there on.
    pub(super) ranges: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            first: FIRST,
            ranges: RANGES,
        }
    }
}

/// Ranges by the UIDs of their Pods.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    pool: Pool,
    given: BTreeMap<String, IdRange>,
}

impl Ranges {
    /// None of these IDs is given.
    pub(super) fn of(pool: Pool) -> Self {
        let given = BTreeMap::new();
        Self { pool, given }
    }

    /// What a Pod has.
    pub(super) fn known(&self, uid: &str) -> Option<IdRange> {
        self.given.get(uid).copied()
    }

    /// Notes what a Pod has been given before.
    pub(super) fn note(&mut self, uid: &str, range: IdRange) {
        self.given.insert(uid.to_owned(), range);
    }

    /// Gives a Pod the lowest range that no other has, nor who has given those first IDs elsewhere; or the
    /// one that it has. None if all are taken.
    pub(super) fn give(&mut self, uid: &str, elsewhere: &BTreeSet<u32>) -> Option<IdRange> {
        if let Some(range) = self.known(uid) {
            return Some(range);
        }
        let taken: BTreeSet<u32> = self.given.values().map(|range| range.first).collect();
        let Pool { first, ranges } = self.pool;
        let mut all = (0..ranges).map(|index| first + index * IdRange::LENGTH);
        let first = all.find(|first| !taken.contains(first) && !elsewhere.contains(first))?;
        self.note(uid, IdRange { first });
        self.known(uid)
    }

    /// Takes back what a Pod has.
    pub(super) fn release(&mut self, uid: &str) {
        self.given.remove(uid);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(index: u32) -> IdRange {
        IdRange {
            first: FIRST + index * IdRange::LENGTH,
        }
    }

    #[test]
    fn ranges_lie_where_nobody_else_has_ids() {
        // Guests' users, see the binary's `GUEST_USERS`.
        const { assert!(FIRST >= 2_000_065_536) };
        assert_eq!(FIRST % IdRange::LENGTH, 0);
        let last = range(RANGES - 1);
        assert_eq!(last.of_machine(IdRange::LENGTH - 1), Some((1 << 31) - 1));
    }

    #[test]
    fn a_pod_has_the_lowest_that_is_free_until_it_gives_it_back() {
        let mut ranges = Ranges::default();
        ranges.note("earlier", range(1));
        for (uid, expected) in [("a", 0), ("b", 2), ("a", 0), ("earlier", 1)] {
            assert_eq!(
                ranges.give(uid, &BTreeSet::new()),
                Some(range(expected)),
                "{uid}"
            );
        }
        ranges.release("earlier");
        ranges.release("never there");
        assert_eq!(ranges.known("earlier"), None);
        assert_eq!(ranges.give("c", &BTreeSet::new()), Some(range(1)));
    }

    #[test]
    fn ranges_are_the_pools_and_nobody_elses() {
        let mut ranges = Ranges::of(Pool {
            first: 1 << 16,
            ranges: 3,
        });
        let elsewhere = BTreeSet::from([2 << 16]);
        let first = |range: Option<IdRange>| range.map(|range| range.first >> 16);
        assert_eq!(first(ranges.give("a", &elsewhere)), Some(1));
        assert_eq!(first(ranges.give("b", &elsewhere)), Some(3));
        assert_eq!(first(ranges.give("c", &elsewhere)), None);
    }

    #[test]
    fn there_is_an_end_of_them() {
        let mut ranges = Ranges::default();
        for index in 0..RANGES {
            ranges.note(&index.to_string(), range(index));
        }
        assert_eq!(ranges.give("one more", &BTreeSet::new()), None);
        ranges.release("7");
        assert_eq!(ranges.give("one more", &BTreeSet::new()), Some(range(7)));
    }

    proptest! {
        #[test]
        fn no_two_pods_share_an_id(steps in prop::collection::vec((0..12_u8, any::<bool>()), 0..200)) {
            let mut ranges = Ranges::default();
            let mut held: BTreeMap<String, IdRange> = BTreeMap::new();
            for (pod, gives) in steps {
                let uid = pod.to_string();
                if !gives {
                    ranges.release(&uid);
                    held.remove(&uid);
                    continue;
                }
                let given = ranges.give(&uid, &BTreeSet::new()).unwrap();
                prop_assert_eq!(*held.entry(uid.clone()).or_insert(given), given);
                let other = held.iter().find(|(of, range)| {
                    **of != uid && range.first.abs_diff(given.first) < IdRange::LENGTH
                });
                prop_assert_eq!(other, None);
            }
        }
    }
}
