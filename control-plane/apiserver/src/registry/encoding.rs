//! Objects as the store holds them and as clients see them.
//!
//! An object is encoded once, when it is written. What is stored lacks
//! `metadata.resourceVersion`, which is not known before the write; it is spliced in at
//! [`Attributes::splice`] whenever the bytes are served. Only bytes of another schema
//! generation, or kinds that are a view of another kind's objects, are decoded to be served.
//!
//! Whoever watches sees an object go at the version at which it went, which is not that of its last
//! write. So what is served is a record with the version to be shown ([`Shown`]): all watchers share
//! the record that the store held.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use coracle_apimachinery::json::end_of_string;
use coracle_apimachinery::status::Status;
use coracle_store::{Attributes, Record, Revision, Value, ValueRef};

use super::erased::{Kind, Object};
use super::errors::internal;
use super::set_text;

/// Generation of the schemas that are written now.
pub const SCHEMA: u16 = 1;

/// What an object grows by when its resourceVersion is spliced in, at most.
pub const SPLICED: usize = 48;

/// A record as a client sees it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The record.
    pub record: &'a Record,
    /// What `metadata.resourceVersion` says; 0 where the object has none.
    pub revision: Revision,
}

impl<'a> From<&'a Record> for Shown<'a> {
    /// The record at the revision at which it was last written.
    fn from(record: &'a Record) -> Self {
        Self {
            record,
            revision: record.revision(),
        }
    }
}

impl Shown<'_> {
    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn version(self) -> Option<String> {
        (self.revision > 0).then(|| self.revision.to_string())
    }
}

/// Encodes an object for the store, with what selectors read of it.
///
/// # Errors
/// 500 where the type's own serialization fails.
pub fn encode(kind: &dyn Kind, object: &mut dyn Object) -> Result<Value, Status> {
    encode_with(kind, object, &[])
}

/// Encodes an object that an apply has made, where strings stand for the sets of its managers
/// ([`set_text`]). In any other object a string is a client's, and is encoded as one.
///
/// # Errors
/// As [`encode`].
pub(super) fn encode_applied(kind: &dyn Kind, object: &mut dyn Object) -> Result<Value, Status> {
    let sets = set_text::take(object.meta_mut());
    let encoded = encode_with(kind, object, &sets);
    set_text::give_back(object.meta_mut(), sets);
    encoded
}

/// Encodes an object out of which these sets were taken.
fn encode_with(kind: &dyn Kind, object: &mut dyn Object, sets: &[String]) -> Result<Value, Status> {
    let meta = object.meta_mut();
    meta.resource_version = None;
    meta.self_link = None;
    let bytes = kind
        .encode_stored(object)
        .map_err(|error| internal("encode an object", &error))?;
    let splice = splice_offset(&bytes)
        .ok_or_else(|| Status::internal("an object was encoded without metadata"))?;
    let bytes = set_text::put(bytes, splice, sets);
    let meta = object.meta();
    let fields = kind.selectable_fields(object);
    let attributes = Attributes {
        uid: meta.uid.clone().unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        fields: fields
            .into_iter()
            .map(|(field, value)| (field.to_owned(), value))
            .collect(),
        schema: SCHEMA,
        splice: u32::try_from(splice).unwrap_or(u32::MAX),
    };
    Ok(Value::new(&bytes, &attributes))
}

/// Decodes a stored object; its `metadata.resourceVersion` is that of the record.
///
/// # Errors
/// 500 where the stored bytes do not decode.
pub fn decode(kind: &dyn Kind, record: &Record) -> Result<Box<dyn Object>, Status> {
    decode_shown(kind, record.into())
}

/// Decodes a stored object with the `metadata.resourceVersion` that is to be shown.
///
/// # Errors
/// As [`decode`].
pub fn decode_shown(kind: &dyn Kind, shown: Shown<'_>) -> Result<Box<dyn Object>, Status> {
    let mut object = kind
        .decode_stored(shown.record.value().json())
        .map_err(|error| internal("decode a stored object", &error))?;
    object.meta_mut().resource_version = shown.version();
    Ok(object)
}

