#![allow(clippy::unwrap_used)]

use futures::FutureExt;
use http::Method;
use serde_json::json;

use super::*;
use crate::request::info::request_info;

fn flow(seats: usize) -> Arc<Flow> {
    patient(seats, Duration::from_secs(60))
}

fn patient(seats: usize, longest: Duration) -> Arc<Flow> {
    let limits = FlowLimits {
        read_only: seats,
        mutating: 0,
    };
    Arc::new(Flow::new(limits, longest))
}

fn one_queue_per_user(shares: i32) -> (FlowSchema, PriorityLevelConfiguration) {
    let schema = json!({
        "metadata": {"name": "people", "uid": "schema-uid"},
        "spec": {
            "matchingPrecedence": 900,
            "distinguisherMethod": {"type": "ByUser"},
            "priorityLevelConfiguration": {"name": "people"},
            "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": "people"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
            }],
        },
    });
    let level = json!({
        "metadata": {"name": "people", "uid": "level-uid"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares,
            "lendablePercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 16, "handSize": 1, "queueLengthLimit": 2}},
        }},
    });
    (
        serde_json::from_value(schema).unwrap(),
        serde_json::from_value(level).unwrap(),
    )
}

fn configure(flow: &Flow, shares: i32) {
    let (schema, level) = one_queue_per_user(shares);
    flow.configure(vec![schema], vec![level]);
}

#[tokio::test]
async fn one_too_many_is_refused_and_administrators_are_not() {
    let flow = flow(6);
    // catch-all: one seat of six for five shares of ... all of them.
    let read = request_info(&Method::GET, "/api/v1/pods", false);
    let user = UserInfo::new("joe", &["system:authenticated"]);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(
            flow.admit(&user, &read, 1, flow.longest)
                .await
                .ok()
                .unwrap(),
        );
    }
    let refused = flow
        .admit(&user, &read, 1, flow.longest)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.status.code(), 429);
    assert_eq!(refused.status.retry_after_seconds(), Some(1));
    assert_eq!(&*refused.place.level, "catch-all");
    let admin = UserInfo::new("admin", &[crate::auth::MASTERS]);
    assert!(flow.admit(&admin, &read, 1, flow.longest).await.is_ok());
    held.pop();
    assert!(flow.admit(&user, &read, 1, flow.longest).await.is_ok());
}

#[tokio::test]
async fn who_waits_is_woken_and_who_gives_up_leaves_the_queue() {
    let flow = flow(20);
    configure(&flow, 5);
    let read = request_info(&Method::GET, "/api/v1/pods", false);
    let jane = UserInfo::new("jane", &["people"]);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(
            flow.admit(&jane, &read, 1, flow.longest)
                .await
                .ok()
                .unwrap(),
        );
    }
    assert_eq!(held[0].place().schema_uid, "schema-uid");
    assert_eq!(held[0].place().level_uid, "level-uid");
    // Two wait, a third has no place in the queue.
    let mut first = Box::pin(flow.admit(&jane, &read, 1, flow.longest));
    let mut second = Box::pin(flow.admit(&jane, &read, 1, flow.longest));
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(futures::poll!(second.as_mut()).is_pending());
    assert!(flow.admit(&jane, &read, 1, flow.longest).await.is_err());
    // Another user has a queue of her own: she waits, and is served next but one at the latest.
    let mary = UserInfo::new("mary", &["people"]);
    let mut third = Box::pin(flow.admit(&mary, &read, 1, flow.longest));
    assert!(futures::poll!(third.as_mut()).is_pending());
    drop(first);
    let dump = flow.dump("dump_requests", true).unwrap();
    assert!(
        dump.contains("mary") && dump.contains("/api/v1/pods"),
        "{dump}"
    );
    held.truncate(8);
    assert!(third.await.is_ok());
    assert!(second.await.is_ok());
    drop(held);
    let dump = flow.dump("dump_priority_levels", false).unwrap();
    assert!(dump.contains("people"), "{dump}");
    assert!(!dump.contains("people,            1, "), "{dump}");
}

#[tokio::test]
async fn who_waits_too_long_is_refused() {
    let short = Duration::from_millis(40);
    let read = request_info(&Method::GET, "/api/v1/pods", false);
    let jane = UserInfo::new("jane", &["people"]);
    // By the time that all requests have, or by that which this one has.
    for longest in [short, Duration::from_secs(3600)] {
        let flow = patient(1, longest);
        configure(&flow, 5);
        let held = flow.admit(&jane, &read, 1, longest).await.ok().unwrap();
        let refused = flow.admit(&jane, &read, 1, short).await.err().unwrap();
        assert_eq!(refused.status.code(), 429);
        drop(held);
        assert!(flow.admit(&jane, &read, 1, longest).await.is_ok());
    }
}

#[tokio::test]
async fn a_new_configuration_frees_who_waits() {
    let flow = flow(100);
    configure(&flow, 0);
    let read = request_info(&Method::GET, "/api/v1/pods", false);
    let jane = UserInfo::new("jane", &["people"]);
    // A level without shares holds everybody back.
    let mut waits = Box::pin(flow.admit(&jane, &read, 1, flow.longest));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    configure(&flow, 5);
    let permit = waits.await.ok().unwrap();
    // Its level goes, and it is served to its end.
    flow.configure(Vec::new(), Vec::new());
    assert!(
        flow.dump("dump_priority_levels", false)
            .unwrap()
            .contains("people")
    );
    drop(permit);
    flow.adjust();
    assert!(
        !flow
            .dump("dump_priority_levels", false)
            .unwrap()
            .contains("people")
    );
}

#[tokio::test]
async fn seats_that_are_held_too_long_are_taken_back() {
    let flow = patient(1, Duration::ZERO);
    let read = request_info(&Method::GET, "/api/v1/pods", false);
    let user = UserInfo::new("joe", &["system:authenticated"]);
    let held = flow
        .admit(&user, &read, 1, flow.longest)
        .await
        .ok()
        .unwrap();
    assert!(flow.admit(&user, &read, 1, flow.longest).await.is_err());
    flow.adjust();
    assert!(flow.admit(&user, &read, 1, flow.longest).await.is_ok());
    // What was taken back is not given back twice.
    drop(held);
    let held = flow.admit(&user, &read, 1, flow.longest).await;
    assert!(held.is_ok() && flow.admit(&user, &read, 1, flow.longest).await.is_err());
}

#[tokio::test]
async fn idle_seats_are_borrowed_by_those_who_want_them() {
    let flow = flow(100);
    let (schema, mut level) = one_queue_per_user(5);
    let limited = level.spec.limited.as_mut().unwrap();
    limited.lendable_percent = Some(50);
    let mut other = level.clone();
    other.metadata.name = Some("idle".to_owned());
    flow.configure(vec![schema], vec![level, other]);
    let read = request_info(&Method::GET, "/api/v1/pods", false);
    let jane = UserInfo::new("jane", &["people"]);
    let mut held = Vec::new();
    let mut waiting: Vec<_> = Vec::new();
    for _ in 0..100 {
        loop {
            waiting.push(Box::pin(flow.admit(&jane, &read, 1, flow.longest)));
            waiting.retain_mut(|admitted| match admitted.as_mut().now_or_never() {
                Some(permit) => {
                    held.extend(permit.ok());
                    false
                }
                None => true,
            });
            if waiting.len() == 2 {
                break;
            }
        }
        flow.adjust();
    }
    // A third of 102 seats are its own; the others keep what they do not lend.
    assert!(held.len() > 40 && held.len() <= 102 - 17, "{}", held.len());
}
