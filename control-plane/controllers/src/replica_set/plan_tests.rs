#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-11-20T12:00:00Z";

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "rs", "generation": 3},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }))
    .unwrap()
}

/// A ready, running Pod of the set that is an hour old, changed by `change`.
fn pod(name: &str, change: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": "2026-11-20T11:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": "rs", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-11-20T11:00:01Z"}]},
    });
    merge(&mut pod, &change);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change.clone(),
    }
}

/// Runs `check` on what is observed.
fn with<T>(set: &ReplicaSet, pods: &[Arc<Pod>], check: impl FnOnce(&Observed<'_>) -> T) -> T {
    let selector = Selector::from_label_selector(&set.spec.selector).unwrap();
    check(&Observed {
        set,
        selector: &selector,
        pods,
        doomed: &HashSet::from(["doomed".to_owned()]),
        related: &HashMap::from([("n1".to_owned(), 2), ("n2".to_owned(), 5)]),
        now: NOW.parse().unwrap(),
    })
}

/// The actions in short: `+n`, `-name`, `adopt name`, `release name`.
fn planned(set: &ReplicaSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let short = |action| match action {
        Action::Adopt(pod) => format!("adopt {}", pod.name_any()),
        Action::Release(pod) => format!("release {}", pod.name_any()),
        Action::Create(count) => format!("+{count}"),
        Action::Delete(pod) => format!("-{}", pod.name_any()),
    };
    with(set, pods, |o| plan(o).into_iter().map(short).collect())
}

#[test]
fn as_many_as_asked_for() {
    let none = json!({});
    let pods = |names: &[&str]| {
        names
            .iter()
            .map(|n| pod(n, none.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(planned(&set(3), &[]), ["+3"]);
    assert_eq!(planned(&set(2000), &[]), ["+500"]);
    assert!(planned(&set(2), &pods(&["a", "b"])).is_empty());
    assert_eq!(planned(&set(2), &pods(&["a"])), ["+1"]);
    assert_eq!(planned(&set(2), &pods(&["a", "doomed"])), ["+1"]);
    assert_eq!(planned(&set(0), &pods(&["a", "b"])), ["-a", "-b"]);
    let failed = pod("f", json!({"status": {"phase": "Failed"}}));
    let ending = pod("e", json!({"metadata": {"deletionTimestamp": NOW}}));
    assert_eq!(planned(&set(1), &[failed, ending]), ["+1"]);
}

#[test]
fn a_set_that_is_being_deleted_does_nothing() {
    let mut set = set(3);
    set.metadata.deletion_timestamp = Some(Time(NOW.parse().unwrap()));
    assert!(
        planned(
            &set,
            &[pod("a", json!({"metadata": {"labels": {"app": "x"}}}))]
        )
        .is_empty()
    );
}

#[test]
fn adopts_and_releases() {
    let orphan = pod("orphan", json!({"metadata": {"ownerReferences": []}}));
    let strayed = pod("strayed", json!({"metadata": {"labels": {"app": "other"}}}));
    assert_eq!(
        planned(&set(2), &[orphan, strayed]),
        ["adopt orphan", "release strayed", "+1"]
    );
}

#[test]
fn the_least_valuable_go_first() {
    let cost = |c: &str| {
        json!({"metadata": {"annotations":
        {"controller.kubernetes.io/pod-deletion-cost": c}}})
    };
    let mut pods = vec![
        pod(
            "oldest",
            json!({"metadata": {"creationTimestamp": "2026-11-01T00:00:00Z"}}),
        ),
        pod("plain", json!({})),
        pod(
            "young",
            json!({"metadata": {"creationTimestamp": "2026-11-20T11:59:00Z"}}),
        ),
        pod(
            "restarted",
            json!({"status": {"containerStatuses": [{"name": "c", "image": "i",
            "imageID": "", "ready": true, "restartCount": 4}]}}),
        ),
        pod(
            "lately-ready",
            json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-11-20T11:59:50Z"}]}}),
        ),
        pod("crowded", json!({"spec": {"nodeName": "n2"}})),
        pod("cheap", cost("-5")),
        pod("dear", cost("5")),
        pod(
            "unready",
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
        ),
        pod(
            "pending",
            json!({"status": {"phase": "Pending", "conditions": []}}),
        ),
        pod(
            "unassigned",
            json!({"spec": {"nodeName": null}, "status": {"phase": "Pending"}}),
        ),
    ];
    pods.rotate_left(4);
    let expected = [
        "-unassigned",
        "-pending",
        "-unready",
        "-cheap",
        "-crowded",
        "-lately-ready",
        "-restarted",
        "-young",
        "-plain",
        "-oldest",
        "-dear",
    ];
    assert_eq!(planned(&set(0), &pods), expected);
}

#[test]
fn status_counts() {
    let mut set = set(3);
    set.spec.min_ready_seconds = Some(30);
    let pods = [
        pod("a", json!({})),
        pod(
            "b",
            json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-11-20T11:59:50Z"}]}}),
        ),
        pod(
            "c",
            json!({"status": {"phase": "Pending", "conditions": []}}),
        ),
        pod("d", json!({"metadata": {"deletionTimestamp": NOW}})),
    ];
    let (status, next) = with(&set, &pods, |o| (status(o, None), next_change(o)));
    assert_eq!(status.replicas, 3);
    assert_eq!(status.ready_replicas, Some(2));
    assert_eq!(status.available_replicas, Some(1));
    assert_eq!(status.terminating_replicas, Some(1));
    assert_eq!(status.fully_labeled_replicas, Some(3));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(next, Some(Duration::from_secs(20)));
}

#[test]
fn a_failure_shows_until_it_is_over() {
    let mut set = set(1);
    let failure = Failure {
        reason: "FailedCreate",
        message: "quota".to_owned(),
    };
    let failed = with(&set, &[], |o| status(o, Some(&failure)));
    let condition = &failed.conditions.as_ref().unwrap()[0];
    assert_eq!(condition.type_.as_deref(), Some("ReplicaFailure"));
    assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
    set.status = Some(failed.clone());
    assert_eq!(
        with(&set, &[], |o| status(o, Some(&failure))),
        failed,
        "nothing new to write"
    );
    assert_eq!(with(&set, &[], |o| status(o, None)).conditions, None);
}

#[test]
fn the_pod_is_made_from_the_template() {
    let pod = pod_from(&set(1));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(pod.labels().get("app").map(String::as_str), Some("web"));
    let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str()),
        ("ReplicaSet", "rs")
    );
    assert_eq!(
        (owner.controller, owner.block_owner_deletion),
        (Some(true), Some(true))
    );
}
