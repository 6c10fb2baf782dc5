//! RuntimeClass: the class that a Pod names exists; its overhead and its constraints on nodes
//! become the Pod's.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::api::node::v1::{RuntimeClass as Class, Scheduling};

use super::{Admission, Review, pod};
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::validation::text;

const NO_OVERHEAD: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

pub(super) struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if !review.creates_pod() {
            return Ok(());
        }
        let Some(pod) = pod(object) else {
            return Ok(());
        };
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let Some(spec) = pod.spec.as_mut() else {
            return Ok(());
        };
        let Some(name) = spec.runtime_class_name.clone() else {
            if spec
                .overhead
                .as_ref()
                .is_some_and(|overhead| !overhead.is_empty())
            {
                return Err(review.forbidden(&pod_name, NO_OVERHEAD));
            }
            return Ok(());
        };
        let Some(class) = registry.find::<Class>("", &name).await? else {
            let cause = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(review.forbidden(&pod_name, cause));
        };
        if spec.overhead.is_some() && class.overhead.is_none() {
            return Err(review.forbidden(&pod_name, NO_OVERHEAD));
        }
        let overhead = class.overhead.and_then(|overhead| overhead.pod_fixed);
        if spec.overhead.is_some() && spec.overhead != overhead {
            let cause =
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(review.forbidden(&pod_name, cause));
        }
        spec.overhead = overhead;
        if let Some(scheduling) = class.scheduling {
            constrain(spec, scheduling).map_err(|cause| review.forbidden(&pod_name, cause))?;
        }
        Ok(())
    }
}

fn constrain(spec: &mut PodSpec, scheduling: Scheduling) -> Result<(), String> {
    for (key, value) in scheduling.node_selector.unwrap_or_default() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(given) = selector.get(&key).filter(|given| **given != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
            ));
        }
        selector.insert(key, value);
    }
    let mut tolerations = spec.tolerations.take().unwrap_or_default();
    tolerations.extend(scheduling.tolerations.unwrap_or_default());
    let merged = merge(&tolerations);
    spec.tolerations = (!merged.is_empty()).then_some(merged);
    Ok(())
}

/// The tolerations without those that another covers: `MergeTolerations` of Kubernetes. Of equal
/// ones the first stays.
fn merge(tolerations: &[Toleration]) -> Vec<Toleration> {
    let mut later = Cover::default();
    let covered = tolerations.iter().rev().map(|toleration| {
        let said = Said::of(toleration);
        let covered = later.covers(said);
        later.insert(said);
        covered
    });
    let covered: Vec<bool> = covered.collect();
    let (mut kept, mut cover, mut merged) = (BTreeSet::new(), Cover::default(), Vec::new());
    for (toleration, covered) in tolerations.iter().zip(covered.into_iter().rev()) {
        let said = Said::of(toleration);
        if !covered && !cover.covers(said) && kept.insert(said) {
            cover.insert(said);
            merged.push(toleration.clone());
        }
    }
    merged
}

/// What a toleration says: absent is as empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said<'a> {
    key: &'a str,
    operator: &'a str,
    value: &'a str,
    effect: &'a str,
    seconds: Option<i64>,
}

/// For how long a taint is tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Span {
    Seconds(i64),
    Always,
}

/// Which taints are tolerated: those of a key, an effect and a value, where `None` is any.
type Taints<'a> = (&'a str, &'a str, Option<&'a str>);

impl<'a> Said<'a> {
    fn of(toleration: &'a Toleration) -> Self {
        Self {
            key: text(&toleration.key),
            operator: text(&toleration.operator),
            value: text(&toleration.value),
            effect: text(&toleration.effect),
            seconds: toleration.toleration_seconds,
        }
    }

