//! Keys of a Pod's own labels, by whose values it is kept with other Pods or from them (KEP-3633).

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::validation::items;
use crate::validation::labels::validate_label_name;

/// The keys beside a selector, into which they are merged when the Pod is made: a key of `matched`
/// stands there once, then.
pub(super) fn validate_label_keys(
    matched: &[String],
    mismatched: &[String],
    selector: Option<&LabelSelector>,
    at: &Path,
    errors: &mut ErrorList,
) {
    for (field, keys) in [
        ("matchLabelKeys", matched),
        ("mismatchLabelKeys", mismatched),
    ] {
        let at = at.child(field);
        if !keys.is_empty() && selector.is_none() {
            let detail = "must not be specified when labelSelector is not set";
            errors.push(Error::forbidden(&at, detail));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            validate_label_name(key, &at.index(i), errors);
        }
    }
    if let Some(selector) = selector {
        let labels = selector.match_labels.iter().flatten();
        let mut selected: BTreeSet<&str> = labels.map(|(key, _)| key.as_str()).collect();
        // Where each stands first.
        let each = matched.iter().enumerate().rev();
        let places: BTreeMap<&str, usize> = each.map(|(i, key)| (key.as_str(), i)).collect();
        for expression in items(&selector.match_expressions) {
            let key = expression.key.as_str();
            if !selected.insert(key)
                && let Some(&i) = places.get(key)
            {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.push(Error::invalid(&at.index(i), key, detail));
            }
        }
    }
    let mismatched: BTreeSet<&String> = mismatched.iter().collect();
    for (i, key) in matched.iter().enumerate() {
        if mismatched.contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            let at = at.child("matchLabelKeys").index(i);
            errors.push(Error::invalid(&at, key.as_str(), detail));
        }
    }
}
