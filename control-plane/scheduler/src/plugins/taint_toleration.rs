//! TaintToleration: no node whose taints the Pod does not tolerate, and rather one without
//! taints that only ask to be avoided.

use coracle_apimachinery::taints::{PREFER_NO_SCHEDULE, any_tolerates, first_untolerated};
use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{ClusterEvent, Filter, Plugin, Score, Verdict, scale};

pub(crate) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::NodeAdded | ClusterEvent::NodeTaintsChanged
        )
    }
}

impl Filter for TaintToleration {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict {
        let hard = |effect: &str| effect != PREFER_NO_SCHEDULE;
        match first_untolerated(taints(node), tolerations(pod), hard) {
            None => Verdict::Fits,
            Some(Taint { key, value, .. }) => {
                let value = value.as_deref().unwrap_or_default();
                Verdict::Unresolvable(format!("node(s) had untolerated taint {{{key}: {value}}}"))
            }
        }
    }
}

impl Score for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, _nodes: &[&NodeInfo]) -> i64 {
        let soft = taints(node)
            .iter()
            .filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
        let untolerated = soft.filter(|taint| !any_tolerates(tolerations(pod), taint));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
}

fn taints(node: &NodeInfo) -> &[Taint] {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    spec.and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
}

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    let spec = pod.pod.spec.as_ref();
    spec.and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, node_info, pod_info};
    use serde_json::json;

    #[test]
    fn taints_keep_away() {
        let tainted = |effect: &str| {
            let taint = json!({"key": "gpu", "value": "yes", "effect": effect});
            node_info(node("n", json!({"spec": {"taints": [taint]}})), &[])
        };
        let plain = pod_info("p", json!({}));
        let tolerant = pod_info(
            "p",
            json!({"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}),
        );
        let no = Verdict::Unresolvable("node(s) had untolerated taint {gpu: yes}".into());
        assert_eq!(TaintToleration.filter(&plain, &tainted("NoSchedule")), no);
        assert_eq!(TaintToleration.filter(&plain, &tainted("NoExecute")), no);
        assert_eq!(
            TaintToleration.filter(&tolerant, &tainted("NoSchedule")),
            Verdict::Fits
        );
        let soft = tainted("PreferNoSchedule");
        assert_eq!(TaintToleration.filter(&plain, &soft), Verdict::Fits);
        let mut scores = [&plain, &tolerant].map(|pod| TaintToleration.score(pod, &soft, &[]));
        TaintToleration.normalize(&mut scores);
        assert_eq!(scores, [0, 100]);
    }
}
