//! Questions about what somebody may do.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::validate_label_name;
use super::{items, shown, text};

/// What is asked about: a resource or a path.
pub(crate) fn validate_attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if resource.is_some() == path.is_some() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(at, shown(&path), detail));
    }
    if let Some(resource) = resource {
        validate_selectors(resource, &at.child("resourceAttributes"), errors);
    }
}

/// A question about another user.
pub(crate) fn validate_subject(spec: &SubjectAccessReviewSpec, errors: &mut ErrorList) {
    let at = Path::new("spec");
    let mut of_attributes = ErrorList::default();
    validate_attributes(
        spec.resource_attributes.as_ref(),
        spec.non_resource_attributes.as_ref(),
        &at,
        &mut of_attributes,
    );
    errors.extend(of_attributes);
    if text(&spec.user).is_empty() && items(&spec.groups).is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(Error::invalid(&at.child("user"), text(&spec.user), detail));
    }
}

/// A question is not kept, and so it has neither a name nor anything else of an object.
pub(crate) fn validate_empty_meta(meta: &ObjectMeta, errors: &mut ErrorList) {
    let bare = ObjectMeta {
        managed_fields: None,
        ..meta.clone()
    };
    if bare != ObjectMeta::default() {
        let at = Path::new("metadata");
        errors.push(Error::invalid(&at, shown(&bare), "must be empty"));
    }
}

/// A question about the resources of the namespace in which it is asked.
pub(crate) fn validate_local(
    spec: &SubjectAccessReviewSpec,
    meta: &ObjectMeta,
    errors: &mut ErrorList,
) {
    let bare = ObjectMeta {
        managed_fields: None,
        namespace: None,
        ..meta.clone()
    };
    if bare != ObjectMeta::default() {
        let detail = "must be empty except for namespace";
        errors.push(Error::invalid(&Path::new("metadata"), shown(&bare), detail));
    }
    let at = Path::new("spec");
    if let Some(resource) = &spec.resource_attributes
        && text(&resource.namespace) != text(&meta.namespace)
    {
        let at = at.child("resourceAttributes").child("namespace");
        let detail = "must match metadata.namespace";
        errors.push(Error::invalid(&at, text(&resource.namespace), detail));
    }
    if let Some(path) = &spec.non_resource_attributes {
        let at = at.child("nonResourceAttributes");
        let detail = "disallowed on this kind of request";
        errors.push(Error::invalid(&at, shown(path), detail));
    }
}

fn validate_selectors(resource: &ResourceAttributes, at: &Path, errors: &mut ErrorList) {
    if let Some(selector) = &resource.label_selector {
        let at = at.child("labelSelector");
        let requirements = items(&selector.requirements);
        validate_form(
            text(&selector.raw_selector),
            requirements.len(),
            &at,
            errors,
        );
        for (i, requirement) in requirements.iter().enumerate() {
            let at = at.child("requirements").index(i);
            let values = items(&requirement.values).len();
            validate_operator(&requirement.operator, values, &at, errors);
            validate_label_name(&requirement.key, &at.child("key"), errors);
        }
    }
    if let Some(selector) = &resource.field_selector {
        let at = at.child("fieldSelector");
        let requirements = items(&selector.requirements);
        validate_form(
            text(&selector.raw_selector),
            requirements.len(),
            &at,
            errors,
        );
        for (i, requirement) in requirements.iter().enumerate() {
            let at = at.child("requirements").index(i);
            if requirement.key.is_empty() {
                errors.push(Error::required(&at.child("key"), "must be specified"));
            }
            let values = items(&requirement.values).len();
            validate_operator(&requirement.operator, values, &at, errors);
        }
    }
}

/// A selector is given as text or as a list.
fn validate_form(raw: &str, requirements: usize, at: &Path, errors: &mut ErrorList) {
    if !raw.is_empty() && requirements > 0 {
        let detail = "may not specified at the same time as requirements";
        errors.push(Error::invalid(&at.child("rawSelector"), raw, detail));
    }
    if raw.is_empty() && requirements == 0 {
        let detail = format!("when {at} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&at.child("requirements"), detail));
    }
}

fn validate_operator(operator: &str, values: usize, at: &Path, errors: &mut ErrorList) {
    match operator {
        "In" | "NotIn" if values == 0 => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&at.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&at.child("values"), detail));
        }
        // A newer client may know more of them than this server does.
        _ => {}
    }
}
