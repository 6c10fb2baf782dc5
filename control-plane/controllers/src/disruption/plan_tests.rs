#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Scales, fail_safe, needs_scales, plan, same};

const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let metadata = json!({"name": "b", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

/// A Pod: `r` is ready, `u` is not, `d` is ready and being deleted; then its controller's uid.
fn pod(number: usize, form: &str) -> Arc<Pod> {
    let (state, owner) = form.split_at(1);
    let ready = if state == "u" { "False" } else { "True" };
    let mut pod = json!({"metadata": {"name": format!("p{number}")},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    if state == "d" {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    if !owner.is_empty() {
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": owner, "uid": owner, "controller": true}]);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn planned(budget: &PodDisruptionBudget, pods: &[&str]) -> Result<Plan, String> {
    let pods: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(n, form)| pod(n, form))
        .collect();
    // Two ReplicaSets of one Deployment of ten, and a set of three.
    let scales = [("a1", ("a", 10)), ("a2", ("a", 10)), ("s", ("s", 3))];
    let scales: Scales = scales
        .map(|(uid, (owner, replicas))| (uid.to_owned(), (owner.to_owned(), replicas)))
        .into();
    plan(&Observed {
        budget,
        pods: &pods,
        scales: &scales,
        now: now(),
    })
}

#[test]
fn how_many_may_go() {
    // expected, desired, healthy, allowed
    let table = [
        (
            json!({"minAvailable": 2}),
            vec!["r", "r", "r"],
            [3, 2, 3, 1],
        ),
        (
            json!({"minAvailable": 2}),
            vec!["r", "u", "d"],
            [3, 2, 1, 0],
        ),
        (json!({"minAvailable": 0}), vec![], [0, 0, 0, 0]),
        (
            json!({"minAvailable": "50%"}),
            vec!["rs", "rs", "rs"],
            [3, 2, 3, 1],
        ),
        (
            json!({"minAvailable": "50%"}),
            vec!["ra1", "ra2", "rs"],
            [13, 7, 3, 0],
        ),
        (
            json!({"maxUnavailable": 1}),
            vec!["rs", "rs", "rs"],
            [3, 2, 3, 1],
        ),
        (
            json!({"maxUnavailable": "34%"}),
            vec!["rs", "rs", "us"],
            [3, 1, 2, 1],
        ),
        (json!({"maxUnavailable": 5}), vec!["rs"], [3, 0, 1, 1]),
        (json!({"maxUnavailable": 1}), vec!["r", "r"], [0, 0, 2, 0]),
        (
            json!({"maxUnavailable": 1}),
            vec!["r", "rs", "rs", "rs"],
            [3, 2, 4, 2],
        ),
        (json!({}), vec!["r"], [0, 0, 1, 0]),
    ];
    for (spec, pods, want) in table {
        let plan = planned(&budget(spec.clone(), json!({})), &pods).unwrap();
        let status = plan.status;
        let got = [
            status.expected_pods,
            status.desired_healthy,
            status.current_healthy,
            status.disruptions_allowed,
        ];
        assert_eq!(got, want.map(Some), "{spec} {pods:?}");
        assert_eq!(status.observed_generation, Some(3));
        let condition = &status.conditions.unwrap()[0];
        let allowed = if want[3] > 0 {
            ("True", "SufficientPods")
        } else {
            ("False", "InsufficientPods")
        };
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            allowed
        );
        assert_eq!(condition.observed_generation, Some(3));
    }
}

#[test]
fn what_is_not_known_is_an_error() {
    let unknown = planned(&budget(json!({"maxUnavailable": 1}), json!({})), &["rx"]);
    assert_eq!(unknown.unwrap_err(), "found no controllers for pod \"p0\"");
    let malformed = planned(&budget(json!({"minAvailable": "half"}), json!({})), &["rs"]);
    assert!(malformed.unwrap_err().contains("half"));
    let old = json!({"disruptionsAllowed": 2, "expectedPods": 4, "observedGeneration": 2});
    let status = fail_safe(&budget(json!({}), old), "lost".to_owned(), now());
    assert_eq!(
        (status.disruptions_allowed, status.expected_pods),
        (Some(0), Some(4))
    );
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(
        (
            condition.status.as_str(),
            condition.reason.as_str(),
            condition.message.as_str()
        ),
        ("False", "SyncFailed", "lost")
    );
    let measured = [
        ("minAvailable", json!(1), false),
        ("minAvailable", json!("1%"), true),
        ("maxUnavailable", json!(1), true),
    ];
    for (field, amount, want) in measured {
        assert_eq!(
            needs_scales(&budget(json!({field: amount}), json!({}))),
            want,
            "{field}"
        );
    }
}

#[test]
fn evicted_pods_count_as_gone_for_two_minutes() {
    let evicted = json!({"disruptedPods": {
        "p0": "2026-01-01T00:09:30Z", // still expected to go
        "p1": "2026-01-01T00:08:00Z", // overdue
        "p2": "2026-01-01T00:09:59Z", // going
        "p9": "2026-01-01T00:09:59Z", // gone
    }});
    let plan = planned(
        &budget(json!({"minAvailable": 1}), evicted),
        &["r", "r", "d", "r"],
    )
    .unwrap();
    let status = plan.status;
    assert_eq!(
        (status.current_healthy, status.disruptions_allowed),
        (Some(2), Some(1))
    );
    assert_eq!(
        status.disrupted_pods.unwrap().keys().collect::<Vec<_>>(),
        ["p0"]
    );
    let overdue: Vec<_> = plan
        .overdue
        .iter()
        .map(|pod| pod.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(overdue, ["p1"]);
    assert_eq!(plan.recheck, Some(SignedDuration::from_secs(90)));
}

#[test]
fn a_status_that_says_the_same_is_the_same() {
    let mut budget = budget(
        json!({"minAvailable": 1}),
        json!({"conditions": [
        {"type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": NOW},
        {"type": "DisruptionAllowed", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2025-01-01T00:00:00Z"}]}),
    );
    let first = planned(&budget, &["r", "r"]).unwrap().status;
    let conditions = first.conditions.clone().unwrap();
    assert_eq!(conditions.len(), 2, "another's condition stays");
    assert_eq!(
        conditions[1].last_transition_time.0.to_string(),
        "2025-01-01T00:00:00Z"
    );
    let mut shown = first.clone();
    shown.disrupted_pods = Some([].into());
    budget.status = Some(shown.clone());
    assert!(same(&shown, &planned(&budget, &["r", "r"]).unwrap().status));
    let fewer = planned(&budget, &["r", "u"]).unwrap().status;
    assert!(!same(&shown, &fewer));
    assert_eq!(fewer.conditions.unwrap()[1].last_transition_time.0, now());
}
