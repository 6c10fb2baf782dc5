//! Expressions of webhooks and policies that say whether, and with what, they apply.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, ParamKind, Variable};

use crate::validation::cel::{self, Environment, Type};
use crate::validation::{faults, text};

const MAX_CONDITIONS: usize = 64;
/// Expressions of one policy, or of all webhooks of one configuration, and the bytes of them in all.
/// Kubernetes bounds neither but by the size of a body; compiling takes a thousand times the time
/// that reading does.
const MAX_EXPRESSIONS: usize = 1_000;
const MAX_BYTES: usize = 256 * 1024;

/// Nothing where expressions are too many, or too long in all.
pub(super) fn bound<'a>(
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

/// An expression that has to be there and to be of one of some types.
pub(super) fn validate_expression(
    expression: &str,
    environment: &Environment,
    wanted: &[Type],
    required: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    if expression.trim().is_empty() {
        errors.push(Error::required(at, required));
    } else if let Err(fault) = cel::compile_as(expression, environment, wanted) {
        errors.push(Error::invalid(at, expression, fault));
    }
}

/// Conditions that all have to hold. Those that are `stored` are not compiled again.
pub(super) fn validate_match_conditions(
    conditions: &[MatchCondition],
    environment: &Environment,
    stored: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    if stored {
        return;
    }
    if conditions.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(at, conditions.len(), MAX_CONDITIONS));
        // Compiling takes its time, and these are too many whatever is in them.
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        validate_expression(
            condition.expression.trim(),
            environment,
            &[Type::Bool],
            "",
            &at.child("expression"),
            errors,
        );
        let (name, name_at) = (condition.name.as_str(), at.child("name"));
        if name.is_empty() {
            errors.push(Error::required(&name_at, ""));
            continue;
        }
        faults(name, names::qualified_name(name), &name_at, errors);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&name_at, name));
        }
    }
}

/// The kind of a policy's parameters.
pub(super) fn validate_param_kind(kind: &ParamKind, at: &Path, errors: &mut ErrorList) {
    let (version, version_at) = (text(&kind.api_version), at.child("apiVersion"));
    match version.split('/').collect::<Vec<_>>()[..] {
        [""] => errors.push(Error::required(&version_at, "")),
        [version] => validate_version(version, &version_at, errors),
        [group, of_group] => {
            if !group.is_empty() {
                let wrong = names::dns_subdomain(group);
                if !wrong.is_empty() {
                    errors.push(Error::invalid(&version_at, group, wrong.join(",")));
                }
            }
            if of_group.is_empty() {
                let detail = "version must be specified";
                errors.push(Error::invalid(&version_at, version, detail));
            } else {
                validate_version(of_group, &version_at, errors);
            }
        }
        _ => {
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(Error::invalid(&version_at, version, detail));
        }
    }
    let (kind, kind_at) = (text(&kind.kind), at.child("kind"));
    let wrong = names::dns1035_label(&kind.to_lowercase());
    if kind.is_empty() {
        errors.push(Error::required(&kind_at, ""));
    } else if !wrong.is_empty() {
        let wrong = wrong.join(",");
        let detail = format!("may have mixed case, but should otherwise match: {wrong}");
        errors.push(Error::invalid(&kind_at, kind, detail));
    }
}

fn validate_version(version: &str, at: &Path, errors: &mut ErrorList) {
    let wrong = names::dns1035_label(version);
    if !wrong.is_empty() {
        errors.push(Error::invalid(at, version, wrong.join(",")));
    }
}

/// Variables that later ones and the other expressions of a policy may use. Returns the
/// environment of those.
pub(super) fn validate_variables(
    variables: &[Variable],
    environment: &Environment,
    at: &Path,
    errors: &mut ErrorList,
) -> Environment {
    let mut environment = environment.clone().composing();
    for (i, variable) in variables.iter().enumerate() {
        let at = at.index(i);
        let (name, name_at) = (variable.name.as_str(), at.child("name"));
        if name.trim().is_empty() {
            errors.push(Error::required(&name_at, "name is not specified"));
        } else if !cel::is_identifier(name) {
            let detail = "must be a valid CEL identifier";
            errors.push(Error::invalid(&name_at, name, detail));
        }
        let (expression, at) = (variable.expression.as_str(), at.child("expression"));
        if expression.trim().is_empty() {
            errors.push(Error::required(&at, "expression is not specified"));
            continue;
        }
        match cel::compile(expression, &environment) {
            Ok(of) => environment.compose(name, of),
            Err(fault) => errors.push(Error::invalid(&at, expression, fault)),
        }
    }
    environment
}
