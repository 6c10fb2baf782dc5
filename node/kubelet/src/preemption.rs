//! Which Pods go for a critical one that the node has no room for; pure.
//!
//! Source of the rules: the kubelet's admission of critical Pods (`pkg/kubelet/preemption`). As few go
//! as will do, and those of a better quality of service for what the others cannot give alone.

use std::cmp::Ordering;

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{self, CPU, MEMORY, Qos, ResourceList};

/// A Pod that may have to go.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) uid: String,
    pub(crate) qos: Qos,
    /// What it leaves.
    pub(crate) requests: ResourceList,
}

/// Who goes so that so much more is there; none where all of them together do not have it.
pub(crate) fn victims(needs: &ResourceList, candidates: &[Candidate]) -> Option<Vec<String>> {
    let of = |qos: Qos| -> Vec<&Candidate> {
        let same = candidates.iter().filter(|of| of.qos == qos);
        same.collect()
    };
    let (none, some, all) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let without = |a: &[&Candidate], b: &[&Candidate]| left(needs, a.iter().chain(b).copied());
    let all = pick(without(&none, &some), all)?;
    let some = pick(without(&none, &all), some)?;
    let none = pick(without(&some, &all), none)?;
    let gone = [none, some, all].concat();
    Some(gone.into_iter().map(|of| of.uid.clone()).collect())
}

/// What is still needed when those have gone.
fn left<'a>(needs: &ResourceList, gone: impl IntoIterator<Item = &'a Candidate>) -> ResourceList {
    let mut given = ResourceList::new();
    for of in gone {
        resources::add(&mut given, &of.requests);
    }
    let mut left = needs.clone();
    for (name, amount) in &mut left {
        if let Some(given) = given.get(name) {
            amount.sub(given);
        }
    }
    left.retain(|_, amount| *amount > Quantity::ZERO);
    left
}

/// Takes those out of the pool that give most of what is needed, the smallest of equals, until it is
/// there.
fn pick(mut needs: ResourceList, mut pool: Vec<&Candidate>) -> Option<Vec<&Candidate>> {
    let mut picked = Vec::new();
    while !needs.is_empty() {
        let places = 0..pool.len();
        let best = places.min_by(|a, b| order(&needs, pool[*a], pool[*b]))?;
        let best = pool.swap_remove(best);
        needs = left(&needs, [best]);
        picked.push(best);
    }
    Some(picked)
}

fn order(needs: &ResourceList, a: &Candidate, b: &Candidate) -> Ordering {
    let of = |candidate: &Candidate, name: &str| {
        let asked = candidate.requests.get(name);
        asked.copied().unwrap_or_default()
    };
    distance(needs, a)
        .total_cmp(&distance(needs, b))
        .then_with(|| of(a, MEMORY).cmp(&of(b, MEMORY)))
        .then_with(|| of(a, CPU).cmp(&of(b, CPU)))
        .then_with(|| a.uid.cmp(&b.uid))
}

/// How far what a Pod leaves is from what is needed, each resource weighing the same.
fn distance(needs: &ResourceList, candidate: &Candidate) -> f64 {
    let missing = needs.iter().map(|(name, need)| {
        let given = candidate.requests.get(name).map_or(0.0, Quantity::as_f64);
        let share = (need.as_f64() - given) / need.as_f64();
        share.max(0.0).powi(2)
    });
    missing.sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list(text: &str) -> ResourceList {
        let pairs = text.split_whitespace().map(|pair| {
            let (name, amount) = pair.split_once('=').unwrap();
            (name.to_owned(), amount.parse().unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn as_few_go_as_will_do() {
        type Row = (
            &'static str,
            &'static [(&'static str, Qos, &'static str)],
            Option<&'static [&'static str]>,
        );
        use Qos::{BestEffort, Burstable, Guaranteed};

        let table: &[Row] = &[
            ("", &[("a", Burstable, "cpu=1")], Some(&[])),
            ("cpu=1", &[], None),
            ("cpu=2", &[("a", Burstable, "cpu=1")], None),
            // Who gives all of it goes alone, the smallest of them.
            (
                "cpu=1",
                &[
                    ("small", Burstable, "cpu=500m"),
                    ("fits", Burstable, "cpu=1"),
                    ("large", Burstable, "cpu=1 memory=1Gi"),
                ],
                Some(&["fits"]),
            ),
            (
                "cpu=1 pods=1",
                &[
                    ("a", Burstable, "cpu=600m pods=1"),
                    ("b", Burstable, "cpu=500m pods=1"),
                    ("c", Burstable, "cpu=100m pods=1"),
                ],
                Some(&["a", "b"]),
            ),
            // The better ones stay if the others have enough.
            (
                "cpu=1",
                &[
                    ("better", Guaranteed, "cpu=1"),
                    ("one", Burstable, "cpu=500m"),
                    ("two", Burstable, "cpu=500m"),
                ],
                Some(&["one", "two"]),
            ),
            (
                "cpu=1",
                &[
                    ("better", Guaranteed, "cpu=1"),
                    ("one", Burstable, "cpu=500m"),
                ],
                Some(&["better"]),
            ),
            (
                "pods=1",
                &[
                    ("asks", Burstable, "cpu=1 pods=1"),
                    ("asks-nothing", BestEffort, "pods=1"),
                ],
                Some(&["asks-nothing"]),
            ),
        ];
        for (needs, candidates, expected) in table {
            let candidates: Vec<Candidate> = candidates
                .iter()
                .map(|(uid, qos, requests)| Candidate {
                    uid: (*uid).to_owned(),
                    qos: *qos,
                    requests: list(requests),
                })
                .collect();
            let found = victims(&list(needs), &candidates);
            let expected = expected.map(|uids| uids.iter().map(|uid| (*uid).to_owned()).collect());
            assert_eq!(found, expected, "{needs}");
        }
    }
}
