//! What of a Pod's status is sent: the fields that the kubelet owns and that differ.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING};

/// Fields of a status that the kubelet writes.
const FIELDS: [&str; 16] = [
    "phase",
    "reason",
    "message",
    "conditions",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "qosClass",
    "resources",
    "allocatedResources",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "observedGeneration",
];

/// The fields of a status that the kubelet writes.
pub(super) fn owned_fields(status: &PodStatus) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Ok(Value::Object(all)) = serde_json::to_value(status) {
        fields.extend(
            all.into_iter()
                .filter(|(key, _)| FIELDS.contains(&key.as_str())),
        );
    }
    fields
}

/// A strategic merge patch from one status to the other; none if they are equal.
pub(super) fn difference(
    base: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for field in FIELDS {
        let (old, new) = (base.get(field), wanted.get(field));
        if old == new {
            continue;
        }
        let value = match (field, new) {
            ("conditions", Some(Value::Array(new))) => match conditions(old, new) {
                Some(changed) => changed,
                None => continue,
            },
            (_, Some(new)) => new.clone(),
            (_, None) => Value::Null,
        };
        patch.insert(field.to_owned(), value);
    }
    (!patch.is_empty()).then_some(patch)
}

/// Whether something has become other than wanted that was not sent: whoever has changed it, it was
/// not the API with what it was told.
pub(super) fn changed_beside(
    sent: &Map<String, Value>,
    had: &Map<String, Value>,
    has: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> bool {
    let differs = difference(has, wanted).unwrap_or_default();
    differs.iter().any(|(field, value)| match value {
        Value::Array(conditions) if field == "conditions" => conditions.iter().any(|of| {
            let type_ = &of["type"];
            condition(sent, type_).is_none() && condition(had, type_) != condition(has, type_)
        }),
        _ => !sent.contains_key(field) && had.get(field) != has.get(field),
    })
}

fn condition<'a>(status: &'a Map<String, Value>, type_: &Value) -> Option<&'a Value> {
    let mut all = status.get("conditions")?.as_array()?.iter();
    all.find(|condition| condition["type"] == *type_)
}

/// The conditions that changed; merged by type, so that an absent field must be nulled.
fn conditions(old: Option<&Value>, new: &[Value]) -> Option<Value> {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let ended = |type_: &str| {
        let has = |list: &[Value]| list.iter().any(|condition| condition["type"] == *type_);
        has(old) && !has(new)
    };
    // Those that come and go; the others stay once they were there.
    let passing = [RESIZE_PENDING, RESIZE_IN_PROGRESS].into_iter();
    let gone = passing.filter(|type_| ended(type_));
    let gone = gone.map(|type_| json!({"type": type_, "$patch": "delete"}));
    let changed: Vec<Value> = new
        .iter()
        .filter(|condition| !old.contains(condition))
        .map(|condition| {
            let mut condition = condition.clone();
            if let Value::Object(fields) = &mut condition {
                for field in ["reason", "message"] {
                    fields.entry(field).or_insert(Value::Null);
                }
            }
            condition
        })
        .chain(gone)
        .collect();
    (!changed.is_empty()).then_some(Value::Array(changed))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        let status: PodStatus = serde_json::from_value(value).unwrap();
        owned_fields(&status)
    }

    #[test]
    fn only_what_changed_is_sent() {
        let ready = json!({"type": "Ready", "status": "True"});
        let unready = json!({"type": "Ready", "status": "False", "reason": "R", "message": "m"});
        let other = json!({"type": "example.com/gate", "status": "True"});
        let base = fields(json!({
            "phase": "Pending", "nominatedNodeName": "n", "reason": "Old",
            "conditions": [unready, other],
        }));
        assert_eq!(difference(&base, &base), None);
        let wanted = fields(json!({"phase": "Running", "conditions": [ready]}));
        let patch = difference(&base, &wanted).unwrap();
        let expected = json!({
            "phase": "Running",
            "reason": null,
            "conditions":
                [{"type": "Ready", "status": "True", "reason": null, "message": null}],
        });
        assert_eq!(Value::Object(patch), expected);
        let same = fields(json!({"phase": "Running", "conditions": [ready, other]}));
        assert_eq!(difference(&same, &wanted), None, "what others own is left");
        let resize = json!({"type": "PodResizePending", "status": "True"});
        let pending = fields(json!({"phase": "Running", "conditions": [ready, resize]}));
        let patch = difference(&pending, &wanted).unwrap();
        let expected = json!({
            "conditions": [{"type": "PodResizePending", "$patch": "delete"}],
        });
        assert_eq!(
            Value::Object(patch),
            expected,
            "what has passed is taken away"
        );
    }
}
