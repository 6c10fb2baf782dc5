//! Tables and partial metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn tables() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let table = api.get_as(CONFIG_MAPS, TABLE).await.ok(200);
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(row["cells"][0], "a");
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"], object["metadata"]);
    let whole = api
        .get_as(&format!("{CONFIG_MAPS}/a?includeObject=Object"), TABLE)
        .await
        .ok(200);
    assert_eq!(whole["rows"][0]["object"], object);
    assert_eq!(
        whole["metadata"]["resourceVersion"],
        object["metadata"]["resourceVersion"]
    );
    let none = api
        .get_as(&format!("{CONFIG_MAPS}?includeObject=None"), TABLE)
        .await
        .ok(200);
    assert!(none["rows"][0].get("object").is_none());
    api.get_as(&format!("{CONFIG_MAPS}?includeObject=x"), TABLE)
        .await
        .fails(400, "BadRequest");
}

#[tokio::test]
async fn partial_metadata() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let list = api.get_as(CONFIG_MAPS, PARTIAL).await.ok(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert_eq!(list["items"][0]["metadata"], object["metadata"]);
    assert!(list["items"][0].get("data").is_none());
    let one = api
        .get_as(
            &format!("{CONFIG_MAPS}/a"),
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        )
        .await;
    assert_eq!(one.ok(200)["metadata"], object["metadata"]);
}

#[tokio::test]
async fn tables_are_watched() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let query =
        "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut watch = api.watch_as(&format!("{CONFIG_MAPS}?{query}"), TABLE).await;
    let first = watch.event().await.unwrap();
    assert_eq!(first["type"], "ADDED");
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    let rows = first["object"]["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["cells"][0]), (1, &json!("a")));
    assert_eq!(rows[0]["object"]["metadata"], object["metadata"]);
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let end = &bookmark["object"]["rows"][0]["object"]["metadata"];
    assert_eq!(end["annotations"]["k8s.io/initial-events-end"], "true");
    // The columns are those of the first table.
    api.config_map("b").await;
    let second = watch.event().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], json!(null));
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    api.delete(&format!("{CONFIG_MAPS}/a")).await.ok(200);
    let gone = watch.event().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn partial_metadata_is_watched() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let partial = PARTIAL.replace("MetadataList", "Metadata");
    let query =
        "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut watch = api
        .watch_as(&format!("{CONFIG_MAPS}?{query}"), &partial)
        .await;
    let added = watch.event().await.unwrap();
    assert_eq!(
        added["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
    );
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "PartialObjectMetadata");
    api.delete(&format!("{CONFIG_MAPS}/a")).await.ok(200);
    let gone = watch.event().await.unwrap();
    assert_eq!(
        (&gone["type"], gone["object"].get("data")),
        (&json!("DELETED"), None)
    );
}

#[tokio::test]
async fn events_are_two_views_of_the_same_objects() {
    let api = Api::new().await;
    let core = "/api/v1/namespaces/default/events";
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "e.1"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Started", "message": "it did", "type": "Normal", "count": 2,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    });
    let created = api.post(core, &event).await.ok(201);
    let seen = api.get(&format!("{new}/e.1")).await.ok(200);
    assert_eq!(seen["apiVersion"], "events.k8s.io/v1");
    assert_eq!(seen["note"], "it did");
    assert_eq!(seen["regarding"]["name"], "p");
    assert_eq!(seen["deprecatedCount"], 2);
    assert_eq!(seen["metadata"], created["metadata"]);
    let listed = api.get(new).await.ok(200);
    assert_eq!(listed["items"][0], seen);

    let event = json!({
        "metadata": {"name": "e.2"}, "regarding": {"kind": "Pod", "namespace": "default", "name": "q"},
        "reason": "Started", "note": "so did I", "type": "Normal", "action": "Start",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "x.io/y", "reportingInstance": "y-1",
    });
    api.post(new, &event).await.ok(201);
    let of_q = api
        .get(&format!("{core}?fieldSelector=involvedObject.name%3Dq"))
        .await
        .ok(200);
    assert_eq!(of_q["items"].as_array().unwrap().len(), 1);
    assert_eq!(of_q["items"][0]["message"], "so did I");
    let mut watch = api
        .watch(&format!(
            "{new}?watch=1&resourceVersion={}",
            created["metadata"]["resourceVersion"].as_str().unwrap()
        ))
        .await;
    assert_eq!(watch.event().await.unwrap()["object"]["note"], "so did I");
}

