#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn spec(json: Value) -> PodSpec {
    serde_json::from_value(json).unwrap()
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

fn sidecar(requests: Value) -> Value {
    json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": requests}})
}

fn requests(json: Value) -> Vec<(String, String)> {
    pod_requests(&spec(json))
        .into_iter()
        .map(|(name, amount)| (name, amount.to_string()))
        .collect()
}

fn listed(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned()))
        .collect()
}

#[test]
fn pods_ask_for_what_runs_together() {
    let none = json!({});
    let two = json!([
        container(json!({"cpu": "100m", "memory": "1Gi"}), none.clone()),
        container(json!({"cpu": "1"}), none.clone())
    ]);
    assert_eq!(
        requests(json!({"containers": two})),
        listed(&[("cpu", "1100m"), ("memory", "1Gi")])
    );
    let init = container(json!({"cpu": "2", "memory": "1Mi"}), none.clone());
    assert_eq!(
        requests(json!({"containers": two, "initContainers": [init]})),
        listed(&[("cpu", "2"), ("memory", "1Gi")])
    );
    // The sidecar runs beside the containers, and beside the init container after it only.
    assert_eq!(
        requests(
            json!({"containers": two, "initContainers": [init, sidecar(json!({"cpu": "500m"}))]})
        ),
        listed(&[("cpu", "2"), ("memory", "1Gi")])
    );
    assert_eq!(
        requests(
            json!({"containers": two, "initContainers": [sidecar(json!({"cpu": "500m"})), init]})
        ),
        listed(&[("cpu", "2500m"), ("memory", "1Gi")])
    );
    assert_eq!(
        requests(json!({"containers": two, "initContainers": [sidecar(json!({"cpu": "3"}))]})),
        listed(&[("cpu", "4100m"), ("memory", "1Gi")])
    );
    assert_eq!(
        requests(json!({"containers": two, "overhead": {"cpu": "10m", "pods": "1"}})),
        listed(&[("cpu", "1110m"), ("memory", "1Gi"), ("pods", "1")])
    );
    assert_eq!(
        requests(json!({"containers": two, "resources": {"requests": {"cpu": "5"}}})),
        listed(&[("cpu", "5"), ("memory", "1Gi")])
    );
    assert_eq!(
        requests(json!({"containers": [container(json!({"cpu": "x"}), none)]})),
        listed(&[])
    );
}

#[test]
fn overhead_makes_no_limit() {
    let spec = spec(json!({
        "containers": [container(json!({}), json!({"cpu": "1"}))],
        "overhead": {"cpu": "100m", "memory": "1Mi"},
    }));
    let limits = pod_limits(&spec);
    assert_eq!(limits.len(), 1);
    assert_eq!(limits["cpu"].to_string(), "1100m");
}

#[test]
fn quality_of_service() {
    let full = json!({"cpu": "1", "memory": "1Gi"});
    let same = json!({"cpu": "1000m", "memory": "1024Mi"});
    let (none, cpu) = (json!({}), json!({"cpu": "1"}));
    let table = [
        (vec![container(none.clone(), none.clone())], Qos::BestEffort),
        (
            vec![container(json!({"cpu": "0"}), none.clone())],
            Qos::BestEffort,
        ),
        (
            vec![container(json!({"example.com/gpu": "1"}), none.clone())],
            Qos::BestEffort,
        ),
        (vec![container(cpu.clone(), none.clone())], Qos::Burstable),
        (vec![container(cpu.clone(), cpu)], Qos::Burstable),
        (vec![container(full.clone(), same.clone())], Qos::Guaranteed),
        (vec![container(none.clone(), full.clone())], Qos::Burstable),
        (
            vec![container(full.clone(), same), container(none.clone(), none)],
            Qos::Burstable,
        ),
    ];
    for (containers, want) in table {
        assert_eq!(
            qos(&spec(json!({ "containers": containers }))),
            want,
            "{containers:?}"
        );
        assert_eq!(
            serde_json::to_value(want.as_str()).unwrap(),
            json!(format!("{want:?}"))
        );
    }
    let whole =
        json!({"containers": [{"name": "c"}], "resources": {"requests": full, "limits": full}});
    assert_eq!(qos(&spec(whole)), Qos::Guaranteed);
}

#[test]
fn a_pod_counts_as_the_most_that_it_has_or_wants_while_it_is_resized() {
    let counted = |asked: &str, allocated: &str, actual: &str, reason: &str| {
        let pod = serde_json::json!({
            "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": asked}}},
                {"name": "d", "resources": {"requests": {"cpu": "1"}}},
            ]},
            "status": {
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": {"cpu": allocated},
                    "resources": {"requests": {"cpu": actual}},
                }],
            },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pod_requests_in_place(&pod)[CPU].milli_value()
    };
    assert_eq!(counted("4", "2", "3", "Deferred"), 5000);
    assert_eq!(counted("1", "2", "3", "Deferred"), 4000);
    assert_eq!(counted("1", "3", "2", "Deferred"), 4000);
    assert_eq!(counted("4", "2", "3", "Infeasible"), 4000);
    let as_a_whole = |asked: &str, allocated: &str, actual: &str| {
        let pod = serde_json::json!({
            "spec": {"containers": [{"name": "c"}], "resources": {"requests": {"cpu": asked}}},
            "status": {
                "allocatedResources": {"cpu": allocated},
                "resources": {"requests": {"cpu": actual}},
            },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pod_requests_in_place(&pod)[CPU].milli_value()
    };
    assert_eq!(as_a_whole("4", "2", "3"), 4000);
    assert_eq!(as_a_whole("1", "3", "2"), 3000);
    let unknown = serde_json::json!({"spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": "2"}}},
    ]}});
    let unknown: Pod = serde_json::from_value(unknown).unwrap();
    assert_eq!(pod_requests_in_place(&unknown)[CPU].milli_value(), 2000);
}

#[test]
fn huge_pages_are_resources_by_their_size() {
    for (name, size) in [
        ("hugepages-2Mi", Some(2 << 20)),
        ("hugepages-1Gi", Some(1 << 30)),
        ("hugepages-0", None),
        ("hugepages-big", None),
        ("requests.hugepages-2Mi", None),
        ("memory", None),
    ] {
        assert_eq!(huge_page_size(name), size, "{name}");
    }
    let container = container(json!({}), json!({"memory": "1Gi", "hugepages-2Mi": "4Mi"}));
    let limits = pod_limits(&spec(json!({"containers": [container, container]})));
    assert_eq!(huge_pages(&limits), BTreeMap::from([(2 << 20, 8 << 20)]));
}
