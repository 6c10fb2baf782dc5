//! What both sorts of policies have: the requests that they are about, the conditions under which
//! they apply, and the variables of their expressions.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, MutatingAdmissionPolicySpec, ParamKind,
    ValidatingAdmissionPolicySpec, Variable,
};

use super::conditions::{validate_match_conditions, validate_param_kind, validate_variables};
use super::rules::validate_match_resources;
use super::webhook::FAILURE_POLICIES;
use crate::validation::cel::Environment;
use crate::validation::items;

/// What a policy that changes objects can be about.
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
/// Expressions of one policy, and the bytes of them in all. Kubernetes bounds neither but by the size
/// of a body; compiling takes a thousand times the time that reading does.
const MAX_EXPRESSIONS: usize = 1_000;
const MAX_BYTES: usize = 256 * 1024;

pub(super) struct Subject<'a> {
    failure_policy: Option<&'a str>,
    params: Option<&'a ParamKind>,
    constraints: Option<&'a MatchResources>,
    conditions: &'a [MatchCondition],
    variables: &'a [Variable],
    /// Only what is written can be changed.
    writes: bool,
}

impl<'a> From<&'a ValidatingAdmissionPolicySpec> for Subject<'a> {
    fn from(spec: &'a ValidatingAdmissionPolicySpec) -> Self {
        Self {
            failure_policy: spec.failure_policy.as_deref(),
            params: spec.param_kind.as_ref(),
            constraints: spec.match_constraints.as_ref(),
            conditions: items(&spec.match_conditions),
            variables: items(&spec.variables),
            writes: false,
        }
    }
}

impl<'a> From<&'a MutatingAdmissionPolicySpec> for Subject<'a> {
    fn from(spec: &'a MutatingAdmissionPolicySpec) -> Self {
        Self {
            failure_policy: spec.failure_policy.as_deref(),
            params: spec.param_kind.as_ref(),
            constraints: spec.match_constraints.as_ref(),
            conditions: items(&spec.match_conditions),
            variables: items(&spec.variables),
            writes: true,
        }
    }
}

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
    match subject.failure_policy {
        None => errors.push(Error::required(&policy_at, "")),
        Some(policy) if !FAILURE_POLICIES.contains(&policy) => {
            errors.push(Error::not_supported(&policy_at, policy, FAILURE_POLICIES));
        }
        Some(_) => {}
    }
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

/// Nothing where expressions are too many, or too long in all.
fn bound<'a>(
    expressions: impl Iterator<Item = &'a str>,
    at: &Path,
    errors: &mut ErrorList,
) -> Option<()> {
    let (count, bytes) = expressions
        .filter(|expression| !expression.is_empty())
        .fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.len()));
    if count > MAX_EXPRESSIONS {
        errors.push(Error::too_many(at, count, MAX_EXPRESSIONS));
        return None;
    }
    if bytes > MAX_BYTES {
        let detail = format!("expressions must not exceed {MAX_BYTES} bytes in all");
        errors.push(Error::invalid(at, bytes, detail));
        return None;
    }
    Some(())
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
