//! What both sorts of policies have: the requests that they are about, the conditions under which
//! they apply, and the variables of their expressions.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, MutatingAdmissionPolicySpec, ParamKind,
    ValidatingAdmissionPolicySpec, Variable,
};

use super::conditions::{
    bound, validate_match_conditions, validate_param_kind, validate_variables,
};
use super::rules::validate_match_resources;
use super::webhook::{FAILURE_POLICIES, validate_choice};
use crate::validation::cel::Environment;
use crate::validation::items;

/// What a policy that changes objects can be about.
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

pub(super) struct Subject<'a> {
    failure_policy: Option<&'a str>,
    params: Option<&'a ParamKind>,
    constraints: Option<&'a MatchResources>,
    conditions: &'a [MatchCondition],
    variables: &'a [Variable],
    /// Only what is written can be changed.
    writes: bool,
}

macro_rules! subject_of {
    ($spec:ident, $writes:expr) => {
        impl<'a> From<&'a $spec> for Subject<'a> {
            fn from(spec: &'a $spec) -> Self {
                Self {
                    failure_policy: spec.failure_policy.as_deref(),
                    params: spec.param_kind.as_ref(),
                    constraints: spec.match_constraints.as_ref(),
                    conditions: items(&spec.match_conditions),
                    variables: items(&spec.variables),
                    writes: $writes,
                }
            }
        }
    };
}

subject_of!(ValidatingAdmissionPolicySpec, false);
subject_of!(MutatingAdmissionPolicySpec, true);

/// Checks it, with what it was before. Returns what the policy's other expressions, which `others`
/// has, may name; nothing where there is so much of them that they are not to be compiled.
pub(super) fn validate_subject<'a>(
    subject: &Subject<'a>,
    old: Option<&Subject<'_>>,
    others: impl Iterator<Item = &'a str>,
    errors: &mut ErrorList,
) -> Option<Environment> {
    let at = Path::new("spec");
    let policy_at = at.child("failurePolicy");
    if subject.failure_policy.is_none() {
        errors.push(Error::required(&policy_at, ""));
    }
    validate_choice(subject.failure_policy, FAILURE_POLICIES, &policy_at, errors);
    if let Some(params) = subject.params {
        validate_param_kind(params, &at.child("paramKind"), errors);
    }
    let constraints_at = at.child("matchConstraints");
    match subject.constraints {
        None => errors.push(Error::required(&constraints_at, "")),
        Some(constraints) => {
            validate_match_resources(constraints, &constraints_at, errors);
            if items(&constraints.resource_rules).is_empty() {
                let at = constraints_at.child("resourceRules");
                errors.push(Error::required(&at, ""));
            }
        }
    }
    if subject.writes {
        validate_operations(subject.constraints, &constraints_at, errors);
    }
    let conditions = subject.conditions.iter().map(|one| &*one.expression);
    let variables = subject.variables.iter().map(|one| &*one.expression);
    bound(conditions.chain(variables).chain(others), &at, errors)?;
    let environment = Environment::admission()
        .params(subject.params.is_some())
        .authorizer();
    let stored =
        old.is_some_and(|old| old.params == subject.params && old.conditions == subject.conditions);
    validate_match_conditions(
        subject.conditions,
        &environment,
        stored,
        &at.child("matchConditions"),
        errors,
    );
    let variables_at = at.child("variables");
    Some(validate_variables(
        subject.variables,
        &environment,
        &variables_at,
        errors,
    ))
}

/// Only what is written can be changed.
pub(super) fn validate_operations(
    resources: Option<&MatchResources>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let at = at.child("resourceRules").child("operations");
    let rules = resources.map(|resources| items(&resources.resource_rules));
    let rules = rules.unwrap_or_default().iter();
    for operation in rules.flat_map(|rule| items(&rule.operations)) {
        if !OPERATIONS.contains(&operation.as_str()) {
            errors.push(Error::not_supported(&at, operation.as_str(), OPERATIONS));
        }
    }
}
