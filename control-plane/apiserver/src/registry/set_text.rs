//! The sets of an object's managers, as text.
//!
//! Who applies has an object that names its managers, and for each the set of its fields. Between
//! the store and the store again they are read and printed by who settles them, and by nobody else:
//! so they are not decoded with the object, nor encoded. In the object a string stands for each,
//! which is its text ([`Managers::read_text`], [`Managers::write_text`]).
//!
//! **Invariant:** a string stands for a set only in objects that [`decode`] has made, or that an
//! apply makes of them, and never in what is stored or sent: [`encode_applied`] puts the text in its
//! place. Whoever else writes encodes a string as a string: raw text of a client's goes nowhere.
//!
//! [`encode_applied`]: super::encoding::encode_applied
//! [`Managers::read_text`]: coracle_apimachinery::managed::Managers::read_text
//! [`Managers::write_text`]: coracle_apimachinery::managed::Managers::write_text

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ObjectMeta};
use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::erased::{Kind, Object};

/// An entry of managedFields, of which only the set is looked at.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
}

/// Decodes a stored object with strings for its sets; `None` where it has none. Its metadata begins
/// just before `splice`.
pub(super) fn decode(
    kind: &dyn Kind,
    json: &[u8],
    splice: usize,
) -> serde_json::Result<Option<Box<dyn Object>>> {
    let Some((rest, texts)) = cut(json, splice) else {
        return Ok(None);
    };
    let mut object = kind.decode_stored(&rest)?;
    // Where the object itself has no managers, what was found are those of a part of it.
    Ok(fill(object.meta_mut(), &texts).then_some(object))
}

/// The JSON with an empty set in the place of each, and those. The first managedFields from the
/// beginning of the metadata are the object's own, if it has any: of what comes before them there,
/// annotations and labels, every member is a string.
fn cut(json: &[u8], from: usize) -> Option<(Vec<u8>, Vec<&str>)> {
    const LIST: &[u8] = b"\"managedFields\":[";
    // The bracket is a part of the list.
    let from = from + memmem::find(json.get(from..)?, LIST)? + LIST.len() - 1;
    let mut list = serde_json::Deserializer::from_slice(json.get(from..)?);
    let entries = Vec::<Entry<'_>>::deserialize(&mut list).ok()?;
    let mut rest = Vec::with_capacity(json.len());
    let mut texts = Vec::with_capacity(entries.len());
    let mut end = 0;
    for fields in entries.iter().filter_map(|entry| entry.fields) {
        let text = fields.get();
        // It is a part of the bytes.
        let start = text.as_ptr().addr() - json.as_ptr().addr();
        rest.extend_from_slice(json.get(end..start)?);
        rest.extend_from_slice(b"{}");
        end = start + text.len();
        texts.push(text);
    }
    rest.extend_from_slice(json.get(end..)?);
    Some((rest, texts))
}

/// Puts the texts in the places from which they were cut. False where they do not belong there.
fn fill(meta: &mut ObjectMeta, texts: &[&str]) -> bool {
    let mut texts = texts.iter();
    for set in sets(meta) {
        let Some(text) = texts.next() else {
            return false;
        };
        set.0 = Value::from(*text);
    }
    texts.next().is_none()
}

/// Takes the texts out of an object that is to be encoded, in which nulls are left.
pub(super) fn take(meta: &mut ObjectMeta) -> Vec<String> {
    let texts = sets(meta).filter_map(|set| match set.0.take() {
        Value::String(text) => Some(text),
        other => {
            set.0 = other;
            None
        }
    });
    texts.collect()
}

/// Gives an object back what was taken out of it.
pub(super) fn give_back(meta: &mut ObjectMeta, texts: Vec<String>) {
    let taken = sets(meta).filter(|set| set.0.is_null());
    for (set, text) in taken.zip(texts) {
        set.0 = text.into();
    }
}

/// Puts the texts in the places of the nulls that are encoded. The metadata begins before `from`.
pub(super) fn put(json: Vec<u8>, mut from: usize, texts: &[String]) -> Vec<u8> {
    // No string has these bytes: its quotes are escaped.
    const MEMBER: &[u8] = b"\"fieldsV1\":null";
    const NULL: &[u8] = b"null";
    if texts.is_empty() {
        return json;
    }
    let length: usize = texts.iter().map(String::len).sum();
    let mut whole = Vec::with_capacity(json.len() + length);
    let mut done = 0;
    for text in texts {
        let rest = json.get(from..).unwrap_or_default();
        let Some(at) = memmem::find(rest, MEMBER) else {
            break;
        };
        from += at + MEMBER.len();
        let before = json.get(done..from - NULL.len());
        whole.extend_from_slice(before.unwrap_or_default());
        whole.extend_from_slice(text.as_bytes());
        done = from;
    }
    whole.extend_from_slice(json.get(done..).unwrap_or_default());
    whole
}