/// A long list is made a part at a time.
#[tokio::test]
async fn others_have_their_turn_while_a_long_table_is_made() {
    let api = Api::new().await;
    for n in 0..40 {
        let data = json!({"a": "x".repeat(64 * 1024)});
        let body = json!({"metadata": {"name": format!("c{n:02}")}, "data": data});
        api.post(CONFIG_MAPS, &body).await.ok(201);
    }
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let before = turns.load(Ordering::Relaxed);
    let table = api.get_as(CONFIG_MAPS, TABLE).await.ok(200);
    let turns = turns.load(Ordering::Relaxed) - before;
    other.abort();
    assert!(turns >= 40, "{turns}");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 40);
    assert_eq!(rows[7]["cells"][0], "c07");
    // The other formats are made elsewhere.
    let yaml = api.get_as(CONFIG_MAPS, "application/yaml").await;
    assert_eq!(yaml.code, 200);
    assert_eq!(yaml.text.matches("name: c").count(), 40);
}

#[tokio::test]
async fn shapes_have_the_version_that_is_asked_for() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let one = format!("{CONFIG_MAPS}/a");
    for version in ["v1", "v1beta1"] {
        let ask = async |path: &str, kind: &str| {
            let accept = format!("application/json;as={kind};v={version};g=meta.k8s.io");
            api.get_as(path, &accept).await.ok(200)
        };
        let said = |object: &Value, kind: &str| {
            assert_eq!(object["kind"], kind);
            assert_eq!(object["apiVersion"], format!("meta.k8s.io/{version}"));
        };
        for path in [CONFIG_MAPS, &*one] {
            let table = ask(path, "Table").await;
            said(&table, "Table");
            said(&table["rows"][0]["object"], "PartialObjectMetadata");
        }
        let list = ask(CONFIG_MAPS, "PartialObjectMetadataList").await;
        said(&list, "PartialObjectMetadataList");
        said(&list["items"][0], "PartialObjectMetadata");
        let partial = ask(&one, "PartialObjectMetadata").await;
        said(&partial, "PartialObjectMetadata");
        assert_eq!(partial["metadata"], object["metadata"]);
        let accept = format!("application/json;as=Table;v={version};g=meta.k8s.io");
        let query = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let mut watch = api
            .watch_as(&format!("{CONFIG_MAPS}?{query}"), &accept)
            .await;
        for event in ["ADDED", "BOOKMARK"] {
            let told = watch.event().await.unwrap();
            assert_eq!(told["type"], event);
            said(&told["object"], "Table");
            said(
                &told["object"]["rows"][0]["object"],
                "PartialObjectMetadata",
            );
        }
    }
}

#[tokio::test]
async fn a_list_is_no_object_and_an_object_no_list() {
    let api = Api::new().await;
    api.config_map("a").await;
    let one = format!("{CONFIG_MAPS}/a");
    for (path, kind, code) in [
        (CONFIG_MAPS, "PartialObjectMetadataList", 200),
        (CONFIG_MAPS, "PartialObjectMetadata", 406),
        (&*one, "PartialObjectMetadata", 200),
        (&*one, "PartialObjectMetadataList", 406),
    ] {
        let accept = format!("application/json;as={kind};v=v1;g=meta.k8s.io");
        let answer = api.get_as(path, &accept).await;
        assert_eq!(answer.code, code, "{path} {kind}");
        if code == 406 {
            let message = answer.fails(406, "NotAcceptable");
            assert!(
                message.contains(&format!("you requested {kind},")),
                "{message}"
            );
        } else {
            assert_eq!(answer.json()["kind"], kind);
        }
    }
}
