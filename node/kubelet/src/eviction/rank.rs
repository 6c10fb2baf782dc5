//! Which Pod goes first, and what is said of it; pure.
//!
//! Source of the rules: "Pod selection for kubelet eviction" of the Kubernetes documentation: those
//! that use more than they asked for, then those of lower priority, then those that use most beyond
//! what they asked for. Of equals the name decides, so that the order is total.

use std::cmp::Ordering;
use std::fmt::Write;

use coracle_apimachinery::quantity::Quantity;

/// A Pod that may be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) uid: String,
    pub(super) priority: i32,
    /// What it asked for of what is short.
    pub(super) request: u64,
    /// What it uses; none if that is not known, which is suspicious.
    pub(super) used: Option<u64>,
}

impl Candidate {
    fn exceeds(&self) -> bool {
        self.used.is_none_or(|used| used > self.request)
    }

    fn beyond(&self) -> i128 {
        match self.used {
            Some(used) => i128::from(used) - i128::from(self.request),
            None => i128::MAX,
        }
    }
}

/// Whether `a` goes before `b`.
pub(super) fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.exceeds()
        .cmp(&a.exceeds())
        .then(a.priority.cmp(&b.priority))
        .then(b.beyond().cmp(&a.beyond()))
        .then_with(|| a.uid.cmp(&b.uid))
}

/// What a container uses of what is short, and what it asked for.
pub(super) struct Consumption {
    pub(super) container: String,
    pub(super) used: u64,
    pub(super) request: Quantity,
}

/// Why a Pod goes, in the kubelet's words.
pub(super) fn message(
    resource: &str,
    threshold: &Quantity,
    available: u64,
    containers: &[Consumption],
) -> String {
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {}. ",
        binary(available)
    );
    for of in containers.iter().filter(|of| binary(of.used) > of.request) {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
            of.container,
            binary(of.used),
            of.request
        );
    }
    text
}

fn binary(amount: u64) -> Quantity {
    Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(uid: &str, priority: i32, request: u64, used: Option<u64>) -> Candidate {
        Candidate {
            uid: uid.to_owned(),
            priority,
            request,
            used,
        }
    }

    #[test]
    fn who_uses_more_than_was_asked_for_goes_first() {
        let mut all = [
            candidate("within, low", -5, 100, Some(90)),
            candidate("beyond, high", 1000, 0, Some(500)),
            candidate("beyond, low", 0, 100, Some(110)),
            candidate("far beyond, low", 0, 0, Some(60)),
            candidate("unknown, low", 0, 0, None),
            candidate("within, lower", -9, 100, Some(1)),
            candidate("within, most", -5, 100, Some(95)),
        ];
        all.sort_by(order);
        let order: Vec<&str> = all.iter().map(|of| &*of.uid).collect();
        let expected = [
            "unknown, low",
            "far beyond, low",
            "beyond, low",
            "beyond, high",
            "within, lower",
            "within, most",
            "within, low",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_message_names_who_uses_more_than_was_asked_for() {
        let of = |container: &str, used, request| Consumption {
            container: container.to_owned(),
            used,
            request,
        };
        let two = Quantity::from_bytes(2 << 20);
        let all = [of("a", 12 << 20, Quantity::ZERO), of("b", 1 << 20, two)];
        assert_eq!(
            message("memory", &Quantity::from_bytes(100 << 20), 51_200, &all),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Ki. \
             Container a was using 12Mi, request is 0, has larger consumption of memory. "
        );
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let used = prop_oneof![Just(None), (0..4_u64).prop_map(Some), Just(Some(u64::MAX))];
        let request = prop_oneof![0..4_u64, Just(u64::MAX)];
        let parts = ("[a-c]", -2..3_i32, request, used);
        parts.prop_map(|(uid, priority, request, used)| candidate(&uid, priority, request, used))
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in any_candidate(), b in any_candidate(), c in any_candidate()) {
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            if order(&a, &b) != Ordering::Greater && order(&b, &c) != Ordering::Greater {
                prop_assert_ne!(order(&a, &c), Ordering::Greater);
            }
            if order(&a, &b) == Ordering::Equal {
                prop_assert_eq!(&a.uid, &b.uid);
                prop_assert_eq!(a.priority, b.priority);
            }
        }
    }
}