fn sets(meta: &mut ObjectMeta) -> impl Iterator<Item = &mut FieldsV1> {
    let entries = meta.managed_fields.iter_mut().flatten();
    entries.filter_map(|entry| entry.fields_v1.as_mut())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::encoding::{encode, encode_applied};
    use crate::registry::kinds;
    use crate::registry::lookup::Kinds;

    /// Names that must be escaped, one that looks like what is looked for, and an entry without a set.
    fn managers() -> Value {
        let entry = |manager: &str, fields: Value| {
            json!({"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": fields, "time": "2026-01-01T00:00:00Z"})
        };
        json!([
            entry("\"fieldsV1\":null", json!({"f:data": {".": {}, "f:\"a\\": {}, "f:\u{e9}": {}}})),
            entry("y", json!({})),
            {"manager": "z", "operation": "Update"},
            entry("x", json!({"f:spec": {"k:{\"port\":80}": {}, "k:{\"port\":443}": {}}})),
        ])
    }

    #[test]
    fn what_is_decoded_with_texts_is_encoded_as_what_is_not() {
        let kinds = Kinds::new(kinds::all());
        let own = json!({"name": "a", "managedFields": managers()});
        let named = json!({
            "name": "a", "managedFields": managers(),
            "annotations": {"managedFields": "[", "fieldsV1": "null", "a": "\"fieldsV1\":null"},
            "labels": {"managedFields": "a"},
        });
        for (group, version, plural) in [
            ("", "v1", "configmaps"),
            ("", "v1", "events"),
            ("events.k8s.io", "v1", "events"),
            ("apps", "v1", "deployments"),
        ] {
            let kind = &**kinds.resource(group, version, plural).unwrap();
            for metadata in [&own, &named] {
                let template = json!({"metadata": {"managedFields": managers()}});
                let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
                let given = json!({"metadata": metadata, "spec": spec});
                let mut plain = kind.decode(given.to_string().as_bytes()).unwrap();
                let stored = encode(kind, &mut *plain).unwrap();
                let stored = stored.get();
                let mut plain = kind.decode_stored(stored.json()).unwrap();
                let wanted = encode(kind, &mut *plain).unwrap();
                let decoded = decode(kind, stored.json(), stored.splice()).unwrap();
                let mut decoded = decoded.unwrap();
                let texts = sets(decoded.meta_mut()).filter(|set| set.0.is_string());
                assert_eq!(texts.count(), 3, "{plural} of {version}");
                // Whoever must find another name encodes twice.
                for _ in 0..2 {
                    let encoded = encode_applied(kind, &mut *decoded).unwrap();
                    assert_eq!(encoded, wanted, "{plural} of {version}");
                }
            }
        }
    }

    #[test]
    fn a_string_that_no_apply_has_made_is_encoded_as_one() {
        let kinds = Kinds::new(kinds::all());
        let kind = &**kinds.resource("", "v1", "configmaps").unwrap();
        let text = "{}}],\"uid\":\"another\"";
        let entry = json!({"manager": "a", "operation": "Update", "fieldsV1": text});
        let given = json!({"metadata": {"name": "a", "managedFields": [entry]}});
        let mut object = kind.decode(given.to_string().as_bytes()).unwrap();
        let stored = encode(kind, &mut *object).unwrap();
        let stored: Value = serde_json::from_slice(stored.get().json()).unwrap();
        assert_eq!(
            stored["metadata"]["managedFields"][0]["fieldsV1"],
            json!(text)
        );
        assert_eq!(stored["metadata"].get("uid"), None);
    }

    #[test]
    fn managers_of_a_part_are_not_the_objects() {
        let kinds = Kinds::new(kinds::all());
        let kind = &**kinds.resource("apps", "v1", "deployments").unwrap();
        let template = json!({"metadata": {"managedFields": managers()}});
        let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
        for (metadata, spec) in [
            (json!({"name": "a"}), spec.clone()),
            (json!({"name": "a", "labels": {"managedFields": "a"}}), spec),
            (
                json!({"name": "a"}),
                json!({"selector": {"matchLabels": {"a": "b"}}, "template": {}}),
            ),
        ] {
            let given = json!({"metadata": metadata, "spec": spec});
            let mut plain = kind.decode(given.to_string().as_bytes()).unwrap();
            let stored = encode(kind, &mut *plain).unwrap();
            let stored = stored.get();
            let decoded = decode(kind, stored.json(), stored.splice()).unwrap();
            assert!(decoded.is_none(), "{given}");
        }
    }
}