    /// The taints for which it covers other tolerations. One that compares numbers covers none.
    fn taints(self) -> Option<Taints<'a>> {
        let value = match self.operator {
            "" | "Equal" => Some(self.value),
            "Exists" => None,
            _ => return None,
        };
        Some((self.key, self.effect, value))
    }

    /// The taints of those that may cover it. No key and no effect stand for all.
    fn wider(self) -> impl Iterator<Item = Taints<'a>> {
        let Self { key, value, .. } = self;
        let equal = self.operator == "Equal";
        [self.effect, ""].into_iter().flat_map(move |effect| {
            let exist = [(key, effect, None), ("", effect, None)];
            let equal = equal.then_some((key, effect, Some(value)));
            exist.into_iter().chain(equal)
        })
    }

    fn span(self) -> Span {
        self.seconds.map_or(Span::Always, Span::Seconds)
    }

    /// For how long it covers others: seconds count where what runs is evicted.
    fn covered_span(self) -> Span {
        match self.effect {
            "NoExecute" => self.span(),
            _ => Span::Always,
        }
    }
}

/// Tolerations by what they cover, so that each is looked up and not compared with all.
#[derive(Default)]
struct Cover<'a>(BTreeMap<Taints<'a>, Longest<'a>>);

/// The one that covers for longest, and for how long the best of those does that are not equal to
/// it: none covers its equal.
struct Longest<'a> {
    first: Said<'a>,
    second: Option<Span>,
}

impl<'a> Cover<'a> {
    fn insert(&mut self, said: Said<'a>) {
        let Some(taints) = said.taints() else {
            return;
        };
        match self.0.entry(taints) {
            Entry::Vacant(entry) => {
                entry.insert(Longest {
                    first: said,
                    second: None,
                });
            }
            Entry::Occupied(entry) => {
                let longest = entry.into_mut();
                let (span, first) = (said.covered_span(), longest.first.covered_span());
                if span > first {
                    longest.first = said;
                    longest.second = Some(first);
                } else if said != longest.first {
                    longest.second = longest.second.max(Some(span));
                }
            }
        }
    }

