//! Numbers of Pods that may be given as a share of all.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::intstr;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{non_negative, shown};

const PERCENT_MESSAGE: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// A number that is not negative, or a percentage.
pub(crate) fn validate_int_or_percent(value: &IntOrString, at: &Path, errors: &mut ErrorList) {
    match value {
        IntOrString::Int(number) => non_negative(*number, at, errors),
        IntOrString::String(percent) => {
            if intstr::percentage(percent).is_none() {
                errors.push(Error::invalid(at, percent.as_str(), PERCENT_MESSAGE));
            }
        }
    }
}

/// A share of more than all.
pub(crate) fn validate_at_most_all(value: &IntOrString, at: &Path, errors: &mut ErrorList) {
    if matches!(value, IntOrString::String(_)) && amount(value) > 100 {
        let detail = "must not be greater than 100%";
        errors.push(Error::invalid(at, shown(value), detail));
    }
}

/// The number, of Pods or of percents; what is neither has its error already.
pub(crate) fn amount(value: &IntOrString) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(percent) => intstr::percentage(percent).unwrap_or(0),
    }
}
