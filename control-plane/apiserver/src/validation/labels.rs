//! Labels, annotations and label selectors.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{faults, items};

/// Bytes that the keys and values of an object's annotations may have together.
pub(crate) const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Labels: keys are qualified names, values are short.
pub(crate) fn validate_labels(
    labels: Option<&BTreeMap<String, String>>,
    at: &Path,
    errors: &mut ErrorList,
) {
    for (key, value) in labels.into_iter().flatten() {
        validate_label_name(key, at, errors);
        faults(value, names::label_value(value), at, errors);
    }
}

/// The key of a label.
pub(crate) fn validate_label_name(key: &str, at: &Path, errors: &mut ErrorList) {
    faults(key, names::qualified_name(key), at, errors);
}

/// Annotations: keys are qualified names but for their case, and all together have a size.
pub(crate) fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        faults(key, names::qualified_name(&key.to_lowercase()), at, errors);
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(Error::too_long(at, MAX_ANNOTATIONS));
    }
}

/// A label selector.
pub(crate) fn validate_label_selector(selector: &LabelSelector, at: &Path, errors: &mut ErrorList) {
    validate_labels(
        selector.match_labels.as_ref(),
        &at.child("matchLabels"),
        errors,
    );
    let expressions = at.child("matchExpressions");
    for (i, requirement) in items(&selector.match_expressions).iter().enumerate() {
        validate_requirement(requirement, &expressions.index(i), errors);
    }
}

/// Whether a selector selects everything.
pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && items(&selector.match_expressions).is_empty()
}

fn validate_requirement(requirement: &LabelSelectorRequirement, at: &Path, errors: &mut ErrorList) {
    let values = items(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Error::required(&at.child("values"), detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&at.child("values"), detail));
            }
        }
        other => {
            errors.push(Error::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            ));
        }
    }
    validate_label_name(&requirement.key, &at.child("key"), errors);
    for (i, value) in values.iter().enumerate() {
        faults(
            value,
            names::label_value(value),
            &at.child("values").index(i),
            errors,
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn selectors() {
        let table = [
            (json!({"matchLabels": {"a": "b"}}), vec![]),
            (
                json!({"matchLabels": {"a b": "b"}}),
                vec!["matchLabels FieldValueInvalid name part must consist of"],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                vec!["matchExpressions[0].values FieldValueRequired must be specified when"],
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
                vec!["matchExpressions[0].values FieldValueForbidden may not be specified"],
            ),
            (
                json!({"matchExpressions": [{"key": "", "operator": "Is", "values": ["-"]}]}),
                vec![
                    "matchExpressions[0].operator FieldValueInvalid not a valid selector operator",
                    "matchExpressions[0].key FieldValueInvalid name part must be non-empty",
                    "matchExpressions[0].key FieldValueInvalid name part must consist of",
                    "matchExpressions[0].values[0] FieldValueInvalid a valid label must be",
                ],
            ),
        ];
        for (selector, want) in table {
            let mut errors = ErrorList::default();
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            validate_label_selector(&selector, &Path::root(), &mut errors);
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn annotations_have_a_size() {
        let mut errors = ErrorList::default();
        let annotations = BTreeMap::from([("A".to_owned(), "x".repeat(MAX_ANNOTATIONS))]);
        validate_annotations(Some(&annotations), &Path::new("annotations"), &mut errors);
        assert_causes(
            &errors,
            &["annotations FieldValueTooLong may not be more than 262144 bytes"],
        );
    }
}
