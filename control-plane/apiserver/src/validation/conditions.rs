//! Conditions of the form that all kinds share (`metav1.Condition`).

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{faults, one_of};

/// When Go's zero time is, which stands for none.
pub(crate) const YEAR_ONE: i64 = -62_135_596_800;
const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;
const REASON_MESSAGE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// A list of conditions, one of each type.
pub(crate) fn validate_conditions(conditions: &[Condition], at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        let kind = condition.type_.as_str();
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        let type_at = at.child("type");
        if kind.is_empty() {
            errors.push(Error::required(&type_at, "is required"));
        } else {
            faults(kind, names::qualified_name(kind), &type_at, errors);
        }
        let states = &["False", "True", "Unknown"];
        one_of(&condition.status, states, &at.child("status"), errors);
        let generation = condition.observed_generation.unwrap_or(0);
        if generation < 0 {
            let detail = "must be greater than or equal to zero";
            let at = at.child("observedGeneration");
            errors.push(Error::invalid(&at, generation, detail));
        }
        let since = condition.last_transition_time.0.as_second();
        if matches!(since, 0 | YEAR_ONE) {
            errors.push(Error::required(&at.child("lastTransitionTime"), ""));
        }
        validate_reason(&condition.reason, &at.child("reason"), errors);
        if condition.message.len() > MAX_MESSAGE {
            errors.push(Error::too_long(&at.child("message"), MAX_MESSAGE));
        }
    }
}

fn validate_reason(reason: &str, at: &Path, errors: &mut ErrorList) {
    if reason.is_empty() {
        errors.push(Error::required(at, ""));
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
