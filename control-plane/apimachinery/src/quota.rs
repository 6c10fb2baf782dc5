//! What objects use of a ResourceQuota, and whether a quota counts them at all.
//!
//! Admission charges with it what is created; the quota's controller counts with it what is
//! there. Both see an object alike because both ask here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, ResourceQuota,
    ScopedResourceSelectorRequirement, Service,
};

use crate::pods::is_terminal;
use crate::quantity::{Format, Quantity};
use crate::resources::{
    Qos, ResourceList, container_limits, container_requests, parse, pod_limits, pod_requests, qos,
};

const ONE: Quantity = Quantity::new(1, Format::DecimalSi);
const CLASS: &str = ".storageclass.storage.k8s.io/";

/// Kinds that are counted under their plain name too, as it was before others could be.
const PLAIN: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// Resources that each container must name where a quota counts them.
const DEMANDED: &[&str] = &[
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// That there is one object of a resource (`deployments` of `apps`).
pub fn object_count(group: &str, plural: &str) -> ResourceList {
    let name = if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    };
    let mut usage = ResourceList::from([(name, ONE)]);
    if group.is_empty() && PLAIN.contains(&plural) {
        usage.insert(plural.to_owned(), ONE);
    }
    usage
}

/// What a Pod uses. One that has run to its end, or that should be gone by now, is only counted
/// as an object: nobody shall wait for what does not run.
pub fn pod_usage(pod: &Pod, now: Timestamp) -> ResourceList {
    let mut usage = object_count("", "pods");
    usage.remove("pods");
    let deletion = pod.metadata.deletion_timestamp.as_ref();
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let overdue = deletion.is_some_and(|end| {
        let latest = end.0.checked_add(SignedDuration::from_secs(grace));
        latest.is_ok_and(|latest| now > latest)
    });
    if is_terminal(pod) || overdue {
        return usage;
    }
    if let Some(spec) = &pod.spec {
        usage.extend(compute_usage(&pod_requests(spec), &pod_limits(spec)));
    }
    usage
}

/// Requests and limits under the names that quotas have for them.
fn compute_usage(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut usage = ResourceList::from([("pods".to_owned(), ONE)]);
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
        }
        if plain || name.starts_with("hugepages-") || name.contains('/') {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

/// What a Service uses.
pub fn service_usage(service: &Service) -> ResourceList {
    let mut usage = object_count("", "services");
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let (node_ports, balancers) = match spec.type_.as_deref() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports != Some(false) => {
            (ports.len(), 1)
        }
        Some("LoadBalancer") => {
            let chosen = ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0);
            (chosen.count(), 1)
        }
        _ => (0, 0),
    };
    let count = |number| Quantity::new(number, Format::DecimalSi);
    let node_ports = count(i64::try_from(node_ports).unwrap_or(i64::MAX));
    usage.insert("services.nodeports".to_owned(), node_ports);
    usage.insert("services.loadbalancers".to_owned(), count(balancers));
    usage
}

/// What a claim uses, of all storage and of that of its class.
pub fn claim_usage(claim: &PersistentVolumeClaim) -> ResourceList {
    let mut usage = object_count("", "persistentvolumeclaims");
    let spec = claim.spec.clone().unwrap_or_default();
    let class = spec.storage_class_name.filter(|class| !class.is_empty());
    let requests = spec.resources.and_then(|resources| resources.requests);
    let storage = parse(requests.as_ref()).get("storage").copied();
    if let Some(class) = &class {
        usage.insert(format!("{class}{CLASS}persistentvolumeclaims"), ONE);
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
        if let Some(class) = &class {
            usage.insert(format!("{class}{CLASS}requests.storage"), storage);
        }
    }
    usage
}

/// Whether a name is one of what Pods can use, whether or not a given Pod does.
pub fn is_of_pods(name: &str) -> bool {
    let plain = |name: &str| {
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
    };
    matches!(name, "pods" | "count/pods")
        || plain(name)
        || name
            .strip_prefix("requests.")
            .is_some_and(|rest| plain(rest) || rest.contains('/'))
        || name.strip_prefix("limits.").is_some_and(plain)
}