    /// Whether one that is not its equal is its superset.
    fn covers(&self, said: Said<'a>) -> bool {
        let spans = said.wider().filter_map(|taints| {
            let longest = self.0.get(&taints)?;
            if longest.first == said {
                longest.second
            } else {
                Some(longest.first.covered_span())
            }
        });
        spans.max().is_some_and(|span| span >= said.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::items;
    use crate::validation::testing::many;

    fn tolerations(make: impl Fn(String) -> String) -> Vec<Toleration> {
        many(|name| Toleration {
            key: Some(make(name)),
            ..Toleration::default()
        })
    }

    fn toleration(
        key: &str,
        operator: &str,
        value: &str,
        effect: &str,
        seconds: Option<i64>,
    ) -> Toleration {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: seconds,
        }
    }

    /// `isSuperset` of Kubernetes.
    fn is_superset(wide: Said<'_>, narrow: Said<'_>) -> bool {
        if wide == narrow {
            return true;
        }
        if narrow.key != wide.key && !(wide.key.is_empty() && wide.operator == "Exists") {
            return false;
        }
        if narrow.effect != wide.effect && !wide.effect.is_empty() {
            return false;
        }
        if wide.effect == "NoExecute"
            && let Some(longest) = wide.seconds
            && narrow.seconds.is_none_or(|seconds| seconds > longest)
        {
            return false;
        }
        match wide.operator {
            "Equal" | "" => narrow.operator == "Equal" && narrow.value == wide.value,
            "Exists" => true,
            _ => false,
        }
    }

    /// What `MergeTolerations` of Kubernetes keeps, by comparing each with each.
    fn compared(all: &[Toleration]) -> Vec<Toleration> {
        let mut merged: Vec<Toleration> = Vec::new();
        for (i, one) in all.iter().enumerate() {
            let said = Said::of(one);
            let covers = |other: &Toleration| is_superset(Said::of(other), said);
            let follows = |other: &Toleration| Said::of(other) != said && covers(other);
            if !merged.iter().any(covers) && !all[i + 1..].iter().any(follows) {
                merged.push(one.clone());
            }
        }
        merged
    }

    #[test]
    fn the_widest_tolerations_stay() {
        let all = [
            toleration("", "Exists", "", "", None),
            toleration("", "Exists", "", "NoExecute", Some(9)),
            toleration("a", "Exists", "", "NoExecute", None),
            toleration("a", "Exists", "", "NoExecute", Some(5)),
            toleration("a", "Exists", "x", "NoExecute", Some(5)),
            toleration("a", "Equal", "v", "NoExecute", Some(5)),
            toleration("a", "Equal", "v", "NoExecute", Some(9)),
            toleration("a", "", "v", "NoExecute", Some(7)),
            toleration("a", "Equal", "v", "NoSchedule", Some(1)),
            toleration("a", "Equal", "v", "NoSchedule", Some(2)),
            toleration("a", "Equal", "v", "", None),
            toleration("a", "Lt", "3", "", None),
            toleration("b", "Equal", "v", "", None),
        ];
        let pick = |indexes: &[usize]| -> Vec<Toleration> {
            indexes.iter().map(|i| all[*i].clone()).collect()
        };
        let table: [(&[usize], &[usize]); 6] = [
            (&[12, 11, 5, 0], &[0]),
            (&[1, 2, 3], &[1, 2]),
            (&[5, 6, 5], &[6]),
            (&[7, 5], &[7]),
            (&[8, 9, 8], &[8]),
            (&[11, 10, 12, 11], &[11, 10, 12]),
        ];
        for (given, want) in table {
            assert_eq!(merge(&pick(given)), pick(want), "{given:?}");
        }
        let indexes = 0..all.len();
        for (i, j) in indexes.clone().flat_map(|i| (0..13).map(move |j| (i, j))) {
            for (k, l) in indexes.clone().flat_map(|k| (0..13).map(move |l| (k, l))) {
                let given = pick(&[i, j, k, l]);
                assert_eq!(merge(&given), compared(&given), "{i} {j} {k} {l}");
            }
        }
    }

    #[test]
    fn selectors_of_nodes_may_conflict() {
        let selector = |value: &str| BTreeMap::from([("disk".to_owned(), value.to_owned())]);
        let scheduling = || Scheduling {
            node_selector: Some(selector("ssd")),
            ..Scheduling::default()
        };
        let table = [
            (None, Ok(())),
            (Some(selector("ssd")), Ok(())),
            (
                Some(selector("hdd")),
                Err("conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd".to_owned()),
            ),
        ];
        for (node_selector, want) in table {
            let mut spec = PodSpec {
                node_selector,
                ..PodSpec::default()
            };
            assert_eq!(constrain(&mut spec, scheduling()), want);
        }
    }

    /// As many as a body can have: to look each up in a list would be minutes.
    #[test]
    fn tolerations_are_added_once() {
        let (known, others) = (tolerations(|name| name), tolerations(|name| name + "x"));
        let all: Vec<Toleration> = known.iter().chain(&others).cloned().collect();
        let one = tolerations(|_| "one".to_owned());
        let table = [
            (&one, None, &one[..1]),
            (&known, Some(&known), &known[..]),
            (&others, Some(&known), &all[..]),
        ];
        for (class, pod, want) in table {
            let mut spec = PodSpec {
                tolerations: pod.cloned(),
                ..PodSpec::default()
            };
            let scheduling = Scheduling {
                tolerations: Some(class.clone()),
                ..Scheduling::default()
            };
            assert!(constrain(&mut spec, scheduling).is_ok());
            assert!(items(&spec.tolerations) == want);
        }
        let mut spec = PodSpec::default();
        assert!(constrain(&mut spec, Scheduling::default()).is_ok());
        assert_eq!(spec, PodSpec::default());
    }
}
