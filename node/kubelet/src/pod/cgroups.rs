//! Where a Pod's processes are among the control groups of the machine, and what they may use
//! together: by the class of quality of service, as in Kubernetes.

use std::path::{Path, PathBuf};

use coracle_apimachinery::resources::{
    Qos, container_limits, huge_pages, pod_limits, pod_requests, qos, whole_limits,
};
use coracle_runtime::Resources;
use k8s_openapi::api::core::v1::Pod;

/// Above all Pods.
pub(crate) const ROOT: &str = "kubepods";
/// Processes and threads of a Pod's containers: one that forks without end leaves some for others.
pub(crate) const PIDS: u64 = 4096;

/// The control group of a Pod. Those whose requests are their limits have no class above them.
pub(crate) fn path(pod: &Pod) -> PathBuf {
    let root = Path::new(ROOT);
    let class = match qos(super::spec(pod)) {
        Qos::Guaranteed => root.to_owned(),
        Qos::Burstable => root.join("burstable"),
        Qos::BestEffort => root.join("besteffort"),
    };
    class.join(format!("pod{}", super::uid(pod)))
}

/// What its containers may use together. There is no limit where one of them has none, but for that
/// of the Pod as a whole.
pub(crate) fn resources(pod: &Pod) -> Resources {
    let spec = super::spec(pod);
    let (requests, limits) = (pod_requests(spec), pod_limits(spec));
    let whole = whole_limits(spec);
    let limited = |name: &str| {
        let mut containers = super::containers(pod);
        whole.contains_key(name)
            || containers.all(|(container, _)| container_limits(container).contains_key(name))
    };
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let limit = |name: &str| limits.get(name).filter(|_| limited(name));
    Resources {
        cpu_request_millis: requests.get("cpu").and_then(|q| unsigned(q.milli_value())),
        cpu_limit_millis: limit("cpu").and_then(|q| unsigned(q.milli_value())),
        memory_limit_bytes: limit("memory").and_then(|q| unsigned(q.value())),
        // Who has no limit of them has none of them.
        huge_pages: huge_pages(&limits),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn check(containers: &[Value], place: &str, expected: (Option<u64>, Option<u64>, Option<u64>)) {
        let containers: Vec<Value> = containers
            .iter()
            .enumerate()
            .map(|(index, of)| json!({"name": format!("c{index}"), "resources": of}))
            .collect();
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(path(&pod), Path::new(place));
        let of = resources(&pod);
        let found = (
            of.cpu_request_millis,
            of.cpu_limit_millis,
            of.memory_limit_bytes,
        );
        assert_eq!(found, expected, "{containers:?}");
    }

    #[test]
    fn the_limits_of_a_pod_as_a_whole_are_limits_though_its_containers_have_none() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"limits": {"memory": "3Mi"}},
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}],
        }}))
        .unwrap();
        let of = resources(&pod);
        assert_eq!(
            (of.cpu_limit_millis, of.memory_limit_bytes),
            (None, Some(3 << 20))
        );
    }

    #[test]
    fn huge_pages_of_containers_are_the_pods() {
        let with = |pages: &str| json!({"limits": {"cpu": "1", "hugepages-2Mi": pages}});
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": with("4Mi")},
            {"name": "b", "resources": with("2Mi")},
            {"name": "c"},
        ]}}))
        .unwrap();
        let expected = BTreeMap::from([(2 << 20, 6 << 20)]);
        assert_eq!(resources(&pod).huge_pages, expected);
    }

    #[test]
    fn classes_have_their_places_and_limits() {
        let none = json!({});
        let cpu = json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "1"}});
        let most = json!({"cpu": "500m", "memory": "1Mi"});
        // The API has made requests of limits where there were none.
        let both = json!({"requests": most, "limits": most});
        let mebi = Some(1 << 20);
        check(
            std::slice::from_ref(&none),
            "kubepods/besteffort/podu",
            (None, None, None),
        );
        check(
            &[cpu.clone(), none],
            "kubepods/burstable/podu",
            (Some(250), None, None),
        );
        check(
            &[cpu, both.clone()],
            "kubepods/burstable/podu",
            (Some(750), Some(1500), None),
        );
        check(&[both], "kubepods/podu", (Some(500), Some(500), mebi));
    }
}
