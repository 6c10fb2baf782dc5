//! Whether a Pod may be on this node, by what it says of nodes: its operating system, how it has its
//! groups, which nodes it chooses and what it tolerates. The scheduler goes by the same; a Pod may be
//! bound without it.

use std::collections::BTreeMap;

use coracle_apimachinery::node_affinity::{Chosen, MISMATCH, fits};
use coracle_apimachinery::taints::{NO_EXECUTE, first_untolerated};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::Api;

use crate::node_context::NodeContext;
use crate::pod::{self, security};
use crate::status::Verdict;

const OS: &str = "linux";
/// What is said of a Pod that does not tolerate the node's taints.
const INTOLERANT: &str = "node(s) had taints that the pod didn't tolerate";
/// The label by which nodes, and some Pods, name their operating system.
const OS_LABEL: &str = "kubernetes.io/os";

/// Refuses a Pod that may not be here. Labels that the node has not given itself are read from the
/// API, and only where they matter.
pub(crate) async fn admit(
    node: &NodeContext,
    pod: &Pod,
) -> Result<Result<(), Verdict>, kube::Error> {
    let strict = node.router.strict_groups();
    if let Err(verdict) = check_os(pod).and_then(|()| check_groups(pod, strict)) {
        return Ok(Err(verdict));
    }
    let chosen = |labels: &BTreeMap<String, String>| {
        let name = &node.node_name;
        fits(pod::spec(pod), Chosen { name, labels })
    };
    // What a file of the node says is not to wait for the API.
    let told = match chosen(&node.labels) || pod::is_static(pod) {
        true => None,
        false => labels(node).await?,
    };
    if !chosen(told.as_ref().unwrap_or(&node.labels)) {
        return Ok(Err(failed("NodeAffinity", MISMATCH)));
    }
    Ok(check_taints(pod, &node.taints.borrow()))
}

/// Whether Pods may be on a node of those taints that are there already. What its administrator has put
/// there may.
fn check_taints(pod: &Pod, taints: &[Taint]) -> Result<(), Verdict> {
    let tolerations = pod::spec(pod).tolerations.as_deref().unwrap_or_default();
    let untolerated = first_untolerated(taints, tolerations, |effect| effect == NO_EXECUTE);
    match untolerated.filter(|_| !pod::is_static(pod)) {
        None => Ok(()),
        Some(_) => Err(failed("TaintToleration", INTOLERANT)),
    }
}

/// The node's labels as the API has them.
async fn labels(node: &NodeContext) -> Result<Option<BTreeMap<String, String>>, kube::Error> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let found = nodes.get_opt(&node.node_name).await?;
    Ok(found.and_then(|node| node.metadata.labels))
}

fn check_os(pod: &Pod) -> Result<(), Verdict> {
    let labels = pod.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(OS_LABEL));
    if label.is_some_and(|label| label != OS) {
        return Err(refusal(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ));
    }
    match &pod::spec(pod).os {
        Some(os) if os.name != OS => Err(refusal(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        )),
        _ => Ok(()),
    }
}

/// Whether those who run the Pod's containers can keep them to the groups that it names.
fn check_groups(pod: &Pod, can: bool) -> Result<(), Verdict> {
    match security::strict_groups(pod) && !can {
        false => Ok(()),
        true => Err(refusal(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        )),
    }
}

fn failed(predicate: &str, why: &str) -> Verdict {
    refusal(predicate, &format!("Predicate {predicate} failed: {why}"))
}

fn refusal(reason: &str, cause: &str) -> Verdict {
    Verdict {
        reason: reason.to_owned(),
        message: format!("Pod was rejected: {cause}"),
        disrupted: false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_refused_that_would_be_evicted_at_once() {
        let taint = |effect: &str| json!([{"key": "k", "effect": effect}]);
        let tolerant = json!([{"key": "k", "operator": "Exists"}]);
        for (taints, tolerations, source, fine) in [
            (json!([]), json!([]), "api", true),
            (taint("NoSchedule"), json!([]), "api", true),
            (taint("NoExecute"), json!([]), "api", false),
            (taint("NoExecute"), json!([]), "file", true),
            (taint("NoExecute"), tolerant, "api", true),
        ] {
            let annotations = json!({"kubernetes.io/config.source": source});
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"annotations": annotations},
                "spec": {"containers": [], "tolerations": tolerations},
            }))
            .unwrap();
            let given: Vec<Taint> = serde_json::from_value(taints.clone()).unwrap();
            let refused = check_taints(&pod, &given).err();
            assert_eq!(refused.is_none(), fine, "{taints} {source}");
            let reason = refused.map(|verdict| verdict.reason);
            assert!(reason.is_none_or(|reason| reason == "TaintToleration"));
        }
    }

    #[test]
    fn pods_of_strict_groups_are_refused_where_none_are() {
        for (policy, can, fine) in [
            (None, false, true),
            (Some("Merge"), false, true),
            (Some("Strict"), true, true),
            (Some("Strict"), false, false),
        ] {
            let context = json!({"supplementalGroupsPolicy": policy});
            let spec = json!({"containers": [], "securityContext": context});
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(check_groups(&pod, can).is_ok(), fine, "{policy:?} {can}");
        }
    }

    #[test]
    fn pods_of_other_systems_are_refused() {
        let label = |os: &str| json!({"labels": {"kubernetes.io/os": os}});
        for (metadata, os, refused) in [
            (json!({}), None, None),
            (label("linux"), Some("linux"), None),
            (json!({}), Some("windows"), Some("PodOSNotSupported")),
            (
                label("windows"),
                None,
                Some("PodOSSelectorNodeLabelDoesNotMatch"),
            ),
        ] {
            let os = os.map(|name| json!({"name": name}));
            let spec = json!({"containers": [], "os": os});
            let pod = json!({"metadata": metadata, "spec": spec});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let reason = check_os(&pod).err().map(|verdict| verdict.reason);
            assert_eq!(reason.as_deref(), refused, "{pod:?}");
        }
    }
}
