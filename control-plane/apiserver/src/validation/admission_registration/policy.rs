//! Policies that judge objects: what they are about, what has to hold, what is written down.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ExpressionWarning, ValidatingAdmissionPolicySpec,
    ValidatingAdmissionPolicyStatus, Validation,
};

use super::conditions::validate_expression;
use super::subject::{Subject, validate_subject};
use super::webhook::validate_choice;
use crate::validation::cel::{Environment, Type};
use crate::validation::conditions::validate_conditions;
use crate::validation::{faults, items, shown, text};

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_ANNOTATIONS: usize = 20;
/// Bytes of an expression that makes an annotation. What it makes may be longer.
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;
const NOTHING: &str = "validations or auditAnnotations must contain at least one item";

/// The spec of the policy of this name, and the one that it had before.
pub(crate) fn validate_policy(
    name: &str,
    spec: &ValidatingAdmissionPolicySpec,
    old: Option<&ValidatingAdmissionPolicySpec>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let (validations, annotations) = (items(&spec.validations), items(&spec.audit_annotations));
    let judged = validations.iter().flat_map(|validation| {
        [
            &*validation.expression,
            text(&validation.message_expression),
        ]
    });
    let told = annotations.iter().map(|one| &*one.value_expression);
    let old = old.map(Subject::from);
    let subject = Subject::from(spec);
    let judging = validate_subject(&subject, old.as_ref(), judged.chain(told), &mut errors);
    let Some(judging) = judging else {
        return errors;
    };
    let telling = judging.clone().without_authorizer();
    let validations_at = at.child("validations");
    let annotations_at = at.child("auditAnnotations");
    if validations.is_empty() && annotations.is_empty() {
        errors.push(Error::required(&validations_at, NOTHING));
        errors.push(Error::required(&annotations_at, NOTHING));
    }
    for (i, validation) in validations.iter().enumerate() {
        let at = validations_at.index(i);
        validate_validation(validation, &judging, &telling, &at, &mut errors);
    }
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(&annotations_at, shown(&annotations), detail));
    }
    let mut keys = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let at = annotations_at.index(i);
        validate_annotation(name, annotation, &judging, &at, &mut errors);
        if !keys.insert(&annotation.key) {
            let at = at.child("key");
            errors.push(Error::duplicate(&at, annotation.key.as_str()));
        }
    }
    errors
}

fn validate_validation(
    validation: &Validation,
    judging: &Environment,
    telling: &Environment,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_expression(
        &validation.expression,
        judging,
        &[Type::Bool],
        "expression is not specified",
        &at.child("expression"),
        errors,
    );
    let told = text(&validation.message_expression);
    let told_at = at.child("messageExpression");
    if !told.is_empty() && told.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(Error::invalid(&told_at, told, detail));
    } else if !told.is_empty() {
        validate_expression(told, telling, &[Type::String], "", &told_at, errors);
    }
    let message = text(&validation.message);
    let message_at = at.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(Error::invalid(&message_at, message, detail));
    } else if message.trim().contains(['\n', '\r']) {
        let detail = "must not contain line breaks";
        errors.push(Error::invalid(&message_at, message, detail));
    }
    let reason = validation.reason.as_deref();
    validate_choice(reason, REASONS, &at.child("reason"), errors);
}

fn validate_annotation(
    policy: &str,
    annotation: &AuditAnnotation,
    judging: &Environment,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (key, key_at) = (annotation.key.as_str(), at.child("key"));
    if policy.is_empty() {
        let detail = "requires metadata.name be non-empty";
        errors.push(Error::invalid(&key_at, key, detail));
    } else {
        // A name that is longer is wrong by itself, and is not repeated with each key.
        let end = policy.floor_char_boundary(2 * names::SUBDOMAIN_MAX);
        let whole = format!("{}/{key}", &policy[..end]);
        faults(&whole, names::qualified_name(&whole), &key_at, errors);
    }
    let expression = annotation.value_expression.trim();
    let at = at.child("valueExpression");
    if expression.len() > MAX_ANNOTATION_EXPRESSION {
        let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
        errors.push(Error::required(&at, detail));
        return;
    }
    validate_expression(
        expression,
        judging,
        &[Type::String, Type::Null],
        "valueExpression is not specified",
        &at,
        errors,
    );
}

