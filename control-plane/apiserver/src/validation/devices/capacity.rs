//! How much a device has, and how much of it a request may take.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{at_most, unique};
use crate::validation::resources::parse_quantity;
use crate::validation::{NEGATIVE, NOT_POSITIVE, items};

const MAX_VALUES: usize = 10;

/// A quantity, or the error that says why it is none.
pub(super) fn parse(quantity: &ApiQuantity, at: &Path, errors: &mut ErrorList) -> Option<Quantity> {
    parse_quantity(quantity, at, errors)
}

/// A capacity, of a device that may be `shared` or not.
pub(super) fn validate_capacity(
    capacity: &DeviceCapacity,
    shared: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    let whole = parse(&capacity.value, &at.child("value"), errors);
    let (Some(policy), at) = (&capacity.request_policy, at.child("requestPolicy")) else {
        return;
    };
    if !shared {
        let detail = "allowMultipleAllocations must be true";
        errors.push(Error::forbidden(&at, detail));
    } else if let Some(whole) = whole {
        validate_policy(policy, &whole, &at, errors);
    }
}

fn validate_policy(
    policy: &CapacityRequestPolicy,
    whole: &Quantity,
    at: &Path,
    errors: &mut ErrorList,
) {
    let default_at = at.child("default");
    let default = match &policy.default {
        None => None,
        Some(default) => match parse(default, &default_at, errors) {
            Some(default) => Some(default),
            None => return,
        },
    };
    let values = items(&policy.valid_values);
    match (values, &policy.valid_range) {
        ([], None) => {}
        ([], Some(range)) => match default {
            None => {
                let detail = "required when validRange is defined";
                errors.push(Error::required(&default_at, detail));
            }
            Some(default) => {
                validate_range(range, &default, whole, &at.child("validRange"), errors);
            }
        },
        (values, None) => match default {
            None => {
                let detail = "required when validValues is defined";
                errors.push(Error::required(&default_at, detail));
            }
            Some(default) => {
                validate_values(values, &default, whole, &at.child("validValues"), errors);
            }
        },
        (_, Some(_)) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.push(Error::forbidden(at, detail));
        }
    }
}

fn validate_values(
    values: &[ApiQuantity],
    default: &Quantity,
    whole: &Quantity,
    at: &Path,
    errors: &mut ErrorList,
) {
    let parsed = values.iter().enumerate();
    let parsed: Option<Vec<Quantity>> = parsed
        .map(|(i, value)| parse(value, &at.index(i), errors))
        .collect();
    let Some(values) = parsed else {
        return;
    };
    for (i, pair) in values.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let detail = "values must be sorted in ascending order";
            errors.push(Error::invalid(
                &at.index(i + 1),
                pair[1].to_string(),
                detail,
            ));
        }
    }
    if at_most(&values, MAX_VALUES, at, errors) {
        for (i, value) in values.iter().enumerate() {
            if value > whole {
                let detail = format!("option is larger than capacity value: {whole}");
                errors.push(Error::invalid(&at.index(i), value.to_string(), detail));
            }
        }
        unique(
            &values,
            |value| value,
            |value| value.to_string().into(),
            at,
            errors,
        );
        if !values.contains(default) {
            let detail = "default value is not valid according to the requestPolicy";
            errors.push(Error::invalid(at, default.to_string(), detail));
        }
    }
}

fn validate_range(
    range: &CapacityRequestPolicyRange,
    default: &Quantity,
    whole: &Quantity,
    at: &Path,
    errors: &mut ErrorList,
) {
    let Some(min) = parse(&range.min, &at.child("min"), errors) else {
        return;
    };
    let mut other = |value: &Option<ApiQuantity>, field: &str| match value {
        None => Some(None),
        Some(value) => parse(value, &at.child(field), errors).map(Some),
    };
    let (Some(max), Some(step)) = (other(&range.max, "max"), other(&range.step, "step")) else {
        return;
    };
    let mut refuse = |field: &str, value: &Quantity, detail: String| {
        errors.push(Error::invalid(&at.child(field), value.to_string(), detail));
    };
    if min > *whole {
        refuse(
            "min",
            &min,
            format!("min is larger than capacity value: {whole}"),
        );
    }
    if *default < min {
        refuse(
            "default",
            default,
            format!("default is less than min: {min}"),
        );
    }
    if let Some(max) = &max {
        if min > *max {
            refuse("max", &min, format!("min is larger than max: {max}"));
        }
        if max > whole {
            refuse(
                "max",
                max,
                format!("max is larger than capacity value: {whole}"),
            );
        }
        if default > max {
            refuse(
                "default",
                default,
                format!("default is more than max: {max}"),
            );
        }
    }
    let Some(step) = step else {
        return;
    };
    if step.is_zero() || step.is_negative() {
        refuse("step", &step, NOT_POSITIVE.to_owned());
        return;
    }
    let first = min + step;
    if first > *whole {
        let detail = format!("one step {first} is larger than capacity value: {whole}");
        refuse("step", &step, detail);
    }
    let fields = [
        ("default", Some(default)),
        ("min", Some(&min)),
        ("max", max.as_ref()),
        ("step", Some(&step)),
    ];
    let fields = fields
        .iter()
        .filter_map(|(field, value)| Some((*field, (*value)?)));
    // Parts of a unit are counted in thousandths, where there are any.
    let scale = if fields.clone().any(|(_, value)| has_parts(value)) {
        Scale::Thousandths
    } else {
        Scale::Whole
    };
    let mut counted = true;
    for (field, value) in fields {
        if let Some(fault) = scale.fault(value) {
            refuse(field, value, fault.to_owned());
            counted = false;
        }
    }
    if !counted {
        return;
    }
    for value in [Some(default), max.as_ref()].into_iter().flatten() {
        let beyond = scale.count(value) - scale.count(&min);
        if beyond % scale.count(&step) != 0 {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            refuse("step", value, detail);
        }
    }
}

