//! Policies that change objects.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicySpec, Mutation};

use super::conditions::validate_expression;
use super::subject::{Subject, validate_subject};
use super::webhook::REINVOCATION_POLICIES;
use crate::validation::cel::{Environment, Type};
use crate::validation::{items, one_of, text};

const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];

/// The spec of a policy, and the one that it had before.
pub(crate) fn validate_mutating_policy(
    spec: &MutatingAdmissionPolicySpec,
    old: Option<&MutatingAdmissionPolicySpec>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let mutations = items(&spec.mutations);
    let old = old.map(Subject::from);
    let expressions = mutations.iter().flat_map(expressions);
    let subject = Subject::from(spec);
    let Some(environment) = validate_subject(&subject, old.as_ref(), expressions, &mut errors)
    else {
        return errors;
    };
    let mutations_at = at.child("mutations");
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

/// The expressions of a change.
fn expressions(mutation: &Mutation) -> impl Iterator<Item = &str> {
    let applied = mutation.apply_configuration.iter();
    let applied = applied.map(|applied| text(&applied.expression));
    let patched = mutation.json_patch.iter();
    applied.chain(patched.map(|patched| text(&patched.expression)))
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
