//! Conditions of the form that all kinds share (`metav1.Condition`).

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{faults, non_negative};

const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;
const REASON_MESSAGE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// A list of conditions, one of each type.
pub(crate) fn validate_conditions(conditions: &[Condition], at: &Path, errors: &mut ErrorList) {
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        let kind = condition.type_.as_str();
        if conditions[..i].iter().any(|other| other.type_ == kind) {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
        faults(kind, names::qualified_name(kind), &at.child("type"), errors);
        let states = &["False", "True", "Unknown"];
        if !states.contains(&condition.status.as_str()) {
            let at = at.child("status");
            errors.push(Error::not_supported(&at, condition.status.as_str(), states));
        }
        non_negative(
            condition.observed_generation.unwrap_or(0),
            &at.child("observedGeneration"),
            errors,
        );
        if condition.last_transition_time.0 == jiff::Timestamp::UNIX_EPOCH {
            let at = at.child("lastTransitionTime");
            errors.push(Error::required(&at, "must be set"));
        }
        validate_reason(&condition.reason, &at.child("reason"), errors);
        if condition.message.len() > MAX_MESSAGE {
            errors.push(Error::too_long(&at.child("message"), MAX_MESSAGE));
        }
    }
}

fn validate_reason(reason: &str, at: &Path, errors: &mut ErrorList) {
    if reason.is_empty() {
        errors.push(Error::required(at, "must be set"));
        return;
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.ends_with(word)
        && reason.chars().all(|c| word(c) || matches!(c, ',' | ':'));
    if !valid {
        errors.push(Error::invalid(at, reason, REASON_MESSAGE));
    }
    if reason.len() > MAX_REASON {
        errors.push(Error::too_long(at, MAX_REASON));
    }
}
