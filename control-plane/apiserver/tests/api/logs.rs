//! pods/log and pods/exec: what is checked before a kubelet is asked. The way to the kubelet itself is in
//! `tls.rs`, where there are certificates.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::harness::{Api, PODS, pod};

#[tokio::test]
async fn the_container_must_be_clear() {
    let api = Api::new().await;
    api.post(PODS, &pod("one")).await.ok(201);
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    api.post(PODS, &two).await.ok(201);
    let mut chosen = two.clone();
    chosen["metadata"] =
        json!({"name": "chosen", "annotations": {"kubectl.kubernetes.io/default-container": "b"}});
    api.post(PODS, &chosen).await.ok(201);

    let mut prepared = pod("prepared");
    prepared["spec"]["initContainers"] = json!([{"name": "a", "image": "i"}]);
    api.post(PODS, &prepared).await.ok(201);

    // Nothing has run yet: there is nothing to show.
    for path in [
        "one/log",
        "prepared/log",
        "one/log?container=c",
        "two/log?container=a",
        "chosen/log",
    ] {
        let answer = api.get(&format!("{PODS}/{path}")).await;
        assert_eq!((answer.code, answer.text.as_str()), (200, ""), "{path}");
    }
    let message = api
        .get(&format!("{PODS}/two/log"))
        .await
        .fails(400, "BadRequest");
    assert_eq!(
        message,
        "a container name must be specified for pod two, choose one of: [a b]"
    );
    api.get(&format!("{PODS}/one/log?container=x"))
        .await
        .fails(400, "BadRequest");
    api.get(&format!("{PODS}/none/log"))
        .await
        .fails(404, "NotFound");
    for (query, code, reason) in [
        ("tailLines=x", 400, "BadRequest"),
        ("tailLines=-1", 422, "Invalid"),
        ("sinceTime=yesterday", 400, "BadRequest"),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            "Invalid",
        ),
    ] {
        api.get(&format!("{PODS}/one/log?{query}"))
            .await
            .fails(code, reason);
    }
}

/// A command would have begun by the time that is found out otherwise.
#[tokio::test]
async fn no_kubelet_is_asked_for_a_connection_that_cannot_be_upgraded() {
    let api = Api::new().await;
    let mut body = pod("p");
    body["spec"]["nodeName"] = json!("nowhere");
    api.post(PODS, &body).await.ok(201);
    let exec = format!("{PODS}/p/exec?command=a&stdout=1");
    let asked = |upgrade: &str| {
        let request = Request::get(exec.as_str())
            .header("connection", "upgrade")
            .header("upgrade", upgrade);
        api.request(request.body(Body::empty()).unwrap())
    };
    for upgrade in ["websocket", "SPDY/3.1"] {
        let message = asked(upgrade).await.fails(400, "BadRequest");
        assert!(message.contains("cannot be upgraded"), "{message}");
    }
    // What is wrong with another one is the kubelet's to say.
    asked("h2c").await.fails(404, "NotFound");
}