/// Whether a name is one of what claims can use.
pub fn is_of_claims(name: &str) -> bool {
    matches!(
        name,
        "persistentvolumeclaims" | "count/persistentvolumeclaims" | "requests.storage"
    ) || name.contains(CLASS)
}

/// What a quota demands that containers of a Pod do not name: resources with the names of those
/// containers.
pub fn unnamed<'a>(
    pod: &PodSpec,
    tracked: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<&'a str, Vec<String>> {
    let mut missing: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let whole = pod.resources.as_ref().map(|resources| {
        let requests = parse(resources.requests.as_ref());
        compute_usage(&requests, &parse(resources.limits.as_ref()))
    });
    for name in tracked.into_iter().filter(|name| DEMANDED.contains(name)) {
        if whole.as_ref().is_some_and(|whole| whole.contains_key(name)) {
            continue;
        }
        let containers = pod
            .containers
            .iter()
            .chain(pod.init_containers.iter().flatten());
        for container in containers {
            let usage = compute_usage(&container_requests(container), &container_limits(container));
            if !usage.contains_key(name) {
                let names = missing.entry(name).or_default();
                names.push(container.name.clone());
            }
        }
    }
    missing.values_mut().for_each(|names| names.sort());
    missing
}

/// The scopes of a quota, in both forms in which they are given.
fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let spec = quota.spec.clone().unwrap_or_default();
    let plain = spec.scopes.into_iter().flatten();
    let plain = plain.map(|scope_name| ScopedResourceSelectorRequirement {
        scope_name,
        operator: "Exists".to_owned(),
        values: None,
    });
    let selector = spec.scope_selector.unwrap_or_default();
    let selected = selector.match_expressions.into_iter().flatten();
    plain.chain(selected).collect()
}

/// Whether an object that knows no scopes is counted: only where the quota has none.
pub fn counts_any(quota: &ResourceQuota) -> bool {
    scopes(quota).is_empty()
}

/// Whether a quota counts a Pod.
pub fn counts_pod(quota: &ResourceQuota, pod: &Pod) -> bool {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    let ends = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    scopes(quota)
        .iter()
        .all(|scope| match scope.scope_name.as_str() {
            "Terminating" => ends,
            "NotTerminating" => !ends,
            "BestEffort" => qos(spec) == Qos::BestEffort,
            "NotBestEffort" => qos(spec) != Qos::BestEffort,
            "PriorityClass" => {
                let class = spec.priority_class_name.as_deref();
                selects(scope, class.into_iter().filter(|class| !class.is_empty()))
            }
            "CrossNamespacePodAffinity" => crosses_namespaces(spec),
            _ => false,
        })
}

/// Whether a quota counts a claim.
pub fn counts_claim(quota: &ResourceQuota, claim: &PersistentVolumeClaim) -> bool {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let classes = [
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status.and_then(|status| {
            let modify = status.modify_volume_status.as_ref()?;
            modify.target_volume_attributes_class_name.as_deref()
        }),
    ];
    scopes(quota).iter().all(|scope| {
        let names = classes.iter().flatten().copied();
        scope.scope_name == "VolumeAttributesClass"
            && selects(scope, names.filter(|class| !class.is_empty()))
    })
}

/// Whether a requirement selects an object with these names: one of them is enough.
fn selects<'a>(
    scope: &ScopedResourceSelectorRequirement,
    names: impl Iterator<Item = &'a str>,
) -> bool {
    let names: Vec<&str> = names.collect();
    let listed = || {
        let values = scope.values.iter().flatten();
        values
            .map(String::as_str)
            .any(|value| names.contains(&value))
    };
    match scope.operator.as_str() {
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        "In" => listed(),
        "NotIn" => !listed(),
        _ => false,
    }
}

