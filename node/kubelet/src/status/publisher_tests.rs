//! Statuses that an API takes, refuses, or does not answer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::watch;

use super::*;

/// How often the statuses of Pods were sent, by path.
type Tried = Arc<watch::Sender<BTreeMap<String, u32>>>;

/// An API that first answers 503 for Pods but `well`, then nothing.
async fn answer(tried: Tried, request: Request) -> axum::response::Response {
    let path = request.uri().path().to_owned();
    let mut times = 0;
    tried.send_modify(|tried| {
        let known = tried.entry(path.clone()).or_default();
        *known += 1;
        times = *known;
    });
    match times {
        _ if path.contains("/well/") => {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}});
            pod.to_string().into_response()
        }
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => std::future::pending().await,
    }
}

fn pod(name: &str) -> Pod {
    let metadata = json!({"name": name, "namespace": "ns", "uid": name});
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

fn running() -> PodStatus {
    PodStatus {
        phase: Some("Running".to_owned()),
        ..PodStatus::default()
    }
}

#[tokio::test]
async fn what_cannot_be_sent_holds_nobody_up() {
    const DAY: Duration = Duration::from_secs(86400);

    // Whether those that fail wait for long, or for an answer that does not come.
    for retry in [DAY, Duration::from_millis(1)] {
        let tried = Tried::default();
        let of = tried.clone();
        let router: axum::Router =
            axum::Router::new().fallback(move |request: Request| answer(of.clone(), request));
        let pace = Pace {
            retry: (retry, retry),
            patience: DAY,
        };
        let client = kube::Client::new(router, "default");
        let publisher = StatusPublisher::new(client, pace);
        let senders: usize = SENDERS.iter().map(|(_, senders)| senders).sum();
        for number in 0..senders * 2 {
            publisher.publish(&pod(&format!("ill-{number}")), running());
        }
        let cancel = CancellationToken::new();
        let (this, token) = (publisher.clone(), cancel.clone());
        let run = tokio::spawn(async move { this.run(token).await });
        let all = async {
            let mut changes = tried.subscribe();
            let tried = |tried: &BTreeMap<_, _>| tried.len() == senders * 2;
            changes.wait_for(tried).await.unwrap();
            publisher.publish(&pod("well"), running());
            publisher.settled("well").await;
        };
        let within = Duration::from_secs(20);
        tokio::time::timeout(within, all).await.unwrap();
        let sent = tried.borrow().keys().any(|path| path.contains("/well/"));
        assert!(sent, "{retry:?}");
        cancel.cancel();
        run.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_answered_is_tried_again() {
    let tried = Tried::default();
    let of = tried.clone();
    let router: axum::Router =
        axum::Router::new().fallback(move |request: Request| answer(of.clone(), request));
    let pace = Pace {
        retry: (Duration::from_millis(1), Duration::from_millis(1)),
        patience: Duration::from_millis(10),
    };
    let publisher = StatusPublisher::new(kube::Client::new(router, "default"), pace);
    let cancel = CancellationToken::new();
    let (this, token) = (publisher.clone(), cancel.clone());
    let run = tokio::spawn(async move { this.run(token).await });
    publisher.publish(&pod("ill"), running());
    let mut changes = tried.subscribe();
    let often = |tried: &BTreeMap<String, u32>| tried.values().any(|times| *times > 3);
    let wait = changes.wait_for(often);
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, wait).await.unwrap().unwrap();
    cancel.cancel();
    run.await.unwrap();
}

/// The statuses that an API was sent.
type Got = Arc<watch::Sender<Vec<Value>>>;

/// An API that has the next of these statuses after each patch, and then the last.
async fn reply(statuses: Vec<Value>, got: Got, request: Request) -> axum::response::Response {
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
    let mut times = 0;
    got.send_modify(|got| {
        got.push(body["status"].clone());
        times = got.len();
    });
    let status = &statuses[times.min(statuses.len()) - 1];
    let metadata = json!({"resourceVersion": (times + 1).to_string()});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status});
    pod.to_string().into_response()
}

#[tokio::test]
async fn what_others_say_meanwhile_is_answered_and_an_apis_own_way_is_not() {
    let [ready, unready] = ["True", "False"].map(|is| json!([{"type": "Ready", "status": is}]));
    let status = |phase: &str, ready: &Value| json!({"phase": phase, "conditions": ready});
    let at = |revision: &str, status: &Value| {
        let mut pod = pod("web");
        pod.metadata.resource_version = Some(revision.to_owned());
        pod.status = serde_json::from_value(status.clone()).unwrap();
        pod
    };
    let wanted = status("Running", &ready);
    let sent = json!({"phase": "Running"});
    let again = json!([{"type": "Ready", "status": "True", "reason": null, "message": null}]);
    let again = json!({"conditions": again});
    for (statuses, expected) in [
        (vec![wanted.clone()], vec![sent.clone()]),
        (vec![status("Own", &ready)], vec![sent.clone()]),
        (
            vec![status("Running", &unready), wanted.clone()],
            vec![sent.clone(), again.clone()],
        ),
        (
            vec![status("Own", &unready), status("Own", &ready)],
            vec![
                sent.clone(),
                json!({"phase": "Running", "conditions": again["conditions"]}),
            ],
        ),
    ] {
        let got = Got::default();
        let (of, answers) = (got.clone(), statuses.clone());
        let reply = move |request: Request| reply(answers.clone(), of.clone(), request);
        let router: axum::Router = axum::Router::new().fallback(reply);
        let publisher = StatusPublisher::new(kube::Client::new(router, "default"), Pace::default());
        let cancel = CancellationToken::new();
        let (this, token) = (publisher.clone(), cancel.clone());
        let run = tokio::spawn(async move { this.run(token).await });
        let before = at("1", &status("Pending", &ready));
        publisher.publish(&before, serde_json::from_value(wanted.clone()).unwrap());
        let within = Duration::from_secs(20);
        let settled = publisher.settled("web");
        tokio::time::timeout(within, settled).await.unwrap();
        assert_eq!(*got.borrow(), expected);
        // Others have changed something else.
        publisher.seen(&at("8", statuses.last().unwrap()));
        let step = publisher.state.lock().entries["web"].step;
        assert_eq!(step, Step::Settled, "{expected:?}");
        publisher.seen(&at("9", &status("Running", &unready)));
        let step = publisher.state.lock().entries["web"].step;
        assert_eq!(step, Step::Queued, "{expected:?}");
        cancel.cancel();
        run.await.unwrap();
    }
}

#[test]
fn only_what_stays_wrong_is_given_up() {
    use Answer::{Again, Gone, Refused};

    for (code, expected) in [
        (400, Refused),
        (401, Again),
        (403, Again),
        (404, Gone),
        (409, Gone),
        (422, Refused),
        (429, Again),
        (500, Again),
        (503, Again),
    ] {
        assert_eq!(Answer::of(code), expected, "{code}");
    }
}
