#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::schema::{Field, Omit};
use super::*;

const LIMIT: usize = 1 << 24;

/// Objects as client-go 0.37 encodes them, and the same as its JSON.
const SAMPLES: &[(&str, &str)] = &[
    (
        concat!(
            "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EroCCjIKA3dlYhIAGgAiACoAMgA4AEIICIDiz6oGEABaCgoDYXBwEg",
            "N3ZWJaCQoFZW1wdHkSABL1AQgDEgwKCgoDYXBwEgN3ZWIazQEKHAoAEgAaACIAKgAyADgAQgBaCgoDYXBwEgN3ZWIS",
            "rAEKCQoBdhIEEgIKAAoNCgFzEggyBgoBcxikAxJ0CgFjEgNpOjEiAi14IgAqADILCgAQABiQPyIAKgA6EgoBQRIAGg",
            "saCQoECgJjbRIBa0ISChAKBm1lbW9yeRIGCgQ2NE1pUh0KERIPCgEvEgYIABBQGgAaACIAEAAYACAAKAAwAGoAcgCA",
            "AQCIAQCQAQCiAQAaADIAQgBKAFIAWABgAGgAggEAigEAmgEAwgEAIg8KABILCgkIARAAGgMyNSUoADgAGgwIABAAGA",
            "AgACgAOAAaACIA",
        ),
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web","creationTimestamp":"2023-11-14T22:13:20Z","labels":{"app":"web","empty":""}},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"volumes":[{"name":"v","emptyDir":{}},{"name":"s","secret":{"secretName":"s","defaultMode":420}}],"containers":[{"name":"c","image":"i:1","args":["-x",""],"ports":[{"containerPort":8080}],"env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"cm","key":"k"}}}],"resources":{"limits":{"memory":"64Mi"}},"livenessProbe":{"httpGet":{"path":"/","port":80}}}]}},"strategy":{"rollingUpdate":{"maxUnavailable":"25%"}}},"status":{}}"#,
    ),
    (
        "azhzAAoMCgJ2MRIGU2VjcmV0Eh8KEgoAEgJzLRoAIgAqADIAOABCABIHCgFhEgJi/xoAGgAiAA==",
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"generateName":"s-"},"data":{"a":"Yv8="}}"#,
    ),
    (
        concat!(
            "azhzAAofChZjb29yZGluYXRpb24uazhzLmlvL3YxEgVMZWFzZRIlChAKABIAGgAiACoAMgA4AEIAEhEKAm1lIgsIgO",
            "LPqgYQgJTvOhoAIgA=",
        ),
        r#"{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{},"spec":{"holderIdentity":"me","renewTime":"2023-11-14T22:13:20.123456Z"}}"#,
    ),
    (
        "azhzAAoYCgdhcHBzL3YxEg1EZWxldGVPcHRpb25zEgsI////////////ARoAIgA=",
        r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":-1}"#,
    ),
];

fn decode(body: &[u8]) -> Value {
    serde_json::from_slice(&to_json(body, LIMIT).unwrap()).unwrap()
}

#[test]
fn objects_are_written_and_read_as_go_does() {
    for (protobuf, json) in SAMPLES {
        let protobuf = STANDARD.decode(protobuf).unwrap();
        let kind = Kind::of(json.as_bytes()).unwrap();
        let written = kind.encode(json.as_bytes()).unwrap();
        assert_eq!(written, protobuf, "{json}");
        let want: Value = serde_json::from_str(json).unwrap();
        assert_eq!(decode(&protobuf), want);
    }
}