/// Whether a Pod's affinity looks at Pods of other namespaces.
fn crosses_namespaces(spec: &PodSpec) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|n| !n.is_empty())
    };
    let Some(affinity) = &spec.affinity else {
        return false;
    };
    let pod = affinity.pod_affinity.as_ref();
    let anti = affinity.pod_anti_affinity.as_ref();
    let required = [
        pod.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        }),
        anti.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        }),
    ];
    let preferred = [
        pod.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        }),
        anti.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        }),
    ];
    required.into_iter().flatten().flatten().any(crosses)
        || preferred
            .into_iter()
            .flatten()
            .flatten()
            .any(|weighted| crosses(&weighted.pod_affinity_term))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(usage: &ResourceList) -> String {
        let pairs = usage
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"));
        pairs.collect::<Vec<_>>().join(",")
    }

    fn pod(spec: Value, phase: &str) -> Pod {
        serde_json::from_value(json!({"spec": spec, "status": {"phase": phase}})).unwrap()
    }

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    #[test]
    fn usage() {
        let spec = json!({"containers": [{"name": "c", "resources": {
            "requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
            "limits": {"cpu": "1", "example.com/gpu": "2"},
        }}]});
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            shown(&pod_usage(&pod(spec.clone(), "Running"), now)),
            "count/pods=1,cpu=100m,hugepages-2Mi=4Mi,limits.cpu=1,memory=1Gi,pods=1,requests.cpu=100m,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi,requests.memory=1Gi"
        );
        assert_eq!(
            shown(&pod_usage(&pod(spec.clone(), "Failed"), now)),
            "count/pods=1"
        );
        let mut stuck = pod(spec, "Running");
        stuck.metadata.deletion_timestamp =
            serde_json::from_value(json!("1969-12-31T00:00:00Z")).unwrap();
        assert_eq!(shown(&pod_usage(&stuck, now)), "count/pods=1");

        let service = |spec: Value| serde_json::from_value(json!({ "spec": spec })).unwrap();
        let table = [
            (json!({}), 0, 0),
            (
                json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}),
                2,
                0,
            ),
            (
                json!({"type": "LoadBalancer", "ports": [{"port": 1}]}),
                1,
                1,
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}),
                1,
                1,
            ),
        ];
        for (spec, ports, balancers) in table {
            let want = format!(
                "count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={ports}"
            );
            assert_eq!(shown(&service_usage(&service(spec))), want);
        }

        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            shown(&claim_usage(&serde_json::from_value(claim).unwrap())),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        assert_eq!(
            shown(&object_count("apps", "deployments")),
            "count/deployments.apps=1"
        );
    }

    #[test]
    fn scopes_choose_pods() {
        let burstable = json!({"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
        let plain = json!({"containers": [{"name": "c"}], "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z", "namespaces": ["other"]}]}}});
        let priority = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        let table = [
            (json!({}), true, true),
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating"]}), false, true),
            (json!({"scopes": ["BestEffort"]}), false, true),
            (
                json!({"scopes": ["NotBestEffort", "Terminating"]}),
                true,
                false,
            ),
            (
                json!({"scopes": ["CrossNamespacePodAffinity"]}),
                false,
                true,
            ),
            (priority("In", json!(["high"])), true, false),
            (priority("NotIn", json!(["high"])), false, true),
            (priority("Exists", json!(null)), true, false),
            (priority("DoesNotExist", json!(null)), false, true),
        ];
        for (spec, first, second) in table {
            let quota = quota(spec.clone());
            let counted = |pod_spec: &Value| counts_pod(&quota, &pod(pod_spec.clone(), "Pending"));
            assert_eq!(
                (counted(&burstable), counted(&plain)),
                (first, second),
                "{spec}"
            );
        }
        assert!(!counts_any(&quota(json!({"scopes": ["BestEffort"]}))));
    }

    #[test]
    fn scopes_choose_claims() {
        let claim =
            serde_json::from_value(json!({"spec": {"volumeAttributesClassName": "fast"}})).unwrap();
        let scope = |operator: &str| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": operator, "values": ["fast"]}]}});
        assert!(counts_claim(&quota(scope("In")), &claim));
        assert!(!counts_claim(&quota(scope("NotIn")), &claim));
        assert!(!counts_claim(
            &quota(json!({"scopes": ["BestEffort"]})),
            &claim
        ));
        assert!(counts_claim(&quota(json!({})), &claim));
    }

    #[test]
    fn containers_must_name_what_is_counted() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [
            {"name": "b", "resources": {"requests": {"cpu": "1"}}}, {"name": "a"},
        ]}))
        .unwrap();
        let missing = unnamed(&spec, ["cpu", "limits.memory", "pods"]);
        assert_eq!(missing["cpu"], ["a"]);
        assert_eq!(missing["limits.memory"], ["a", "b"]);
        assert_eq!(missing.len(), 2);
    }
}
