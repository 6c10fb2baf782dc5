#![allow(clippy::unwrap_used)]

use super::super::revision::MAX;
use super::super::status::{Outcome, complete, next_check, status};
use super::super::template::new_set;
use super::*;
use k8s_openapi::api::apps::v1::DeploymentStatus;

const NOW: &str = "2026-11-20T12:00:00Z";

/// A Deployment of image `image`, changed by `change`.
fn deployment(replicas: i32, image: &str, change: Value) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}},
    });
    json_patch(&mut value, &change);
    serde_json::from_value(value).unwrap()
}

fn json_patch(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                json_patch(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change.clone(),
    }
}

/// The set of `image` with revision `revision`: spec, actual and available replicas.
fn set(image: &str, revision: i64, counts: (i32, i32, i32), desired: i32) -> Arc<ReplicaSet> {
    let mut set = new_set(&deployment(1, image, json!({})));
    set.metadata.name = Some(format!("web-{image}"));
    set.metadata.uid = Some(image.to_owned());
    let at = format!("2026-11-20T11:00:{revision:02}Z");
    set.metadata.creation_timestamp = serde_json::from_value(json!(at)).unwrap();
    set.metadata.annotations = Some(
        [
            (REVISION, revision),
            (DESIRED, desired.into()),
            (MAX, (desired + (desired + 3) / 4).into()),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_string()))
        .into(),
    );
    set.spec.replicas = Some(counts.0);
    let (actual, available) = (counts.1, counts.2);
    let status =
        json!({"replicas": actual, "readyReplicas": available, "availableReplicas": available});
    set.status = serde_json::from_value(status).unwrap();
    Arc::new(set)
}

fn with<T>(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    check: impl FnOnce(&Observed<'_>) -> T,
) -> T {
    let selector = &deployment.spec.selector;
    let selector = Selector::from_label_selector(selector).unwrap();
    check(&Observed::new(
        deployment,
        &selector,
        sets,
        &[],
        NOW.parse().unwrap(),
    ))
}

/// The actions in short, revisions of the Deployment left out.
fn planned(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<String> {
    let short = |action| match action {
        Action::Adopt(set) => Some(format!("adopt {}", set.name_any())),
        Action::Release(set) => Some(format!("release {}", set.name_any())),
        Action::Create(set) => Some(format!("create {} r{}", replicas(&set), revision(&*set))),
        Action::Update { set, change } => Some(match change.replicas {
            Some(replicas) => format!("{} {replicas}", set.name_any()),
            None => format!("{} r{}", set.name_any(), change.annotations[REVISION]),
        }),
        Action::Delete(set) => Some(format!("delete {}", set.name_any())),
        Action::Annotate(_) => None,
    };
    with(deployment, sets, |o| {
        plan(o).into_iter().filter_map(short).collect()
    })
}

#[test]
fn a_rolling_update_step_by_step() {
    let d = deployment(4, "b", json!({}));
    let old = |counts| set("a", 1, counts, 4);
    let new = |counts| set("b", 2, counts, 4);
    // maxSurge 1, maxUnavailable 1
    assert_eq!(planned(&d, &[]), ["create 4 r1"]);
    assert_eq!(planned(&d, &[old((4, 4, 4))]), ["create 1 r2"]);
    assert_eq!(planned(&d, &[old((4, 4, 4)), new((1, 1, 0))]), ["web-a 3"]);
    assert_eq!(planned(&d, &[old((3, 3, 3)), new((1, 1, 0))]), ["web-b 2"]);
    assert!(
        planned(&d, &[old((3, 3, 3)), new((2, 2, 0))]).is_empty(),
        "waits for the new"
    );
    assert_eq!(planned(&d, &[old((3, 3, 3)), new((2, 2, 2))]), ["web-a 1"]);
    assert_eq!(planned(&d, &[old((1, 1, 1)), new((2, 2, 2))]), ["web-b 4"]);
    assert_eq!(planned(&d, &[old((1, 1, 1)), new((4, 4, 4))]), ["web-a 0"]);
    assert!(planned(&d, &[old((0, 0, 0)), new((4, 4, 4))]).is_empty());
}

#[test]
fn broken_old_pods_go_first() {
    let d = deployment(4, "c", json!({}));
    let sets = [
        set("a", 1, (2, 2, 2), 4),
        set("b", 2, (2, 2, 0), 4),
        set("c", 3, (1, 1, 1), 4),
    ];
    // Five Pods, three must stay available: the two of `b` never were.
    assert_eq!(planned(&d, &sets), ["web-b 0"]);
}

#[test]
fn limits_round_as_documented() {
    let limits = |replicas, surge: Value, unavailable: Value| {
        let change = json!({"spec": {"strategy": {"rollingUpdate":
            {"maxSurge": surge, "maxUnavailable": unavailable}}}});
        let limits = Limits::of(&deployment(replicas, "a", change));
        (limits.surge, limits.unavailable)
    };
    assert_eq!(limits(10, json!("25%"), json!("25%")), (3, 2));
    assert_eq!(limits(1, json!("25%"), json!("25%")), (1, 0));
    assert_eq!(limits(5, json!(0), json!(0)), (0, 1));
    assert_eq!(limits(5, json!(0), json!("10%")), (0, 1));
    assert_eq!(limits(2, json!(1), json!(7)), (1, 2));
    assert_eq!(limits(0, json!(1), json!(1)), (1, 0));
}

#[test]
fn recreate_waits_for_the_old_to_end() {
    let change = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}});
    let d = deployment(3, "b", change);
    assert_eq!(planned(&d, &[set("a", 1, (3, 3, 3), 3)]), ["web-a 0"]);
    assert!(planned(&d, &[set("a", 1, (0, 1, 0), 3)]).is_empty());
    assert_eq!(planned(&d, &[set("a", 1, (0, 0, 0), 3)]), ["create 3 r2"]);
}