#[test]
fn members_may_come_in_any_order_and_twice() {
    let orderly = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"b","labels":{"a":"1","b":"2"}},"spec":{"containers":null}}"#;
    let unruly = br#"{"spec":{"containers":null,"x":[{}]},"metadata":{"labels":{"b":"2","a":"0","a":"1"},"name":"a","name":"b"},"apiVersion":"v1","kind":"Pod","unknown":{"a":[1]}}"#;
    let kind = Kind::find("v1", "Pod").unwrap();
    let want = kind.encode(orderly).unwrap();
    assert_eq!(kind.encode(unruly).unwrap(), want);

    // The same fields on the wire: metadata in two pieces, one of them behind the spec, with a
    // key that comes twice and numbers that nobody knows.
    let mut raw = Vec::new();
    let entry = |key: &[u8], value: &[u8]| {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key);
        put_bytes(&mut entry, 2, value);
        let mut field = Vec::new();
        put_bytes(&mut field, 11, &entry);
        field
    };
    put_bytes(&mut raw, 2, b"");
    put_bytes(
        &mut raw,
        1,
        &[entry(b"b", b"2"), entry(b"a", b"0")].concat(),
    );
    put_bytes(&mut raw, 99, b"unknown");
    let mut rest = entry(b"a", b"1");
    put_bytes(&mut rest, 1, b"b");
    put_bytes(&mut raw, 1, &rest);
    let mut body = envelope::head("v1", "Pod", raw.len());
    body.extend_from_slice(&raw);
    let got = decode(&body);
    assert_eq!(
        got["metadata"],
        json!({"name": "b", "labels": {"a": "1", "b": "2"}})
    );
    assert_eq!(decode(&want)["metadata"], got["metadata"]);
}

#[test]
fn lists_and_events_hold_objects() {
    let items = [
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b"}}"#,
    ];
    let meta = r#"{"metadata":{"resourceVersion":"7","remainingItemCount":3}}"#;
    let mut list = List::new("v1", "ConfigMapList").unwrap();
    let mut chunks = Vec::new();
    for item in items {
        list.push(item.as_bytes()).unwrap();
        assert!(list.pending() > 0);
        chunks.extend(list.take());
    }
    let (head, tail) = list.close(meta.as_bytes(), chunks.len()).unwrap();
    let body = [&head[..], &chunks, tail].concat();
    let whole = format!(
        r#"{{"kind":"ConfigMapList","apiVersion":"v1","metadata":{{"resourceVersion":"7","remainingItemCount":3}},"items":[{}]}}"#,
        items.join(",")
    );
    let kind = Kind::of(whole.as_bytes()).unwrap();
    assert_eq!(body, kind.encode(whole.as_bytes()).unwrap());
    assert_eq!(decode(&body)["items"][0]["data"]["k"], "v");
    assert!(List::new("v1", "ConfigMap").is_none());
    assert!(List::new("example.org/v1", "WidgetList").is_none());

    let object = kind.encode(whole.as_bytes()).unwrap();
    let frame = watch_frame("ADDED", &object);
    let (length, event) = frame.split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        event.len()
    );
    let mut wanted = b"\x0a\x05ADDED\x12".to_vec();
    let mut raw = Vec::new();
    put_bytes(&mut raw, 1, &object);
    put_varint(&mut wanted, raw.len() as u64);
    wanted.extend_from_slice(&raw);
    assert_eq!(event, wanted);
}

