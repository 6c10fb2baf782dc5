//! Equality as Kubernetes' validation means it: an absent list or map equals an empty one.
//!
//! Quantities need no care here: defaulting writes each in its canonical form.

use serde::Serialize;
use serde_json::Value;

/// Maps (not structures) of the API whose empty value means the same as their absence.
const MAPS: &[&str] = &[
    "annotations",
    "binaryData",
    "data",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "options",
    "overhead",
    "parameters",
    "requests",
    "selector",
    "volumeAttributes",
];

/// Whether two objects, or parts of objects, say the same.
pub(crate) fn semantic<T: Serialize + PartialEq>(a: &T, b: &T) -> bool {
    if a == b {
        return true;
    }
    match (serde_json::to_value(a), serde_json::to_value(b)) {
        (Ok(mut a), Ok(mut b)) => {
            prune(&mut a);
            prune(&mut b);
            a == b
        }
        _ => false,
    }
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, member| {
                prune(member);
                match member {
                    Value::Null => false,
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(entries) => {
                        !(entries.is_empty() && MAPS.contains(&name.as_str()))
                    }
                    _ => true,
                }
            });
        }
        Value::Array(items) => {
            items.iter_mut().for_each(prune);
            if items.is_empty() {
                *value = Value::Null;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_lists_and_maps_are_absent_ones() {
        let table = [
            (json!({"a": []}), json!({}), true),
            (json!([]), json!(null), true),
            (json!({"nodeSelector": {}}), json!({}), true),
            (json!({"emptyDir": {}}), json!({}), false),
            (json!({"a": [{"args": []}]}), json!({"a": [{}]}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
        ];
        for (a, b, want) in table {
            assert_eq!(semantic(&a, &b), want, "{a} {b}");
        }
    }
}
