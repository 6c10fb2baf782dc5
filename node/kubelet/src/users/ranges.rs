//! Which Pod has which range: data alone.

use std::collections::{BTreeMap, BTreeSet};

use coracle_runtime::IdRange;

/// The first ID that is given: beyond the users as whom guests run, and beyond all that systemd and
/// distributions document as given to somebody, as those are. A multiple of a range's length, as
/// KEP-127 wants it.
const FIRST: u32 = 30_519 * IdRange::LENGTH;
/// How many ranges there are: up to 2^31, which some tools take for the end of IDs.
pub(super) const RANGES: u32 = (1 << 31) / IdRange::LENGTH - FIRST / IdRange::LENGTH;

/// Ranges by the UIDs of their Pods.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<String, IdRange>);

impl Ranges {
    /// What a Pod has.
    pub(super) fn known(&self, uid: &str) -> Option<IdRange> {
        self.0.get(uid).copied()
    }

    /// Notes what a Pod has been given before.
    pub(super) fn note(&mut self, uid: &str, range: IdRange) {
        self.0.insert(uid.to_owned(), range);
    }

    /// Gives a Pod the lowest range that no other has, or the one that it has; none if all are taken.
    pub(super) fn give(&mut self, uid: &str) -> Option<IdRange> {
        if let Some(range) = self.known(uid) {
            return Some(range);
        }
        let taken: BTreeSet<u32> = self.0.values().map(|range| range.first).collect();
        let mut all = (0..RANGES).map(|index| FIRST + index * IdRange::LENGTH);
        let first = all.find(|first| !taken.contains(first))?;
        self.note(uid, IdRange { first });
        self.known(uid)
    }

    /// Takes back what a Pod has.
    pub(super) fn release(&mut self, uid: &str) {
        self.0.remove(uid);
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
            assert_eq!(ranges.give(uid), Some(range(expected)), "{uid}");
        }
        ranges.release("earlier");
        ranges.release("never there");
        assert_eq!(ranges.known("earlier"), None);
        assert_eq!(ranges.give("c"), Some(range(1)));
    }

    #[test]
    fn there_is_an_end_of_them() {
        let mut ranges = Ranges::default();
        for index in 0..RANGES {
            ranges.note(&index.to_string(), range(index));
        }
        assert_eq!(ranges.give("one more"), None);
        ranges.release("7");
        assert_eq!(ranges.give("one more"), Some(range(7)));
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
                let given = ranges.give(&uid).unwrap();
                prop_assert_eq!(*held.entry(uid.clone()).or_insert(given), given);
                let other = held.iter().find(|(of, range)| {
                    **of != uid && range.first.abs_diff(given.first) < IdRange::LENGTH
                });
                prop_assert_eq!(other, None);
            }
        }
    }
}
