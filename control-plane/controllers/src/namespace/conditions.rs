//! What still stands in the way of a Namespace's end, as its conditions say it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is left in a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Remains {
    /// Why the resources could not be found out.
    pub(super) undiscovered: Option<String>,
    /// What could not be deleted, and why.
    pub(super) failed: Vec<String>,
    /// Objects by resource.
    objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Remains {
    /// Counts one object.
    pub(super) fn count(&mut self, resource: &str, finalizers: &[String]) {
        *self.objects.entry(resource.to_owned()).or_default() += 1;
        for finalizer in finalizers {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.undiscovered.is_none() && self.failed.is_empty() && self.objects.is_empty()
    }

    fn facts(
        &self,
    ) -> [(
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        Option<String>,
    ); 4] {
        let listed = |counts: &BTreeMap<String, usize>, joint: &str| {
            let counts = counts
                .iter()
                .map(|(what, n)| format!("{what}{joint} {n} resource instances"));
            let counts: Vec<_> = counts.collect();
            (!counts.is_empty()).then(|| counts.join(", "))
        };
        let failed = (!self.failed.is_empty()).then(|| {
            let all = self.failed.join("; ");
            format!(
                "Failed to delete all resource types, {} remaining: {all}",
                self.failed.len()
            )
        });
        let content = listed(&self.objects, ". has")
            .map(|list| format!("Some resources are remaining: {list}"));
        let finalizers = listed(&self.finalizers, " in")
            .map(|list| format!("Some content in the namespace has finalizers remaining: {list}"));
        [
            (
                "NamespaceDeletionDiscoveryFailure",
                "DiscoveryFailed",
                "ResourcesDiscovered",
                "All resources successfully discovered",
                self.undiscovered.clone(),
            ),
            (
                "NamespaceDeletionContentFailure",
                "ContentDeletionFailed",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
                failed,
            ),
            (
                "NamespaceContentRemaining",
                "SomeResourcesRemain",
                "ContentRemoved",
                "All content successfully removed",
                content,
            ),
            (
                "NamespaceFinalizersRemaining",
                "SomeFinalizersRemain",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
                finalizers,
            ),
        ]
    }
}

/// The conditions that say so; each keeps its time while its status stays.
pub(super) fn conditions(
    old: &[NamespaceCondition],
    remains: &Remains,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let facts = remains.facts();
    let foreign = |c: &&NamespaceCondition| !facts.iter().any(|(kind, ..)| c.type_ == *kind);
    let mut conditions: Vec<_> = old.iter().filter(foreign).cloned().collect();
    for (kind, bad, good, fine, problem) in facts {
        let status = if problem.is_some() { "True" } else { "False" };
        let reason = if problem.is_some() { bad } else { good };
        let same = old.iter().find(|c| c.type_ == kind && c.status == status);
        let since = same.and_then(|c| c.last_transition_time.clone());
        conditions.push(NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(problem.unwrap_or_else(|| fine.to_owned())),
            last_transition_time: since.or(Some(Time(now))),
        });
    }
    conditions
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(conditions: &[NamespaceCondition], kind: &str) -> (String, String) {
        let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
        (found.status.clone(), found.message.clone().unwrap())
    }

    #[test]
    fn what_remains_is_said() {
        let mut remains = Remains::default();
        assert!(remains.is_empty());
        let clean = conditions(&[], &remains, Timestamp::UNIX_EPOCH);
        assert!(clean.iter().all(|c| c.status == "False"));

        remains.count("pods", &["example.com/hold".to_owned()]);
        remains.count("pods", &[]);
        assert!(!remains.is_empty());
        let later = Timestamp::from_second(60).unwrap();
        let dirty = conditions(&clean, &remains, later);
        let content = "Some resources are remaining: pods. has 2 resource instances";
        assert_eq!(
            said(&dirty, "NamespaceContentRemaining"),
            ("True".into(), content.into())
        );
        let finalizers = "Some content in the namespace has finalizers remaining: \
            example.com/hold in 1 resource instances";
        assert_eq!(
            said(&dirty, "NamespaceFinalizersRemaining"),
            ("True".into(), finalizers.into())
        );
        let discovered = dirty
            .iter()
            .find(|c| c.type_ == "NamespaceDeletionDiscoveryFailure")
            .unwrap();
        assert_eq!(
            discovered.last_transition_time,
            Some(Time(Timestamp::UNIX_EPOCH))
        );
        assert_eq!(
            conditions(&dirty, &remains, later),
            dirty,
            "nothing new to write"
        );
    }
}
