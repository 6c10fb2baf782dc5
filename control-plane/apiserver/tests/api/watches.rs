//! Watches.

use axum::body::Body;
use bytes::Bytes;
use coracle_store::MemoryStore;
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, DEADLINE, PODS};

#[tokio::test]
async fn a_watch_without_a_version_begins_with_the_state() {
    let api = Api::new().await;
    api.config_map("a").await;
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(watch.line().await, "ADDED a");
    api.config_map("b").await;
    assert_eq!(watch.line().await, "ADDED b");
    api.patch(
        &format!("{CONFIG_MAPS}/a"),
        "merge",
        &json!({"data": {"x": "y"}}),
    )
    .await
    .ok(200);
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(
        event["object"],
        api.get(&format!("{CONFIG_MAPS}/a")).await.ok(200)
    );
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["data"]["x"], "y");
    // At the version of its end, as etcd has it.
    let now = api.get(CONFIG_MAPS).await.ok(200)["metadata"]["resourceVersion"].clone();
    assert_eq!(event["object"]["metadata"]["resourceVersion"], now);
}

#[tokio::test]
async fn a_path_may_ask_for_a_watch_too() {
    let api = Api::new().await;
    api.config_map("a").await;
    api.config_map("ab").await;
    let collection = CONFIG_MAPS.replace("/v1/", "/v1/watch/");
    let mut all = api.watch(&collection).await;
    assert_eq!(all.line().await, "ADDED a");
    assert_eq!(all.line().await, "ADDED ab");
    let mut everywhere = api.watch("/api/v1/watch/configmaps").await;
    everywhere
        .until(|event| event["object"]["metadata"]["name"] == "ab")
        .await;
    let one = format!("{collection}/a");
    for query in ["", "?fieldSelector=metadata.name%3Da"] {
        let mut watch = api.watch(&format!("{one}{query}")).await;
        assert_eq!(watch.line().await, "ADDED a");
        api.config_map(&format!("b{}", query.len())).await;
        let labels = json!({"metadata": {"labels": {"n": query.len().to_string()}}});
        let path = format!("{CONFIG_MAPS}/a");
        api.patch(&path, "merge", &labels).await.ok(200);
        assert_eq!(watch.line().await, "MODIFIED a");
    }
    let other = format!("{one}?fieldSelector=metadata.name%3Db");
    api.get(&other).await.fails(400, "BadRequest");
    let body = json!({"metadata": {"name": "c"}});
    let posted = api.post(&collection, &body).await;
    posted.fails(405, "MethodNotAllowed");
    let patched = api.patch(&one, "merge", &json!({})).await;
    patched.fails(405, "MethodNotAllowed");
    for path in [&one, &collection] {
        api.delete(path).await.fails(405, "MethodNotAllowed");
    }
    api.get(&format!("{CONFIG_MAPS}/a")).await.ok(200);
    // Only objects are watched, and no proxy begins there.
    let below = PODS.replace("/v1/", "/v1/watch/") + "/p/proxy/x";
    api.get(&below).await.fails(404, "NotFound");
    api.post(&below, &body).await.fails(404, "NotFound");
}

#[tokio::test]
async fn a_watch_from_a_version_sees_what_came_after() {
    let api = Api::new().await;
    let a = api.config_map("a").await;
    api.config_map("b").await;
    let version = a["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}"))
        .await;
    assert_eq!(watch.line().await, "ADDED b");
}

#[tokio::test]
async fn a_selection_sees_objects_come_and_go() {
    let api = Api::new().await;
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=app%3Dx"))
        .await;
    let a = format!("{CONFIG_MAPS}/a");
    api.config_map("a").await;
    api.patch(&a, "merge", &label("x")).await.ok(200);
    assert_eq!(watch.line().await, "ADDED a");
    let gone = api.patch(&a, "merge", &label("y")).await.ok(200);
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    // The last state that matched, at the version at which it no longer did.
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "x");
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"],
        gone["metadata"]["resourceVersion"]
    );
    let mut one = api
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Dab"
        ))
        .await;
    let everywhere = "/api/v1/configmaps?watch=1&fieldSelector=metadata.name%3Dab";
    let mut everywhere = api.watch(everywhere).await;
    api.config_map("abc").await;
    api.config_map("ab").await;
    assert_eq!(one.line().await, "ADDED ab");
    assert_eq!(everywhere.line().await, "ADDED ab");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let api = Api::new().await;
    api.config_map("a").await;
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let version = api.get(CONFIG_MAPS).await.ok(200)["metadata"]["resourceVersion"].clone();
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], version);
    api.config_map("b").await;
    assert_eq!(watch.line().await, "ADDED b");
}

