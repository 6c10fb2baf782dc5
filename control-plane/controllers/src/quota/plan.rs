//! What a quota's status should say.

use coracle_apimachinery::quantity::{Format, Quantity};
use coracle_apimachinery::quota::{
    claim_usage, counts_any, counts_claim, counts_pod, is_of_claims, is_of_pods, pod_usage,
    service_usage,
};
use coracle_apimachinery::resources::{ResourceList, add, parse, to_api};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service,
};

/// What there is in the quota's namespace.
pub(super) struct Observed<'a> {
    pub(super) quota: &'a ResourceQuota,
    pub(super) pods: &'a [&'a Pod],
    pub(super) claims: &'a [&'a PersistentVolumeClaim],
    pub(super) services: &'a [&'a Service],
    /// How many objects of another resource (`deployments.apps`) there are, where that is known.
    pub(super) count: &'a dyn Fn(&str) -> Option<i64>,
    pub(super) now: Timestamp,
    /// Whether nothing was charged to the quota for a while.
    pub(super) is_quiet: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The status should be this.
    Write(ResourceQuotaStatus),
    /// Something seems to be used no more, or is charged and not there yet: time will tell.
    Settle,
}

pub(super) fn plan(observed: &Observed) -> Option<Action> {
    let quota = observed.quota;
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let hard = parse(wanted);
    let status = quota.status.clone().unwrap_or_default();
    let shown = parse(status.used.as_ref());
    let used = used(observed, &hard, &shown);
    if used == shown && hard == parse(status.hard.as_ref()) {
        return None;
    }
    let shrinks = used
        .iter()
        .any(|(name, amount)| shown.get(name).is_some_and(|shown| amount < shown));
    if shrinks && !observed.is_quiet {
        return Some(Action::Settle);
    }
    Some(Action::Write(ResourceQuotaStatus {
        hard: wanted.cloned(),
        used: Some(to_api(&used)),
    }))
}

/// What is used of each resource that the quota limits and somebody can count.
fn used(observed: &Observed, hard: &ResourceList, shown: &ResourceList) -> ResourceList {
    let quota = observed.quota;
    let mut sum = ResourceList::new();
    let counted = observed.pods.iter().filter(|pod| counts_pod(quota, pod));
    counted.for_each(|pod| add(&mut sum, &pod_usage(pod, observed.now)));
    let counted = observed
        .claims
        .iter()
        .filter(|claim| counts_claim(quota, claim));
    counted.for_each(|claim| add(&mut sum, &claim_usage(claim)));
    if counts_any(quota) {
        let services = observed.services.iter();
        services.for_each(|service| add(&mut sum, &service_usage(service)));
    }
    let amount = |name: &String| {
        if is_of_pods(name) || is_of_claims(name) || is_of_services(name) {
            return Some(sum.get(name).copied().unwrap_or(Quantity::ZERO));
        }
        if !counts_any(quota) {
            return Some(Quantity::ZERO);
        }
        let resource = name.strip_prefix("count/").unwrap_or(name);
        let count = (observed.count)(resource).map(|n| Quantity::new(n, Format::DecimalSi));
        // What nobody can count now stays what it was.
        count.or_else(|| shown.get(name).copied())
    };
    hard.keys()
        .filter_map(|name| Some((name.clone(), amount(name)?)))
        .collect()
}