#[test]
fn scaling_is_no_rollout() {
    let d = deployment(10, "a", json!({}));
    assert_eq!(planned(&d, &[set("a", 1, (4, 4, 4), 4)]), ["web-a 10"]);
    let down = deployment(0, "a", json!({}));
    assert_eq!(planned(&down, &[set("a", 1, (4, 4, 4), 4)]), ["web-a 0"]);
    // In the midst of a rollout from `a` to `b` sizes grow in proportion.
    let d = deployment(20, "b", json!({}));
    let sets = [set("a", 1, (8, 8, 8), 10), set("b", 2, (5, 5, 0), 10)];
    assert_eq!(planned(&d, &sets), ["web-a 15", "web-b 10"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let d = deployment(4, "b", json!({"spec": {"paused": true}}));
    assert!(planned(&d, &[set("a", 1, (4, 4, 4), 4)]).is_empty());
    let d = deployment(6, "b", json!({"spec": {"paused": true}}));
    assert_eq!(planned(&d, &[set("a", 1, (4, 4, 4), 4)]), ["web-a 6"]);
}

#[test]
fn rolling_back_gives_the_old_set_a_new_revision() {
    let d = deployment(4, "a", json!({}));
    let sets = [set("a", 1, (0, 0, 0), 4), set("b", 2, (4, 4, 4), 4)];
    let actions = with(&d, &sets, plan);
    let [Action::Update { set, change }] = &actions[..] else {
        panic!("one update expected: {actions:?}");
    };
    assert_eq!(set.name_any(), "web-a");
    assert_eq!(change.annotations[REVISION], "3");
    assert_eq!(
        change.annotations["deployment.kubernetes.io/revision-history"],
        "1"
    );
}

#[test]
fn history_is_trimmed_when_all_is_done() {
    let done = json!({"spec": {"revisionHistoryLimit": 1}, "status": {"observedGeneration": 1,
        "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
    let d = deployment(2, "d", done);
    let sets = [
        set("a", 1, (0, 0, 0), 2),
        set("b", 2, (0, 0, 0), 2),
        set("c", 3, (0, 0, 0), 2),
        set("d", 4, (2, 2, 2), 2),
    ];
    assert_eq!(planned(&d, &sets), ["delete web-a", "delete web-b"]);
}

#[test]
fn a_stray_set_is_claimed_first() {
    let d = deployment(1, "a", json!({}));
    let mut orphan = (*set("a", 1, (1, 1, 1), 1)).clone();
    orphan.metadata.owner_references = None;
    assert_eq!(planned(&d, &[Arc::new(orphan)]), ["adopt web-a"]);
}

fn condition(status: &DeploymentStatus, kind: &str) -> String {
    let found = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_.as_deref() == Some(kind));
    found.map_or("none".to_owned(), |c| {
        format!(
            "{} {}",
            c.status.clone().unwrap(),
            c.reason.clone().unwrap()
        )
    })
}

#[test]
fn conditions_tell_the_progress() {
    let mut d = deployment(2, "a", json!({}));
    let outcome = Outcome {
        created: Some("web-a".to_owned()),
        ..Outcome::default()
    };
    let first = with(&d, &[], |o| status(o, &outcome));
    assert_eq!(
        condition(&first, "Progressing"),
        "True NewReplicaSetCreated"
    );
    assert_eq!(
        condition(&first, "Available"),
        "False MinimumReplicasUnavailable"
    );

    d.status = Some(first);
    let none = Outcome::default();
    let second = with(&d, &[set("a", 1, (2, 2, 1), 2)], |o| status(o, &none));
    assert_eq!(condition(&second, "Progressing"), "True ReplicaSetUpdated");
    assert_eq!(
        (second.replicas, second.unavailable_replicas),
        (Some(2), Some(1))
    );
    let again = with(&d, &[set("a", 1, (2, 2, 1), 2)], |o| status(o, &none));
    let next = next_check(&d, &again, NOW.parse().unwrap()).unwrap();
    assert_eq!(next.as_secs(), 601);

    d.status = Some(second);
    let third = with(&d, &[set("a", 1, (2, 2, 2), 2)], |o| status(o, &none));
    assert_eq!(
        condition(&third, "Progressing"),
        "True NewReplicaSetAvailable"
    );
    assert_eq!(
        condition(&third, "Available"),
        "True MinimumReplicasAvailable"
    );
    assert!(complete(&d, &third));
}

#[test]
fn a_rollout_that_stands_still_times_out() {
    let stuck = |at: &str| {
        let condition = json!({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": at, "lastTransitionTime": at});
        let d = deployment(
            2,
            "a",
            json!({"status": {"replicas": 2, "updatedReplicas": 2,
            "conditions": [condition]}}),
        );
        let status = with(&d, &[set("a", 1, (2, 2, 0), 2)], |o| {
            status(o, &Outcome::default())
        });
        condition_of(&status)
    };
    fn condition_of(status: &DeploymentStatus) -> String {
        condition(status, "Progressing")
    }
    assert_eq!(stuck("2026-11-20T11:55:00Z"), "True ReplicaSetUpdated");
    assert_eq!(
        stuck("2026-11-20T11:49:00Z"),
        "False ProgressDeadlineExceeded"
    );
}
