//! Times that are demanded and not given.
//!
//! The types of `lastTransitionTime` of most conditions and of `lastObservedTime` of a series of
//! Events demand a time, but Kubernetes reads one that is left out, or null, as the zero time of
//! Go, which Go's clients write as null. So it is here: a condition gets the first moment of the
//! year 1, which those clients read as no time again, and a series the moment that is none to it
//! (`kinds/event`).

use serde::de::DeserializeOwned;
use serde_json::Value;

const TIME: &str = "lastTransitionTime";
const ZERO: &str = "0001-01-01T00:00:00Z";
const OBSERVED: &str = "lastObservedTime";
const EPOCH: &str = "1970-01-01T00:00:00.000000Z";

/// Decodes JSON.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    // Most types of conditions do not demand a time, and none is made up for them.
    serde_json::from_slice(bytes).or_else(|error| {
        let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else {
            return Err(error);
        };
        if fill(&mut value) {
            serde_json::from_slice(&serde_json::to_vec(&value)?)
        } else {
            Err(error)
        }
    })
}

/// Puts a time where one may be demanded and none is given. Says whether there was such a place.
fn fill(value: &mut Value) -> bool {
    let mut filled = false;
    if let Some(status) = value.get_mut("status") {
        filled |= fill_conditions(status);
        let devices = status.get_mut("devices").and_then(Value::as_array_mut);
        for device in devices.into_iter().flatten() {
            filled |= fill_conditions(device);
        }
    }
    if let Some(series) = value.get_mut("series") {
        filled |= fill_time(series, OBSERVED, EPOCH);
    }
    filled
}

fn fill_conditions(holder: &mut Value) -> bool {
    let conditions = holder.get_mut("conditions").and_then(Value::as_array_mut);
    let mut filled = false;
    for condition in conditions.into_iter().flatten() {
        filled |= fill_time(condition, TIME, ZERO);
    }
    filled
}

fn fill_time(holder: &mut Value, field: &str, none: &str) -> bool {
    let Some(fields) = holder.as_object_mut() else {
        return false;
    };
    let given = fields.get(field).is_some_and(|time| !time.is_null());
    if !given {
        fields.insert(field.to_owned(), none.into());
    }
    !given
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Service};
    use k8s_openapi::api::events::v1::Event;
    use k8s_openapi::api::resource::v1::ResourceClaim;
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
        let condition = json!({"type": "T", "status": "True", "reason": "R", "message": ""});
        let device = json!({"driver": "d", "pool": "p", "device": "a", "conditions": [condition]});
        let claim: ResourceClaim =
            decoded(&json!({"status": {"devices": [device]}})).expect("a claim");
        let back = serde_json::to_value(claim).expect("JSON");
        assert_eq!(back["status"]["devices"][0]["conditions"][0][TIME], ZERO);
        let event: Event = decoded(&json!({"series": {"count": 2}})).expect("an event");
        let series = event.series.expect("a series");
        assert_eq!(series.last_observed_time.0, jiff::Timestamp::UNIX_EPOCH);
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
