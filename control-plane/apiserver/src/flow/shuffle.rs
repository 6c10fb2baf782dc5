//! Shuffle sharding: each flow has a hand of queues of its own, so that a flow that fills its
//! queues rarely fills all of another's.

/// The queues of a flow: `hand` different ones of `queues`, decided by the hash alone.
pub(super) fn deal(mut hash: u64, queues: usize, hand: usize) -> Vec<usize> {
    let mut sorted: Vec<usize> = Vec::with_capacity(hand);
    let mut dealt = Vec::with_capacity(hand);
    for taken in 0..hand.min(queues) {
        let left = (queues - taken) as u64;
        // One of those that are left, counted without those that are dealt already.
        let mut card = usize::try_from(hash % left).unwrap_or_default();
        hash /= left;
        for other in &sorted {
            if *other <= card {
                card += 1;
            }
        }
        let at = sorted.partition_point(|other| *other < card);
        sorted.insert(at, card);
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_different_queues_and_is_always_the_same(
            hash: u64,
            queues in 1_usize..200,
            hand in 1_usize..10,
        ) {
            let dealt = deal(hash, queues, hand);
            prop_assert_eq!(&dealt, &deal(hash, queues, hand));
            let different: BTreeSet<_> = dealt.iter().copied().collect();
            prop_assert_eq!(different.len(), hand.min(queues));
            prop_assert!(different.iter().all(|queue| *queue < queues));
        }
    }

    #[test]
    fn all_hands_are_dealt() {
        // 4 × 3 hands of two out of four, in their order.
        let hands: BTreeSet<_> = (0..12).map(|hash| deal(hash, 4, 2)).collect();
        assert_eq!(hands.len(), 12);
    }
}
