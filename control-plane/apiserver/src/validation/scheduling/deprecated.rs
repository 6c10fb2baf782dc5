//! Labels of nodes that nobody sets any more.

use coracle_apimachinery::field::Path;
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::NodeSelectorTerm;

use crate::validation::items;

/// They, and what is said of them.
const LABELS: &[(&str, &str)] = &[
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

/// What is said of a label of nodes, if it is deprecated.
pub(crate) fn deprecated_label(label: &str) -> Option<&'static str> {
    let (_, message) = LABELS.iter().find(|(old, _)| *old == label)?;
    Some(message)
}

/// Warnings about a term that selects nodes; also about values that no label can have, where
/// `values` are looked at.
pub(crate) fn term_warnings(
    term: &NodeSelectorTerm,
    values: bool,
    at: &Path,
    warnings: &mut Vec<String>,
) {
    for (i, expression) in items(&term.match_expressions).iter().enumerate() {
        let at = at.child("matchExpressions").index(i);
        let key = expression.key.as_str();
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{}: {key} is {message}", at.child("key")));
        }
        let looked_at = items(&expression.values).iter().filter(|_| values);
        for (j, value) in looked_at.enumerate() {
            let at = at.child("values").index(j);
            let faults = names::label_value(value).into_iter();
            warnings.extend(faults.map(|fault| format!("{at}: {value} is invalid, {fault}")));
        }
    }
}
