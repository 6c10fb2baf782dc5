//! Statuses that an API takes, refuses, or does not answer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::response::IntoResponse;
use http::StatusCode;
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