#[test]
fn lists_of_metadata_have_other_numbers_in_the_older_version() {
    let json = br#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;
    for (version, metadata, items) in [("meta.k8s.io/v1", 1, 2), ("meta.k8s.io/v1beta1", 2, 1)] {
        let kind = Kind::find(version, "PartialObjectMetadataList").unwrap();
        let encoded = kind.encode(json).unwrap();
        let raw = envelope::open(&encoded).unwrap().raw;
        let has = |number: u32, wanted: &[u8]| {
            wire::Reader::new(raw).any(|field| match field.unwrap() {
                (found, wire::Wire::Bytes(bytes)) if found == number => {
                    bytes.windows(wanted.len()).any(|part| part == wanted)
                }
                _ => false,
            })
        };
        assert!(has(metadata, b"\x12\x017"), "{version}");
        assert!(has(items, b"\x0a\x01a"), "{version}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let kind = Kind::find("v1", "Pod").unwrap();
    for json in [
        "",
        "[]",
        r#"{"metadata":1}"#,
        r#"{"metadata":{"labels":[]}}"#,
        r#"{"metadata":{"finalizers":{}}}"#,
        r#"{"metadata":{"name":true}}"#,
        r#"{"metadata":{"generation":"1"}}"#,
        r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
    ] {
        assert!(kind.encode(json.as_bytes()).is_err(), "{json}");
    }
    let head = envelope::head("v1", "Pod", 0);
    assert!(to_json(&head, LIMIT).is_ok());
    let mut gzip = head.clone();
    put_bytes(&mut gzip, 3, b"gzip");
    let mut json = head.clone();
    put_bytes(&mut json, 4, b"application/json");
    let cases: [(&[u8], &str); 7] = [
        (b"", "magic"),
        (b"k8s", "magic"),
        (b"{}", "magic"),
        (&gzip, "compressed"),
        (&json, "encoded in a way"),
        (&envelope::head("example.org/v1", "Widget", 0), "no kind"),
        (
            b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "malformed",
        ),
    ];
    for (body, want) in cases {
        let error = to_json(body, LIMIT).unwrap_err().to_string();
        assert!(error.contains(want), "{error}: {want}");
    }
}

/// A schema within a schema, so many times.
fn nested_schema(depth: usize) -> Vec<u8> {
    let mut schema = Vec::new();
    for _ in 0..depth {
        // `not`
        let mut outer = Vec::new();
        put_bytes(&mut outer, 28, &schema);
        schema = outer;
    }
    let mut validation = Vec::new();
    put_bytes(&mut validation, 1, &schema);
    let mut version = Vec::new();
    put_bytes(&mut version, 4, &validation);
    let mut spec = Vec::new();
    put_bytes(&mut spec, 7, &version);
    let mut definition = Vec::new();
    put_bytes(&mut definition, 2, &spec);
    let mut body = envelope::head(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        definition.len(),
    );
    body.extend_from_slice(&definition);
    body
}

#[test]
fn depth_and_size_are_bounded() {
    assert!(decode(&nested_schema(20))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["not"]["not"].is_object());
    let deep = to_json(&nested_schema(5000), LIMIT);
    assert!(matches!(deep, Err(Error::TooDeep)), "{deep:?}");

    // Two bytes for each become much more in JSON.
    let pods = [0x12, 0].repeat(100_000);
    let mut body = envelope::head("v1", "PodList", pods.len());
    body.extend_from_slice(&pods);
    let large = to_json(&body, 1 << 20);
    assert!(matches!(large, Err(Error::TooLarge(_))), "{large:?}");
}

/// An object with everything that Go's JSON shows of it, and no zeros.
struct Filler(StdRng);

impl Filler {
    fn object(&mut self, api_version: &str, kind: &str) -> Value {
        let id = TABLE.kind(api_version, kind).unwrap();
        let mut object = Map::new();
        self.fields(id, &mut object, 0);
        object.insert("kind".to_owned(), kind.into());
        object.insert("apiVersion".to_owned(), api_version.into());
        object.into()
    }

    fn fields(&mut self, id: Id, into: &mut Map<String, Value>, depth: usize) {
        for field in &TABLE.message(id).fields {
            if let (Type::Message(inner), true) = (field.kind, field.inlined()) {
                self.fields(inner, into, depth);
            } else if self.wanted(field, depth) {
                let value = match field.shape {
                    Shape::One | Shape::Optional => self.value(field.kind, depth),
                    Shape::List => {
                        let count = self.0.random_range(1..3);
                        (0..count).map(|_| self.value(field.kind, depth)).collect()
                    }
                    Shape::Map => {
                        let count = self.0.random_range(1..3);
                        let pairs: Map<_, _> = (0..count)
                            .map(|_| (self.word(), self.value(field.kind, depth)))
                            .collect();
                        pairs.into()
                    }
                };
                if !value.is_null() {
                    into.insert(field.name.to_owned(), value);
                }
            }
        }
    }

    fn wanted(&mut self, field: &Field, depth: usize) -> bool {
        let optional = match field.shape {
            Shape::One => match field.kind {
                Type::Message(_) | Type::Quantity | Type::IntOrString => false,
                _ => field.omit != Omit::Nothing,
            },
            _ => field.omit != Omit::Nothing,
        };
        let time = matches!(field.kind, Type::Time | Type::MicroTime) && field.omit != Omit::Zero;
        !optional || (time && field.shape == Shape::One) || (depth < 8 && self.0.random_bool(0.6))
    }

    fn word(&mut self) -> String {
        let length = self.0.random_range(1..12);
        (0..length)
            .map(|_| self.0.random_range('!'..'\u{500}'))
            .collect()
    }

    fn value(&mut self, kind: Type, depth: usize) -> Value {
        let day = self.0.random_range(10..28);
        match kind {
            Type::String | Type::Quantity => self.word().into(),
            Type::Bytes => STANDARD.encode(self.word()).into(),
            Type::Bool => true.into(),
            Type::Int => (self.0.random_range(1..i64::from(i32::MAX))
                * if self.0.random() { 1 } else { -1 })
            .into(),
            Type::Double => (self.0.random_range(1..1000_i32) as f64 + 0.5).into(),
            Type::Time => format!("20{day}-01-{day}T{day}:00:59Z")
                .replace(&format!("T{day}"), "T23")
                .into(),
            Type::MicroTime => format!("20{day}-01-{day}T00:00:59.0001{day}Z").into(),
            Type::Duration => crate::duration::format(self.0.random()).into(),
            Type::IntOrString => match self.0.random() {
                true => self.word().into(),
                false => self.0.random_range(-5..100_000).into(),
            },
            Type::Json => json!({"any": [self.word(), 1, {"x": null}]}),
            Type::Items => json!([self.word(), self.word()]),
            Type::Message(id) if TABLE.message(id).union => {
                let fields = &TABLE.message(id).fields;
                // Objects within objects end at some depth.
                let field = if depth > 6 {
                    fields
                        .iter()
                        .find(|field| matches!(field.kind, Type::Bool | Type::String))
                } else {
                    fields.get(self.0.random_range(0..fields.len()))
                };
                match field {
                    None => Value::Null,
                    Some(field) if field.shape == Shape::List => {
                        json!([self.value(field.kind, depth + 1)])
                    }
                    Some(field) => self.value(field.kind, depth + 1),
                }
            }
            Type::Message(id) => {
                let mut object = Map::new();
                self.fields(id, &mut object, depth + 1);
                object.into()
            }
        }
    }
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for (version, kind) in TABLE.kinds() {
        let version = if version == "*" { "v1" } else { version };
        for seed in 0..4 {
            let object = Filler(StdRng::seed_from_u64(seed)).object(version, kind);
            let json = serde_json::to_vec(&object).unwrap();
            let protobuf = Kind::find(version, kind).unwrap().encode(&json).unwrap();
            let back = decode(&protobuf);
            assert!(back == object, "{version} {kind}: {back}\nwas {object}");
            let again = serde_json::to_vec(&back).unwrap();
            let again = Kind::find(version, kind).unwrap().encode(&again).unwrap();
            assert!(again == protobuf, "{version} {kind}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_objects_do_not_make_it_panic(
        seed in any::<u64>(),
        kind in 0..1000_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let kinds: Vec<_> = TABLE.kinds().filter(|(version, _)| *version != "*").collect();
        let (version, kind) = kinds[kind % kinds.len()];
        let object = Filler(StdRng::seed_from_u64(seed)).object(version, kind);
        let json = serde_json::to_vec(&object).unwrap();
        let kind = Kind::find(version, kind).unwrap();
        let mut body = kind.encode(&json).unwrap();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(json) = to_json(&body, LIMIT) {
            // What is read is JSON at all events.
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut body = envelope::head("v1", "Pod", bytes.len());
        body.extend_from_slice(&bytes);
        let _ = to_json(&body, LIMIT);
        let _ = to_json(&bytes, LIMIT);
    }
}