/// Decodes a stored object as [`decode`] does, but with strings for the sets of its managers, which
/// only who settles managers can read ([`set_text`]).
///
/// # Errors
/// As [`decode`].
pub(super) fn decode_to_apply(kind: &dyn Kind, record: &Record) -> Result<Box<dyn Object>, Status> {
    let value = record.value();
    let decoded = set_text::decode(kind, value.json(), value.splice())
        .map_err(|error| internal("decode a stored object", &error))?;
    let Some(mut object) = decoded else {
        return decode(kind, record);
    };
    object.meta_mut().resource_version = Shown::from(record).version();
    Ok(object)
}

/// Whether stored bytes are not what clients of this kind see.
fn is_converted(kind: &dyn Kind, value: ValueRef<'_>) -> bool {
    kind.descriptor().converted || value.schema() != SCHEMA
}

/// Appends the JSON of a record as clients of this kind see it.
///
/// # Errors
/// 500 where stored bytes must be converted and do not decode.
pub fn write_json(kind: &dyn Kind, shown: Shown<'_>, out: &mut BytesMut) -> Result<(), Status> {
    let value = shown.record.value();
    if is_converted(kind, value) {
        let object = decode_shown(kind, shown)?;
        let json = object
            .to_json()
            .map_err(|error| internal("encode an object", &error))?;
        out.extend_from_slice(&json);
        return Ok(());
    }
    write_spliced(shown, 0..value.json().len(), out)
}

/// Appends the JSON of a record's metadata alone, as clients of this kind see it. Of stored bytes
/// nothing else is looked at.
///
/// # Errors
/// As [`write_json`].
pub fn write_metadata(kind: &dyn Kind, shown: Shown<'_>, out: &mut BytesMut) -> Result<(), Status> {
    let value = shown.record.value();
    if is_converted(kind, value) {
        let object = decode_shown(kind, shown)?;
        let json = serde_json::to_vec(object.meta())
            .map_err(|error| internal("encode an object's metadata", &error))?;
        out.extend_from_slice(&json);
        return Ok(());
    }
    // The brace that opens it is the last byte before the splice.
    let start = value.splice().checked_sub(1);
    let range = start.zip(end_of_object(value.json(), value.splice()));
    let (start, end) = range.ok_or_else(damaged)?;
    write_spliced(shown, start..end, out)
}

/// Appends a part of stored bytes, with the version spliced into it.
fn write_spliced(shown: Shown<'_>, range: Range<usize>, out: &mut BytesMut) -> Result<(), Status> {
    let (json, splice) = (shown.record.value().json(), shown.record.value().splice());
    let head = json.get(range.start..splice);
    let tail = json.get(splice..range.end);
    let (head, tail) = head.zip(tail).ok_or_else(damaged)?;
    out.reserve(head.len() + tail.len() + SPLICED);
    out.extend_from_slice(head);
    if let Some(version) = shown.version() {
        out.put_slice(b"\"resourceVersion\":\"");
        out.put_slice(version.as_bytes());
        out.put_slice(b"\",");
    }
    out.extend_from_slice(tail);
    Ok(())
}

fn damaged() -> Status {
    Status::internal("a stored object is damaged")
}

/// The JSON of a record as clients of this kind see it.
///
/// # Errors
/// As [`write_json`].
pub fn json(kind: &dyn Kind, shown: Shown<'_>) -> Result<Bytes, Status> {
    let mut out = BytesMut::new();
    write_json(kind, shown, &mut out)?;
    Ok(out.freeze())
}

