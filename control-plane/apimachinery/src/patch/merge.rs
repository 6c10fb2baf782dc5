//! JSON merge patch, RFC 7386 (`application/merge-patch+json`).

use serde_json::Value;

use super::Error;

/// Merges the patch into the document: members that are null are removed, objects are merged,
/// everything else, lists too, is replaced.
pub fn apply(mut document: Value, patch: &Value) -> Result<Value, Error> {
    if !patch.is_object() {
        return Err(Error::Malformed(
            "error decoding patch: a merge patch must be a JSON object".to_owned(),
        ));
    }
    json_patch::merge(&mut document, patch);
    Ok(document)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Small JSON documents of every shape.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-d]", any_json(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    #[test]
    fn of_the_rfc() {
        let table = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (document, patch, want) in table {
            assert_eq!(apply(document, &patch), Ok(want), "{patch}");
        }
        assert!(matches!(
            apply(json!({}), &json!([1])),
            Err(Error::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn applying_twice_is_applying_once(document in any_object(), patch in any_object()) {
            let once = apply(document, &patch).unwrap();
            prop_assert_eq!(apply(once.clone(), &patch).unwrap(), once);
        }

        #[test]
        fn an_empty_patch_changes_nothing(document in any_object()) {
            prop_assert_eq!(apply(document.clone(), &json!({})).unwrap(), document);
        }
    }
}
