//! The wire formats: protobuf, CBOR and YAML beside JSON, and compression.

use axum::body::Body;
use coracle_apimachinery::{cbor, protobuf};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, DEADLINE, PODS, pod};

const LIMIT: usize = 1 << 26;

/// A format in which objects are sent and asked for.
#[derive(Clone, Copy)]
struct Format {
    media_type: &'static str,
    watch: &'static str,
    encode: fn(&[u8]) -> Vec<u8>,
    decode: fn(&[u8]) -> Vec<u8>,
}

const PROTOBUF: Format = Format {
    media_type: protobuf::MEDIA_TYPE,
    watch: "application/vnd.kubernetes.protobuf;stream=watch",
    encode: |json| protobuf::Kind::of(json).unwrap().encode(json).unwrap(),
    decode: |bytes| protobuf::to_json(bytes, LIMIT).unwrap(),
};

const CBOR: Format = Format {
    media_type: cbor::MEDIA_TYPE,
    watch: "application/cbor-seq",
    encode: |json| cbor::from_json(json).unwrap(),
    decode: |bytes| cbor::to_json(bytes, LIMIT).unwrap(),
};

impl Format {
    /// Sends and asks for objects in this format.
    async fn send(&self, api: &Api, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let body = match body {
            Value::Null => Body::empty(),
            object => Body::from((self.encode)(object.to_string().as_bytes())),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", self.media_type)
            .header("content-type", self.media_type)
            .body(body)
            .unwrap();
        let (parts, body) = api.send(request).await.into_parts();
        assert_eq!(parts.headers["content-type"], self.media_type, "{path}");
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&(self.decode)(&bytes)).unwrap();
        (parts.status.as_u16(), json)
    }
}

/// An object without what only one of two formats shows: nulls and empty objects.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), pruned(value)));
            kept.filter(|(_, value)| !value.is_null() && *value != json!({}))
                .collect()
        }
        Value::Array(items) => items.iter().map(pruned).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn objects_are_written_and_read_in_every_format() {
    for format in [PROTOBUF, CBOR] {
        let api = Api::new().await;
        let path = format!("{PODS}/p");
        let (code, created) = format.send(&api, Method::POST, PODS, &pod("p")).await;
        assert_eq!(code, 201, "{created}");
        let plain = api.get(&path).await.ok(200);
        assert_eq!(pruned(&created), pruned(&plain));
        assert_eq!(created["spec"]["restartPolicy"], "Always");

        let mut changed = created.clone();
        changed["metadata"]["labels"] = json!({"a": "b"});
        let (code, updated) = format.send(&api, Method::PUT, &path, &changed).await;
        assert_eq!(code, 200, "{updated}");
        let (code, conflict) = format.send(&api, Method::PUT, &path, &changed).await;
        assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")));
        assert_eq!(conflict["kind"], "Status");

        let (_, got) = format.send(&api, Method::GET, &path, &Value::Null).await;
        assert_eq!(got, updated);
        let (_, list) = format.send(&api, Method::GET, PODS, &Value::Null).await;
        assert_eq!(list["kind"], "PodList");
        let (mut item, mut alone) = (list["items"][0].clone(), got.clone());
        for object in [&mut item, &mut alone] {
            // In protobuf an item does not say what it is.
            object.as_object_mut().unwrap().remove("kind");
            object.as_object_mut().unwrap().remove("apiVersion");
        }
        assert_eq!(item, alone);
        assert!(list["metadata"]["resourceVersion"].is_string());

        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        let (code, _) = format.send(&api, Method::DELETE, &path, &options).await;
        assert_eq!(code, 200);
        let (code, gone) = format.send(&api, Method::GET, &path, &Value::Null).await;
        assert_eq!((code, &gone["reason"]), (404, &json!("NotFound")));
    }
}

