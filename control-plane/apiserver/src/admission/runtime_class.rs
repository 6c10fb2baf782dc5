//! RuntimeClass: the class that a Pod names exists; its overhead and its constraints on nodes
//! become the Pod's.

use std::collections::BTreeSet;

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::api::node::v1::{RuntimeClass as Class, Scheduling};

use super::{Admission, Review, pod};
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::validation::items;

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
                let cause = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                return Err(review.forbidden(&pod_name, cause));
            }
            return Ok(());
        };
        let Some(class) = registry.find::<Class>("", &name).await? else {
            let cause = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(review.forbidden(&pod_name, cause));
        };
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
        if selector.get(&key).is_some_and(|given| *given != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}"
            ));
        }
        selector.insert(key, value);
    }
    let missing = missing(items(&scheduling.tolerations), items(&spec.tolerations));
    if !missing.is_empty() {
        spec.tolerations.get_or_insert_default().extend(missing);
    }
    Ok(())
}

/// The tolerations of a class that a Pod has not, each once.
fn missing<'a>(wanted: &'a [Toleration], given: &'a [Toleration]) -> Vec<Toleration> {
    let what = |one: &'a Toleration| {
        let seconds = one.toleration_seconds;
        (&one.key, &one.operator, &one.effect, &one.value, seconds)
    };
    let mut seen: BTreeSet<_> = given.iter().map(what).collect();
    let mut missing = Vec::new();
    for toleration in wanted {
        if seen.insert(what(toleration)) {
            missing.push(toleration.clone());
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::testing::many;

    fn tolerations(make: impl Fn(String) -> String) -> Vec<Toleration> {
        many(|name| Toleration {
            key: Some(make(name)),
            ..Toleration::default()
        })
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
