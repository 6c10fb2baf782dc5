//! Conditions without a time.
//!
//! The type of `lastTransitionTime` demands a time, but Kubernetes reads one that is left out, or
//! null, as the zero time of Go, which Go's clients write as null. So it is here: the first moment
//! of the year 1, which those clients read as no time again.

use serde::de::DeserializeOwned;
use serde_json::Value;

const CONDITIONS: &str = "/status/conditions";
const TIME: &str = "lastTransitionTime";
const ZERO: &str = "0001-01-01T00:00:00Z";

/// Decodes JSON.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    // Most types of conditions do not demand a time, and none is made up for them.
    serde_json::from_slice(bytes).or_else(|error| match serde_json::from_slice(bytes) {
        Ok(value) if lacks_time(&value) => serde_json::from_slice(&filled(value)?),
        _ => Err(error),
    })
}

/// A value with a time in each of its conditions.
fn filled(mut value: Value) -> serde_json::Result<Vec<u8>> {
    let conditions = value.pointer_mut(CONDITIONS).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if has_none(condition)
            && let Some(fields) = condition.as_object_mut()
        {
            fields.insert(TIME.to_owned(), ZERO.into());
        }
    }
    serde_json::to_vec(&value)
}

fn lacks_time(value: &Value) -> bool {
    let conditions = value.pointer(CONDITIONS).and_then(Value::as_array);
    conditions.into_iter().flatten().any(has_none)
}

fn has_none(condition: &Value) -> bool {
    condition.get(TIME).is_none_or(Value::is_null)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde_json::json;

    use super::*;

    fn conditions(condition: Value) -> Value {
        json!({"metadata": {"name": "a"}, "status": {"conditions": [condition]}})
    }

    fn decoded<T: DeserializeOwned>(value: &Value) -> serde_json::Result<T> {
        from_slice(value.to_string().as_bytes())
    }

    #[test]
    fn a_time_that_is_demanded_and_not_given_is_zero() {
        let given = json!({"type": "T", "status": "True", "reason": "R", "message": ""});
        let mut null = given.clone();
        null[TIME] = Value::Null;
        for condition in [given, null] {
            let service: Service = decoded(&conditions(condition)).expect("a service");
            let back = serde_json::to_value(service).expect("JSON");
            assert_eq!(back["status"]["conditions"][0][TIME], ZERO);
        }
        let pod: Pod = decoded(&conditions(json!({"type": "T", "status": "True"}))).expect("a pod");
        let back = serde_json::to_value(pod).expect("JSON");
        assert_eq!(back["status"]["conditions"][0].get(TIME), None);
    }

    #[test]
    fn other_faults_are_told_as_they_are() {
        let wrong = conditions(json!({"type": 1}));
        let error = decoded::<Service>(&wrong).expect_err("a number is no type");
        assert!(error.to_string().contains("expected a string"), "{error}");
    }
}