/// What was found out of a policy: its conditions, and warnings about its expressions.
pub(crate) fn validate_policy_status(status: &ValidatingAdmissionPolicyStatus) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("status");
    let checked = status.type_checking.as_ref();
    let warnings = checked.map(|checked| items(&checked.expression_warnings));
    let warnings_at = at.child("typeChecking").child("expressionWarnings");
    for (i, warning) in warnings.unwrap_or_default().iter().enumerate() {
        validate_warning(warning, &warnings_at.index(i), &mut errors);
    }
    let conditions = items(&status.conditions);
    validate_conditions(conditions, &at.child("conditions"), &mut errors);
    errors
}

fn validate_warning(warning: &ExpressionWarning, at: &Path, errors: &mut ErrorList) {
    if warning.warning.is_empty() {
        errors.push(Error::required(&at.child("warning"), ""));
    }
    let at = at.child("fieldRef");
    let field = warning.field_ref.trim();
    if field.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if let Some(fault) = fault_of_path(field) {
        let detail = format!("invalid JSONPath: {fault}");
        errors.push(Error::invalid(&at, field, detail));
    }
}

/// What keeps a text from being a JSONPath to a field, as the parser of kubectl reads it.
fn fault_of_path(path: &str) -> Option<String> {
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            ' ' | '@' | '$' => after,
            '\'' | '"' => match after.split_once(c) {
                Some((_, behind)) => behind,
                None => return Some("unterminated quoted string".to_owned()),
            },
            '[' => match behind_index(after) {
                Ok(behind) => behind,
                Err(fault) => return Some(fault),
            },
            '.' => match after.strip_prefix('.') {
                // Two dots look below; what is no name behind them stands by itself.
                Some(below) if !below.starts_with(begins_name) => below,
                Some(below) => behind_name(below),
                None => behind_name(after),
            },
            '+' | '-' | '0'..='9' => {
                let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
                let end = digits.find(|c: char| c != '.' && !c.is_ascii_digit());
                let behind = end.map_or("", |end| &digits[end..]);
                let number = &rest[..rest.len() - behind.len()];
                if number.parse::<f64>().is_err() {
                    return Some(format!("cannot parse number {number}"));
                }
                behind
            }
            // It closes the path, and the rest is text.
            '}' => return None,
            c if begins_name(c) => behind_name(rest),
            c => {
                let code = u32::from(c);
                return Some(format!(
                    "unrecognized character in action: U+{code:04X} '{c}'"
                ));
            }
        };
    }
    None
}

fn begins_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// What follows a name.
fn behind_name(text: &str) -> &str {
    let ends = |c: char| c.is_whitespace() || ".,[]$@{}".contains(c);
    text.find(ends).map_or("", |end| &text[end..])
}

/// What follows an index, a range, keys or a filter, of which the bracket is open.
fn behind_index(text: &str) -> Result<&str, String> {
    if let Some(filter) = text.strip_prefix("?(") {
        let behind = filter.split_once(")]").map(|(_, behind)| behind);
        return behind.ok_or_else(|| "unterminated filter".to_owned());
    }
    let Some((index, behind)) = text.split_once(']') else {
        return Err("unterminated array".to_owned());
    };
    let is_key = |part: &str| part.len() > 1 && part.starts_with('\'') && part.ends_with('\'');
    let is_range = |part: &str| {
        part.chars()
            .all(|c| c.is_ascii_digit() || "-:*".contains(c))
    };
    let known = |part: &str| is_key(part.trim()) || is_range(part.trim());
    if index.split(',').all(known) {
        Ok(behind)
    } else {
        Err(format!("invalid array index {index}"))
    }
}
