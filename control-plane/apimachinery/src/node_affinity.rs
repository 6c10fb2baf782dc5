//! Which nodes a Pod chooses (`nodeSelector`, `nodeAffinity`). The scheduler goes by it, and the
//! kubelet again, for a Pod may be bound without the scheduler.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

/// Why a node cannot have a Pod, in the words of Kubernetes.
pub const MISMATCH: &str = "node(s) didn't match Pod's node affinity/selector";

/// What a choice goes by.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// What a Pod says of nodes beside its selector.
#[must_use]
pub fn affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether the Pod may be on the node, by its selector and its required affinity.
#[must_use]
pub fn fits(spec: &PodSpec, node: Chosen<'_>) -> bool {
    let mut wanted = spec.node_selector.iter().flatten();
    let selected = wanted.all(|(key, value)| node.labels.get(key) == Some(value));
    let required = affinity(spec).and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected
        && required.is_none_or(|required| {
            let mut terms = required.node_selector_terms.iter();
            terms.any(|term| chooses(term, node))
        })
}

/// Whether a term chooses a node; one without any requirement chooses none.
#[must_use]
pub fn chooses(term: &NodeSelectorTerm, node: Chosen<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions
        .iter()
        .all(|r| meets(r, node.labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| r.key == "metadata.name" && meets(r, Some(node.name)))
}

fn meets(requirement: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |actual: &str| values.iter().any(|value| value == actual);
    let compared = || {
        let bound: i64 = values.first()?.parse().ok()?;
        Some(actual?.parse::<i64>().ok()?.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => actual.is_some_and(listed),
        "NotIn" => !actual.is_some_and(listed),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compared() == Some(std::cmp::Ordering::Greater),
        "Lt" => compared() == Some(std::cmp::Ordering::Less),
        _ => false,
    }
}