#[tokio::test]
async fn a_version_that_is_gone_is_told_in_the_stream() {
    let api = Api::over(MemoryStore::with_history(1), |_| {}).await;
    api.config_map("a").await;
    api.config_map("b").await;
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"))
        .await;
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 410);
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(watch.event().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_when_it_was_asked_to() {
    let api = Api::new().await;
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"))
        .await;
    assert!(watch.event().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark() {
    let api = Api::new().await;
    let now = api.get(CONFIG_MAPS).await.ok(200)["metadata"]["resourceVersion"].clone();
    let now = now.as_str().unwrap();
    let query = format!(
        "watch=1&timeoutSeconds=3&allowWatchBookmarks=true&fieldSelector=metadata.name%3Da&resourceVersion={now}"
    );
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    // Of no concern to the watch: the next one may begin behind it.
    let other = api.config_map("b").await;
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let version = |object: &Value| -> u64 {
        let text = object["metadata"]["resourceVersion"].as_str();
        text.unwrap().parse().unwrap()
    };
    let told = version(&bookmark["object"]);
    assert!(told <= version(&other) && told > 0, "{bookmark}");
    assert!(watch.event().await.is_none());
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_in_every_shape() {
    let api = Api::new().await;
    api.config_map("a").await;
    api.config_map("b").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=name%3Da";
    let now = api.get(CONFIG_MAPS).await.ok(200)["metadata"]["resourceVersion"].clone();
    let partial = ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let table = ";as=Table;g=meta.k8s.io;v=v1";
    for (shape, kind, meta) in [
        ("", "ConfigMap", "/object/metadata"),
        (partial, "PartialObjectMetadata", "/object/metadata"),
        (table, "Table", "/object/rows/0/object/metadata"),
    ] {
        let accept = format!("application/json{shape}");
        let mut watch = api
            .watch_as(&format!("{CONFIG_MAPS}?{query}"), &accept)
            .await;
        let first = watch.event().await.unwrap();
        assert_eq!(first["type"], "ADDED");
        assert_eq!(first.pointer(meta).unwrap()["name"], "a", "{kind}");
        let bookmark = watch.event().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(bookmark["object"]["kind"], kind);
        let meta = bookmark.pointer(meta).unwrap();
        assert_eq!(meta["resourceVersion"], now, "{kind}");
        assert_eq!(
            meta["annotations"],
            json!({"k8s.io/initial-events-end": "true"})
        );
    }
}

#[tokio::test]
async fn all_who_watch_are_sent_the_same_bytes() {
    let api = Api::new().await;
    api.config_map("a").await;
    for accept in [
        "application/json",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
    ] {
        let now = api.get(CONFIG_MAPS).await.ok(200)["metadata"]["resourceVersion"].clone();
        let query = format!("watch=1&resourceVersion={}", now.as_str().unwrap());
        let mut watches = Vec::new();
        for _ in 0..3 {
            let request = Request::get(format!("{CONFIG_MAPS}?{query}")).header("accept", accept);
            let response = api.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.status(), 200, "{accept}");
            watches.push(response.into_body().into_data_stream());
        }
        let patch = json!({"data": {"for": accept}});
        let path = format!("{CONFIG_MAPS}/a");
        api.patch(&path, "merge", &patch).await.ok(200);
        let mut sent: Vec<Bytes> = Vec::new();
        for watch in &mut watches {
            let frame = tokio::time::timeout(DEADLINE, watch.next()).await;
            sent.push(frame.unwrap().unwrap().unwrap());
        }
        // Not others that are the same.
        let places: Vec<_> = sent.iter().map(|frame| frame.as_ptr()).collect();
        assert_eq!(places, [places[0]; 3], "{accept}");
    }
}