fn is_of_services(name: &str) -> bool {
    name == "services" || name == "count/services" || name.starts_with("services.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The `used` that is written for a quota with this spec and status.
    fn planned(spec: Value, status: Value, is_quiet: bool) -> Value {
        let quota = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
        let pod = |priority: &str, phase: &str| -> Pod {
            serde_json::from_value(
                json!({"spec": {"priorityClassName": priority, "containers": [
                {"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
                "status": {"phase": phase}}),
            )
            .unwrap()
        };
        let pods = [
            pod("low", "Running"),
            pod("high", "Pending"),
            pod("low", "Succeeded"),
        ];
        let claim = serde_json::from_value(
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}),
        )
        .unwrap();
        let service =
            serde_json::from_value(json!({"spec": {"type": "NodePort", "ports": [{"port": 1}]}}))
                .unwrap();
        let observed = Observed {
            quota: &quota,
            pods: &pods.each_ref(),
            claims: &[&claim],
            services: &[&service],
            count: &|resource| match resource {
                "secrets" => Some(3),
                "deployments.apps" => Some(2),
                _ => None,
            },
            now: Timestamp::UNIX_EPOCH,
            is_quiet,
        };
        match plan(&observed) {
            None => json!("nothing"),
            Some(Action::Settle) => json!("settle"),
            Some(Action::Write(status)) => {
                let hard = quota.spec.clone().unwrap_or_default().hard;
                assert_eq!(status.hard, hard);
                serde_json::to_value(status.used).unwrap()
            }
        }
    }

    #[test]
    fn what_is_used() {
        let table = [
            (
                json!({"pods": "9", "count/pods": "9", "requests.cpu": "1", "memory": "1Gi"}),
                json!({"pods": "2", "count/pods": "3", "requests.cpu": "200m", "memory": "0"}),
            ),
            (
                json!({"requests.storage": "9Gi", "persistentvolumeclaims": "1", "tin.storageclass.storage.k8s.io/requests.storage": "1"}),
                json!({"requests.storage": "1Gi", "persistentvolumeclaims": "1", "tin.storageclass.storage.k8s.io/requests.storage": "0"}),
            ),
            (
                json!({"services": "1", "services.nodeports": "1", "services.loadbalancers": "1"}),
                json!({"services": "1", "services.nodeports": "1", "services.loadbalancers": "0"}),
            ),
            (
                json!({"secrets": "9", "count/secrets": "9", "count/deployments.apps": "9", "count/widgets.example.com": "9"}),
                json!({"secrets": "3", "count/secrets": "3", "count/deployments.apps": "2"}),
            ),
            (json!({}), json!("nothing")),
        ];
        for (hard, want) in table {
            assert_eq!(
                planned(json!({ "hard": hard }), json!({}), true),
                want,
                "{hard}"
            );
        }
        let scoped = json!({"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
        assert_eq!(planned(scoped, json!({}), true), json!({"pods": "1"}));
    }

    #[test]
    fn when_it_is_written() {
        let table = [
            // The same in another form is the same.
            (
                json!({"requests.cpu": "1"}),
                json!({"requests.cpu": "1000m"}),
                json!({"requests.cpu": "0.2"}),
                false,
                json!("nothing"),
            ),
            // A new limit, and more than was charged, at once.
            (
                json!({"pods": "5"}),
                json!({"pods": "4"}),
                json!({"pods": "2"}),
                false,
                json!({"pods": "2"}),
            ),
            (
                json!({"pods": "5"}),
                json!({"pods": "5"}),
                json!({"pods": "1"}),
                false,
                json!({"pods": "2"}),
            ),
            // What was charged a moment ago may not be there yet.
            (
                json!({"pods": "5"}),
                json!({"pods": "5"}),
                json!({"pods": "3"}),
                false,
                json!("settle"),
            ),
            (
                json!({"pods": "5"}),
                json!({"pods": "5"}),
                json!({"pods": "3"}),
                true,
                json!({"pods": "2"}),
            ),
            // What nobody can count stays; what is limited no more goes.
            (
                json!({"count/widgets.example.com": "5"}),
                json!({"count/widgets.example.com": "5"}),
                json!({"count/widgets.example.com": "4"}),
                true,
                json!("nothing"),
            ),
            (
                json!({"pods": "5"}),
                json!({"pods": "5", "secrets": "5"}),
                json!({"pods": "2", "secrets": "3"}),
                false,
                json!({"pods": "2"}),
            ),
        ];
        for (n, (hard, shown, used, is_quiet, want)) in table.into_iter().enumerate() {
            let status = json!({"hard": shown, "used": used});
            let got = planned(json!({ "hard": hard }), status, is_quiet);
            assert_eq!(got, want, "row {n}");
        }
    }
}