/// In what quantities are counted.
#[derive(Clone, Copy)]
enum Scale {
    Whole,
    Thousandths,
}

impl Scale {
    fn count(self, value: &Quantity) -> i128 {
        match self {
            Self::Whole => value.value().into(),
            Self::Thousandths => value.milli_value().into(),
        }
    }

    /// What keeps a quantity from being counted.
    fn fault(self, value: &Quantity) -> Option<&'static str> {
        match self {
            Self::Whole if value.is_negative() => Some(NEGATIVE),
            Self::Thousandths if !is(value, value.milli_value(), "m") => {
                Some("value cannot be represented as a milli value")
            }
            _ => None,
        }
    }
}

/// Whether a quantity is a number of units.
fn is(value: &Quantity, number: i64, unit: &str) -> bool {
    format!("{number}{unit}").parse() == Ok(*value)
}

/// Whether a quantity has parts of a unit.
fn has_parts(value: &Quantity) -> bool {
    !is(value, value.value(), "")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn policies() {
        let table: Vec<(Value, &[&str])> = vec![
            (json!({"default": "2", "validValues": ["1", "2", "8"]}), &[]),
            (
                json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "1Gi"}}),
                &[],
            ),
            (
                json!({"default": "500m", "validRange": {"min": "250m", "max": "1", "step": "250m"}}),
                &[],
            ),
            (
                json!({"default": "3", "validValues": ["2", "1", "1", "20Gi"]}),
                &[
                    "c.requestPolicy.validValues[1] FieldValueInvalid values must be sorted in ascending order",
                    "c.requestPolicy.validValues[3] FieldValueInvalid option is larger than capacity value: 10Gi",
                    "c.requestPolicy.validValues[2] FieldValueDuplicate",
                    "c.requestPolicy.validValues FieldValueInvalid default value is not valid according",
                ],
            ),
            (
                json!({"validValues": ["1"]}),
                &["c.requestPolicy.default FieldValueRequired required when validValues"],
            ),
            (
                json!({"validRange": {"min": "1"}}),
                &["c.requestPolicy.default FieldValueRequired required when validRange"],
            ),
            (
                json!({"default": "1", "validValues": ["1"], "validRange": {"min": "1"}}),
                &["c.requestPolicy FieldValueForbidden exactly one policy can be specified"],
            ),
            (
                json!({"default": "1", "validRange": {"min": "3", "max": "2"}}),
                &[
                    "c.requestPolicy.validRange.default FieldValueInvalid default is less than min: 3",
                    "c.requestPolicy.validRange.max FieldValueInvalid min is larger than max: 2",
                ],
            ),
            (
                json!({"default": "2", "validRange": {"min": "1", "max": "4", "step": "2"}}),
                &[
                    "c.requestPolicy.validRange.step FieldValueInvalid value is not a multiple of a given step (2) from (1)",
                    "c.requestPolicy.validRange.step FieldValueInvalid value is not a multiple of a given step (2) from (1)",
                ],
            ),
            (
                json!({"default": "1", "validRange": {"min": "1", "step": "0"}}),
                &["c.requestPolicy.validRange.step FieldValueInvalid must be greater than zero"],
            ),
            (
                json!({"default": "1", "validRange": {"min": "1", "step": "1u"}}),
                &[
                    "c.requestPolicy.validRange.step FieldValueInvalid value cannot be represented as a milli value",
                ],
            ),
            (
                json!({"default": "1", "validRange": {"min": "x"}}),
                &["c.requestPolicy.validRange.min FieldValueInvalid"],
            ),
        ];
        for (policy, want) in table {
            let capacity = json!({"value": "10Gi", "requestPolicy": policy});
            let capacity = serde_json::from_value(capacity).unwrap();
            let mut errors = ErrorList::default();
            validate_capacity(&capacity, true, &Path::new("c"), &mut errors);
            assert_causes(&errors, want);
        }
    }
}