/// Where a member is spliced into the object's metadata: just after the brace that opens it.
/// `None` where there is no metadata, or it is empty.
fn splice_offset(json: &[u8]) -> Option<usize> {
    const MEMBER: &[u8] = b"\"metadata\":{";
    let mut depth = 0_usize;
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                if depth == 1 && json[at..].starts_with(MEMBER) {
                    let offset = at + MEMBER.len();
                    return (json.get(offset) == Some(&b'"')).then_some(offset);
                }
                at = end_of_string(json, at)?;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The end of the object that opens just before `at`.
fn end_of_object(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1_usize;
    loop {
        at += memchr::memchr3(b'"', b'{', b'}', json.get(at..)?)?;
        match json.get(at)? {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => at = end_of_string(json, at)?,
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::kinds;
    use crate::registry::lookup::Kinds;

    #[test]
    fn the_splice_is_found_in_the_outermost_metadata_only() {
        let cases: [(&str, Option<&str>); 5] = [
            (
                r#"{"kind":"A","metadata":{"name":"a"}}"#,
                Some(r#""name":"a"}}"#),
            ),
            (
                r#"{"data":{"metadata":{"x":"y"}},"metadata":{"name":"a"}}"#,
                Some(r#""name":"a"}}"#),
            ),
            (
                r#"{"data":"\"metadata\":{\"","metadata":{"name":"a"}}"#,
                Some(r#""name":"a"}}"#),
            ),
            (r#"{"metadata":{}}"#, None),
            (r#"{"spec":[{"metadata":{"a":1}}]}"#, None),
        ];
        for (json, want) in cases {
            let got = splice_offset(json.as_bytes()).map(|at| &json[at..]);
            assert_eq!(got, want, "{json}");
        }
    }

    #[test]
    fn metadata_is_cut_out_as_it_is_in_the_whole() {
        let kinds = Kinds::new(kinds::all());
        let metadata = [
            json!({"name": "a"}),
            json!({
                "name": "a", "labels": {"a": "}\"{\\", "b": "\\\""}, "finalizers": ["x/{", "y"],
            }),
            json!({"name": "a", "ownerReferences": [
                {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "1"},
                {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "2"},
            ]}),
        ];
        for (group, version, plural) in [
            ("", "v1", "configmaps"),
            ("", "v1", "events"),
            ("events.k8s.io", "v1", "events"),
        ] {
            let kind = &**kinds.resource(group, version, plural).unwrap();
            // Of another generation they are decoded.
            let all = [SCHEMA, SCHEMA - 1].map(|schema| metadata.iter().map(move |m| (m, schema)));
            for (metadata, schema) in all.into_iter().flatten() {
                let object = json!({"metadata": metadata, "data": {"metadata": "{"}});
                let mut object = kind.decode(object.to_string().as_bytes()).unwrap();
                let encoded = encode(kind, &mut *object).unwrap();
                let attributes = Attributes {
                    schema,
                    splice: u32::try_from(encoded.get().splice()).unwrap(),
                    ..Attributes::default()
                };
                let value = Value::new(encoded.get().json(), &attributes);
                for revision in [0, 7] {
                    let record = Record::new("a", revision, revision, value.get());
                    let mut cut = BytesMut::new();
                    write_metadata(kind, (&record).into(), &mut cut).unwrap();
                    let whole = json(kind, (&record).into()).unwrap();
                    let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
                    let cut: serde_json::Value = serde_json::from_slice(&cut).unwrap();
                    assert_eq!(cut, whole["metadata"], "{plural} of {version}");
                    assert_eq!(cut.get("resourceVersion").is_some(), revision > 0);
                }
            }
        }
    }

    #[test]
    fn a_splice_that_is_none_is_damage() {
        let kinds = Kinds::new(kinds::all());
        let kind = &**kinds.resource("", "v1", "configmaps").unwrap();
        for (json, splice) in [("", 0), (r#"{"metadata":{"name":"a"#, 13), ("{}", 9)] {
            let attributes = Attributes {
                schema: SCHEMA,
                splice,
                ..Attributes::default()
            };
            let value = Value::new(json.as_bytes(), &attributes);
            let record = Record::new("a", 1, 1, value.get());
            let written = write_metadata(kind, (&record).into(), &mut BytesMut::new());
            assert_eq!(written, Err(damaged()), "{json}");
        }
    }
}
