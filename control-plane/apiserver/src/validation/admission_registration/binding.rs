//! Bindings: where a policy applies, and with which parameters.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicyBindingSpec, ParamRef,
    ValidatingAdmissionPolicyBindingSpec,
};

use super::rules::validate_match_resources;
use super::subject::validate_operations;
use crate::validation::labels::validate_label_selector;
use crate::validation::{faults, shown, text};

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: &[&str] = &["Deny", "Allow"];

/// The spec of a ValidatingAdmissionPolicyBinding.
pub(crate) fn validate_validating_binding(
    spec: &ValidatingAdmissionPolicyBindingSpec,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let (params, resources) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
    validate_binding(&spec.policy_name, params, resources, &mut errors);
    let at = Path::new("spec").child("validationActions");
    validate_actions(&spec.validation_actions, &at, &mut errors);
    errors
}

/// The spec of a MutatingAdmissionPolicyBinding.
pub(crate) fn validate_mutating_binding(spec: &MutatingAdmissionPolicyBindingSpec) -> ErrorList {
    let mut errors = ErrorList::default();
    let (params, resources) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
    validate_binding(text(&spec.policy_name), params, resources, &mut errors);
    let at = Path::new("spec").child("matchResources");
    validate_operations(resources, &at, &mut errors);
    errors
}

fn validate_binding(
    policy: &str,
    params: Option<&ParamRef>,
    resources: Option<&MatchResources>,
    errors: &mut ErrorList,
) {
    let at = Path::new("spec");
    let policy_at = at.child("policyName");
    if policy.is_empty() {
        errors.push(Error::required(&policy_at, ""));
    } else {
        faults(policy, names::dns_subdomain(policy), &policy_at, errors);
    }
    if let Some(params) = params {
        validate_params(params, &at.child("paramRef"), errors);
    }
    if let Some(resources) = resources {
        validate_match_resources(resources, &at.child("matchResources"), errors);
    }
}

/// Parameters are named or selected.
fn validate_params(params: &ParamRef, at: &Path, errors: &mut ErrorList) {
    let exclusive = "name and selector are mutually exclusive";
    let name = text(&params.name);
    if !name.is_empty() {
        let at = at.child("name");
        faults(name, names::path_segment(name), &at, errors);
        if params.selector.is_some() {
            errors.push(Error::forbidden(&at, exclusive));
        }
    }
    if let Some(selector) = &params.selector {
        let at = at.child("selector");
        validate_label_selector(selector, &at, errors);
        if !name.is_empty() {
            errors.push(Error::forbidden(&at, exclusive));
        }
    } else if name.is_empty() {
        let detail = "one of name or selector must be specified";
        errors.push(Error::required(at, detail));
    }
    let at = at.child("parameterNotFoundAction");
    match text(&params.parameter_not_found_action) {
        "" => errors.push(Error::required(&at, "")),
        action if !NOT_FOUND_ACTIONS.contains(&action) => {
            errors.push(Error::not_supported(&at, action, NOT_FOUND_ACTIONS));
        }
        _ => {}
    }
}

fn validate_actions(actions: &[String], at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        let at = at.index(i);
        if !ACTIONS.contains(&action.as_str()) {
            errors.push(Error::not_supported(&at, action.as_str(), ACTIONS));
        }
        if !seen.insert(action) {
            errors.push(Error::duplicate(&at, action.as_str()));
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(Error::invalid(at, shown(&actions), detail));
    }
    if actions.is_empty() {
        errors.push(Error::required(at, ""));
    }
}
