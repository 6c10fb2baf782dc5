//! The wire formats: objects come back as they were, and damaged bytes are refused or read as
//! something that is sound in itself.

use std::borrow::Cow;

use coracle_apimachinery::{cbor, protobuf};
use serde_json::Value;

use crate::draw::Draw;
use crate::fuzz;
use crate::objects::Kind;

const LIMIT: usize = 1 << 20;

/// What is read of any bytes can be written, and read again as the same.
fn any_protobuf(bytes: &[u8]) {
    let Ok(json) = protobuf::to_json(bytes, LIMIT) else {
        return;
    };
    let mut value: Value = serde_json::from_slice(&json).unwrap();
    let Ok(kind) = protobuf::Kind::of(&json) else {
        panic!("{value} is of no kind");
    };
    // Times and numbers that JSON shows but that Go would not write.
    let Ok(written) = kind.encode(&json) else {
        return;
    };
    let again = protobuf::to_json(&written, 2 * LIMIT).unwrap();
    let mut again = serde_json::from_slice(&again).unwrap();
    // JSON within protobuf may be a null, and to be null is to be left out where JSON is written.
    without_nulls(&mut value);
    without_nulls(&mut again);
    alike(&value, &again);
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn in_protobuf(bytes: &[u8]) {
    if bytes.starts_with(b"k8s\0") {
        return any_protobuf(bytes);
    }
    let mut draw = Draw::new(bytes);
    let kind = Kind::draw(&mut draw);
    // Where it holds a schema or a boolean, neither is drawn; it is not served yet.
    if kind.gvk.kind == "CustomResourceDefinition" {
        return;
    }
    let object = kind.object(&mut draw);
    let json = object.to_string();
    let of = protobuf::Kind::of(json.as_bytes()).unwrap();
    let written = of
        .encode(json.as_bytes())
        .unwrap_or_else(|error| panic!("{json}: {error}"));
    let read = protobuf::to_json(&written, LIMIT).unwrap_or_else(|error| panic!("{json}: {error}"));
    // Bytes that are none are there in protobuf, and in JSON they are not: what was read is the mark.
    let again = of.encode(&read).unwrap();
    let again = protobuf::to_json(&again, LIMIT).unwrap();
    assert_eq!(again, read, "{json}");
    contained(&object, &serde_json::from_slice(&read).unwrap(), "");
    any_protobuf(&draw.damaged(written));
}

/// What says something stays, and what is no JSON stays none.
fn without_omitted(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let object = Kind::draw(&mut draw).object(&mut draw);
    let json = object.to_string().into_bytes();
    let of = protobuf::Kind::of(&json).unwrap();
    let damaged = draw.damaged(json.clone());
    for json in [json, damaged] {
        let left = of.without_omitted(&json);
        let read = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
        match (read(&json), read(&left)) {
            (Some(said), Some(left)) => contained(&said, &left, ""),
            (said, left) => assert_eq!(said, left),
        }
        let again = of.without_omitted(&left);
        assert!(matches!(again, Cow::Borrowed(_)), "once is enough");
    }
}

/// All of one value that is not empty is in the other.
fn contained(value: &Value, within: &Value, path: &str) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    };
    match (value, within) {
        (Value::Object(members), Value::Object(others)) => {
            let typed = path.ends_with(']');
            for (name, member) in members {
                let path = format!("{path}.{name}");
                match others.get(name) {
                    Some(other) => contained(member, other, &path),
                    // Go's JSON leaves out what is empty, and what holds nothing else.
                    // The type of an object within another has no number.
                    None => assert!(
                        empty(member) || typed && matches!(name.as_str(), "kind" | "apiVersion"),
                        "{path} is lost: {member}"
                    ),
                }
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            assert_eq!(items.len(), others.len(), "{path}");
            for (at, (item, other)) in items.iter().zip(others).enumerate() {
                contained(item, other, &format!("{path}[{at}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!(close(a, b), "{path}: {a} {b}");
        }
        // Some times have fractions of a second and always show them, others drop them.
        (Value::String(value), Value::String(other)) if second(value).is_some() => {
            assert_eq!(second(value), second(other), "{path}: {value} {other}");
        }
        (value, other) => assert!(
            value == other || (empty(value) && empty(other)),
            "{path}: {value} {other}"
        ),
    }
}

fn any_cbor(bytes: &[u8]) {
    let Ok(json) = cbor::to_json(bytes, LIMIT) else {
        return;
    };
    let value: Value = serde_json::from_slice(&json)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
    let written = cbor::from_json(&json).unwrap();
    let again = cbor::to_json(&written, 2 * LIMIT).unwrap();
    alike(&value, &serde_json::from_slice(&again).unwrap());
}

/// The second of a time.
fn second(text: &str) -> Option<i128> {
    let time = text.parse::<jiff::Timestamp>().ok()?;
    Some(time.as_nanosecond().div_euclid(1_000_000_000))
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= a.abs() * 1e-14
}

/// Whether two values are the same but for the last digits of fractions, which are not kept where
/// JSON is read.
fn alike(a: &Value, b: &Value) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{a:?} {b:?}");
            a.values().zip(b.values()).for_each(|(a, b)| alike(a, b));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| alike(a, b));
        }
        (Value::Number(x), Value::Number(y)) if x.is_f64() && y.is_f64() => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            assert!(close(x, y), "{x} {y}");
        }
        (a, b) => assert_eq!(a, b),
    }
}

fn in_cbor(bytes: &[u8]) {
    if bytes.starts_with(b"\xd9\xd9\xf7") {
        return any_cbor(bytes);
    }
    let mut draw = Draw::new(bytes);
    let value = match draw.below(2) {
        0 => draw.members(5),
        _ => Kind::draw(&mut draw).object(&mut draw),
    };
    let written = cbor::from_json(value.to_string().as_bytes()).unwrap();
    let read = cbor::to_json(&written, LIMIT).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), value);
    any_cbor(&draw.damaged(written));
}

#[test]
fn objects_in_protobuf() {
    fuzz!(in_protobuf);
}

#[test]
fn empty_values_of_objects() {
    fuzz!(without_omitted);
}

#[test]
fn objects_in_cbor() {
    fuzz!(in_cbor);
}
