//! Policies that change objects.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicySpec, Mutation,
};

use super::conditions::{validate_expression, validate_match_conditions, validate_variables};
use super::policy::validate_scope;
use super::webhook::REINVOCATION_POLICIES;
use crate::validation::cel::{Environment, Type};
use crate::validation::{items, one_of, text};

/// What a policy that changes objects can be about.
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];

/// The spec of a policy, and the one that it had before.
pub(crate) fn validate_mutating_policy(
    spec: &MutatingAdmissionPolicySpec,
    old: Option<&MutatingAdmissionPolicySpec>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let environment = validate_scope(
        spec.failure_policy.as_deref(),
        spec.param_kind.as_ref(),
        spec.match_constraints.as_ref(),
        &mut errors,
    )
    .authorizer();
    let constraints = spec.match_constraints.as_ref();
    validate_operations(constraints, &at.child("matchConstraints"), &mut errors);
    let conditions = items(&spec.match_conditions);
    let stored = old.is_some_and(|old| {
        old.param_kind == spec.param_kind && items(&old.match_conditions) == conditions
    });
    validate_match_conditions(
        conditions,
        &environment,
        stored,
        &at.child("matchConditions"),
        &mut errors,
    );
    let environment = validate_variables(
        items(&spec.variables),
        &environment,
        &at.child("variables"),
        &mut errors,
    );
    let mutations_at = at.child("mutations");
    let mutations = items(&spec.mutations);
    if mutations.is_empty() {
        let detail = "mutations must contain at least one item";
        errors.push(Error::required(&mutations_at, detail));
    }
    let environment = environment.patches();
    for (i, mutation) in mutations.iter().enumerate() {
        let at = mutations_at.index(i);
        validate_mutation(mutation, &environment, &at, &mut errors);
    }
    let reinvocation_at = at.child("reinvocationPolicy");
    let reinvocation = text(&spec.reinvocation_policy);
    one_of(
        reinvocation,
        REINVOCATION_POLICIES,
        &reinvocation_at,
        &mut errors,
    );
    errors
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

/// One change: an expression of the type of patch that is said.
fn validate_mutation(
    mutation: &Mutation,
    environment: &Environment,
    at: &Path,
    errors: &mut ErrorList,
) {
    let applied = mutation.apply_configuration.as_ref();
    let applied = applied.map(|applied| text(&applied.expression));
    let patched = mutation.json_patch.as_ref();
    let patched = patched.map(|patched| text(&patched.expression));
    let (applied, patched) = (("applyConfiguration", applied), ("jsonPatch", patched));
    let kind = mutation.patch_type.as_str();
    let ((field, expression), (other, unwanted), wanted) = match kind {
        "ApplyConfiguration" => (applied, patched, Type::Named("Object".into())),
        "JSONPatch" => {
            let patch = Type::Named("JSONPatch".into());
            (patched, applied, Type::List(Box::new(patch)))
        }
        _ => {
            one_of(kind, PATCH_TYPES, &at.child("patchType"), errors);
            return;
        }
    };
    let field_at = at.child(field);
    match expression {
        None => {
            let detail = format!("must be specified when patchType is {kind}");
            errors.push(Error::required(&field_at, detail));
        }
        Some(expression) => {
            let (at, expression) = (field_at.child("expression"), expression.trim());
            validate_expression(expression, environment, &[wanted], "", &at, errors);
        }
    }
    if unwanted.is_some() {
        let detail = format!("must not be specified when patchType is {kind}");
        let shown = format!("{{{other}}}");
        errors.push(Error::invalid(&at.child(other), shown, detail));
    }
}
