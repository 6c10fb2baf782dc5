#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LIMIT: usize = 1 << 20;

fn read(cbor: &[u8]) -> Value {
    serde_json::from_slice(&to_json(cbor, LIMIT).unwrap()).unwrap()
}

#[test]
fn items_are_read_as_json() {
    let cases: [(&[u8], Value); 12] = [
        (&[0xd9, 0xd9, 0xf7, 0xa0], json!({})),
        (&[0x18, 0x64], json!(100)),
        (&[0x38, 0x63], json!(-100)),
        (&[0xf9, 0x3e, 0x00], json!(1.5)),
        (b"\xa1\x41a\x61b", json!({"a": "b"})),
        // Bytes that are base64 in JSON, in their three forms.
        (b"\xd6\x42b\xff", json!("Yv8=")),
        (b"\xd5\x42b\xff", json!("Yv8")),
        (b"\xd7\x42b\xff", json!("62FF")),
        // A time that says it is one.
        (
            b"\xc0\x54\x32\x30\x32\x36-01-01T00:00:00Z",
            json!("2026-01-01T00:00:00Z"),
        ),
        // Lengths that are not known before.
        (b"\xbf\x61a\x9f\x01\xf6\xff\xff", json!({"a": [1, null]})),
        (b"\x5f\x41a\x42bc\xff", json!("abc")),
        (b"\x7f\x61a\x62bc\xff", json!("abc")),
    ];
    for (cbor, want) in cases {
        assert_eq!(read(cbor), want, "{cbor:x?}");
    }
}

#[test]
fn what_json_has_no_word_for_is_refused() {
    let deep = [&[0x81; 200][..], &[0]].concat();
    let cases: [&[u8]; 14] = [
        b"",
        b"\xa1\x61a",
        b"\x61\xff",
        b"\x41\xff",
        // A key twice, a key that is no string, more behind the item.
        b"\xa2\x61a\x01\x41a\x02",
        b"\xa1\x01\x02",
        b"\x01\x01",
        // NaN, undefined, a simple value, a large number, an integer above 63 bits.
        b"\xf9\x7e\x00",
        b"\xf7",
        b"\xe0",
        b"\xc2\x41\x01",
        b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff",
        &deep,
    ];
    for cbor in cases {
        assert!(to_json(cbor, LIMIT).is_err(), "{cbor:x?}");
    }
    // A short head that promises a lot costs nothing.
    assert!(to_json(b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", LIMIT).is_err());
    assert!(to_json(b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", LIMIT).is_err());
}

#[test]
fn events_follow_one_another() {
    let object = from_json(br#"{"kind":"Pod"}"#).unwrap();
    let event = watch_event("ADDED", &object);
    assert_eq!(
        read(&event),
        json!({"type": "ADDED", "object": {"kind": "Pod"}})
    );
    let wanted = b"\xd9\xd9\xf7\xa2\x44type\x45ADDED\x46object\xd9\xd9\xf7\xa1\x44kind\x43Pod";
    assert_eq!(event, wanted);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 200, 40, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
            proptest::collection::btree_map(".{0,30}", inner, 0..40)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn there_and_back(value in any_json()) {
        let cbor = from_json(value.to_string().as_bytes()).unwrap();
        prop_assert_eq!(read(&cbor), value);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(json) = to_json(&bytes, LIMIT) {
            prop_assert!(serde_json::from_slice::<Value>(&json).is_ok());
        }
    }
}