#[tokio::test]
async fn long_lists_are_sent_in_every_format() {
    let api = Api::new().await;
    for n in 0..40 {
        let map =
            json!({"metadata": {"name": format!("m-{n:02}")}, "data": {"k": "v".repeat(8000)}});
        api.post(CONFIG_MAPS, &map).await.ok(201);
    }
    let plain = api.get(CONFIG_MAPS).await.ok(200);
    for format in [PROTOBUF, CBOR] {
        let (_, mut list) = format
            .send(&api, Method::GET, CONFIG_MAPS, &Value::Null)
            .await;
        for (item, plain) in list["items"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip(plain["items"].as_array().unwrap())
        {
            item["kind"] = plain["kind"].clone();
            item["apiVersion"] = plain["apiVersion"].clone();
        }
        assert_eq!(list, plain);
    }
    let request = Request::get(CONFIG_MAPS)
        .header("accept-encoding", "gzip")
        .body(Body::empty())
        .unwrap();
    let (parts, body) = api.send(request).await.into_parts();
    assert_eq!(parts.headers["content-encoding"], "gzip");
    let compressed = body.collect().await.unwrap().to_bytes();
    assert!(compressed.len() < 50_000, "{}", compressed.len());

    // The numbers of a list's fields are others in each version.
    for version in ["v1", "v1beta1"] {
        let metadata = format!(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v={version}"
        );
        let request = Request::get(CONFIG_MAPS)
            .header("accept", metadata)
            .body(Body::empty())
            .unwrap();
        let body = api.send(request).await.into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        let list: Value = serde_json::from_slice(&(PROTOBUF.decode)(&bytes)).unwrap();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(list["apiVersion"], format!("meta.k8s.io/{version}"));
        assert_eq!(list["items"][3]["metadata"], plain["items"][3]["metadata"]);
        let read_at = &plain["metadata"]["resourceVersion"];
        assert_eq!(list["metadata"]["resourceVersion"], *read_at);
    }
}

#[tokio::test]
async fn watches_are_sent_in_every_format() {
    for format in [PROTOBUF, CBOR] {
        let api = Api::new().await;
        let created = api.config_map("a").await;
        let path = format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da");
        let request = Request::get(path)
            .header("accept", format!("{}, application/json", format.media_type))
            .body(Body::empty())
            .unwrap();
        let response = api.send(request).await;
        assert_eq!(response.headers()["content-type"], format.watch);
        let frame = tokio::time::timeout(DEADLINE, response.into_body().frame()).await;
        let bytes = frame.unwrap().unwrap().unwrap().into_data().unwrap();
        let object: Value = if format.watch == "application/cbor-seq" {
            let event: Value = serde_json::from_slice(&(format.decode)(&bytes)).unwrap();
            assert_eq!(event["type"], "ADDED");
            event["object"].clone()
        } else {
            let (length, event) = bytes.split_at(4);
            assert_eq!(
                u32::from_be_bytes(length.try_into().unwrap()) as usize,
                event.len()
            );
            let start = event.windows(4).position(|four| four == b"k8s\0").unwrap();
            assert!(event.starts_with(b"\x0a\x05ADDED\x12"));
            serde_json::from_slice(&(format.decode)(&event[start..])).unwrap()
        };
        assert_eq!(object, created);
    }
}

#[tokio::test]
async fn what_has_no_such_form_is_refused() {
    let api = Api::new().await;
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    assert_eq!(api.get_as(CONFIG_MAPS, table).await.code, 406);
    let only = |path: &'static str, accept: &'static str| {
        let request = Request::get(path).header("accept", accept);
        let answer = api.send(request.body(Body::empty()).unwrap());
        async { answer.await.status().as_u16() }
    };
    assert_eq!(only("/version", protobuf::MEDIA_TYPE).await, 406);
    assert_eq!(only("/openapi/v3", protobuf::MEDIA_TYPE).await, 200);
    let yaml = api
        .get_as(&format!("{CONFIG_MAPS}?watch=1"), "application/yaml")
        .await;
    assert_eq!(yaml.code, 406);
    for (media_type, body) in [
        (protobuf::MEDIA_TYPE, &b"{}"[..]),
        (protobuf::MEDIA_TYPE, b"k8s\0\xff"),
        (cbor::MEDIA_TYPE, b"\xa1"),
    ] {
        let answer = api.raw(Method::POST, CONFIG_MAPS, media_type, body).await;
        answer.fails(400, "BadRequest");
    }
}

#[tokio::test]
async fn discovery_is_read_in_protobuf() {
    let api = Api::new().await;
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/api/v1", "APIResourceList"),
    ] {
        let (code, got) = PROTOBUF.send(&api, Method::GET, path, &Value::Null).await;
        assert_eq!((code, &got["kind"]), (200, &json!(kind)));
        let mut plain = api.get(path).await.ok(200);
        for group in plain["groups"].as_array_mut().into_iter().flatten() {
            // In protobuf an item does not say what it is.
            group.as_object_mut().unwrap().remove("kind");
            group.as_object_mut().unwrap().remove("apiVersion");
        }
        assert_eq!(pruned(&got), pruned(&plain), "{path}");
    }
}

#[tokio::test]
async fn json_is_indented_for_people() {
    let api = Api::new().await;
    api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let plain = api.get(&path).await;
    assert!(!plain.text.contains('\n'), "{}", plain.text);
    let whole = api.get(&format!("{path}?pretty=true")).await;
    assert!(
        whole.text.contains("\n  \"metadata\": {\n    "),
        "{}",
        whole.text
    );
    assert_eq!(whole.ok(200), plain.ok(200));
    for (path, code) in [
        (CONFIG_MAPS, 200),
        ("/api/v1", 200),
        ("/version", 200),
        ("/api/v1/nope", 404),
    ] {
        let request = Request::get(path).header("user-agent", "curl/8.5.0");
        let answer = api.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.code, code);
        assert!(answer.text.starts_with("{\n  \""), "{}", answer.text);
        assert!(answer.text.ends_with("\n}"), "{}", answer.text);
        answer.json();
    }
    // An event of a watch is a line.
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?watch=true&pretty=true"))
        .await;
    let event = watch.until(|event| event["object"]["metadata"]["name"] == "a");
    assert_eq!(event.await["type"], "ADDED");
}

#[tokio::test]
async fn media_types_are_the_same_in_any_case() {
    let api = Api::new().await;
    for (name, media_type, body) in [
        (
            "a",
            "Application/JSON; charset=utf-8",
            r#"{"metadata": {"name": "a"}}"#,
        ),
        ("b", "application/YAML", "metadata: {name: b}"),
    ] {
        let created = api.raw(Method::POST, CONFIG_MAPS, media_type, body).await;
        assert_eq!(created.ok(201)["metadata"]["name"], name);
    }
}
