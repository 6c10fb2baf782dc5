//! Webhooks, those that change objects and those that only judge them.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ValidatingWebhook, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::client::validate_client_config;
use super::conditions::{bound, validate_match_conditions};
use super::rules::{MATCH_POLICIES, validate_rule};
use crate::validation::cel::Environment;
use crate::validation::labels::validate_label_selector;
use crate::validation::{faults, items, shown};

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
/// Versions of the question that is asked, of which a webhook has to know one.
const REVIEWS: &[&str] = &["v1", "v1beta1"];
/// Seconds for which a webhook is waited for.
const TIMEOUT: std::ops::RangeInclusive<i32> = 1..=30;

/// What the two sorts of webhooks have in common.
pub(crate) struct Webhook<'a> {
    name: &'a str,
    client: &'a WebhookClientConfig,
    rules: &'a [RuleWithOperations],
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    reinvocation_policy: Option<&'a str>,
    namespaces: Option<&'a LabelSelector>,
    objects: Option<&'a LabelSelector>,
    side_effects: &'a str,
    timeout: Option<i32>,
    reviews: &'a [String],
    conditions: &'a [MatchCondition],
}

macro_rules! webhook_of {
    ($webhook:ident, $reinvocation:expr) => {
        impl<'a> From<&'a $webhook> for Webhook<'a> {
            fn from(webhook: &'a $webhook) -> Self {
                let reinvocation: fn(&'a $webhook) -> Option<&'a str> = $reinvocation;
                Self {
                    name: &webhook.name,
                    client: &webhook.client_config,
                    rules: items(&webhook.rules),
                    failure_policy: webhook.failure_policy.as_deref(),
                    match_policy: webhook.match_policy.as_deref(),
                    reinvocation_policy: reinvocation(webhook),
                    namespaces: webhook.namespace_selector.as_ref(),
                    objects: webhook.object_selector.as_ref(),
                    side_effects: &webhook.side_effects,
                    timeout: webhook.timeout_seconds,
                    reviews: &webhook.admission_review_versions,
                    conditions: items(&webhook.match_conditions),
                }
            }
        }
    };
}

webhook_of!(ValidatingWebhook, |_| None);
webhook_of!(MutatingWebhook, |webhook| webhook
    .reinvocation_policy
    .as_deref());

/// All webhooks of a configuration, and those that it had before.
pub(crate) fn validate_webhooks<'a>(
    new: impl Iterator<Item = Webhook<'a>>,
    old: Option<Vec<Webhook<'a>>>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let new: Vec<Webhook<'a>> = new.collect();
    let stored = old.is_some_and(|old| {
        let conditions = |all: &[Webhook<'a>]| -> Vec<&'a [MatchCondition]> {
            all.iter().map(|webhook| webhook.conditions).collect()
        };
        conditions(&old) == conditions(&new)
    });
    if !stored {
        let conditions = new.iter().flat_map(|webhook| webhook.conditions);
        let expressions = conditions.map(|condition| &*condition.expression);
        if bound(expressions, &Path::new("webhooks"), &mut errors).is_none() {
            return errors;
        }
    }
    let mut names = BTreeSet::new();
    for (i, webhook) in new.iter().enumerate() {
        let at = Path::new("webhooks").index(i);
        validate_webhook(webhook, stored, &at, &mut errors);
        if !webhook.name.is_empty() && !names.insert(webhook.name) {
            errors.push(Error::duplicate(&at.child("name"), webhook.name));
        }
    }
    errors
}

fn validate_webhook(webhook: &Webhook<'_>, stored: bool, at: &Path, errors: &mut ErrorList) {
    validate_full_name(webhook.name, &at.child("name"), errors);
    for (i, rule) in webhook.rules.iter().enumerate() {
        validate_rule(rule, &at.child("rules").index(i), errors);
    }
    for (field, value, known) in [
        ("failurePolicy", webhook.failure_policy, FAILURE_POLICIES),
        ("matchPolicy", webhook.match_policy, MATCH_POLICIES),
    ] {
        validate_choice(value, known, &at.child(field), errors);
    }
    let effects_at = at.child("sideEffects");
    if webhook.side_effects.is_empty() {
        let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        errors.push(Error::required(&effects_at, detail));
    } else {
        let effects = Some(webhook.side_effects);
        validate_choice(effects, SIDE_EFFECTS, &effects_at, errors);
    }
    if let Some(timeout) = webhook.timeout.filter(|given| !TIMEOUT.contains(given)) {
        let at = at.child("timeoutSeconds");
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(Error::invalid(&at, timeout, detail));
    }
    for (field, selector) in [
        ("namespaceSelector", webhook.namespaces),
        ("objectSelector", webhook.objects),
    ] {
        if let Some(selector) = selector {
            validate_label_selector(selector, &at.child(field), errors);
        }
    }
    let reinvocation_at = at.child("reinvocationPolicy");
    let reinvocation = webhook.reinvocation_policy;
    validate_choice(
        reinvocation,
        REINVOCATION_POLICIES,
        &reinvocation_at,
        errors,
    );
    validate_client_config(webhook.client, &at.child("clientConfig"), errors);
    validate_match_conditions(
        webhook.conditions,
        &Environment::admission().authorizer(),
        stored,
        &at.child("matchConditions"),
        errors,
    );
    validate_reviews(
        webhook.reviews,
        &at.child("admissionReviewVersions"),
        errors,
    );
}

/// One of some values, where there is one.
pub(super) fn validate_choice(
    value: Option<&str>,
    known: &[&str],
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(value) = value
        && !known.contains(&value)
    {
        errors.push(Error::not_supported(at, value, known));
    }
}

/// A name that says whose the webhook is: `name.example.com`.
fn validate_full_name(name: &str, at: &Path, errors: &mut ErrorList) {
    let wrong = names::dns_subdomain(name);
    if name.is_empty() {
        errors.push(Error::required(at, ""));
    } else if !wrong.is_empty() {
        errors.push(Error::invalid(at, name, wrong.join(",")));
    } else if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(Error::invalid(at, name, detail));
    }
}

fn validate_reviews(versions: &[String], at: &Path, errors: &mut ErrorList) {
    let known = REVIEWS.join(", ");
    if versions.is_empty() {
        let detail = format!("must specify one of {known}");
        errors.push(Error::required(at, detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = at.index(i);
        if !seen.insert(version) {
            errors.push(Error::invalid(&at, version.as_str(), "duplicate version"));
        } else {
            faults(version, names::dns1035_label(version), &at, errors);
        }
    }
    if !versions
        .iter()
        .any(|version| REVIEWS.contains(&version.as_str()))
    {
        let detail = format!("must include at least one of {known}");
        errors.push(Error::invalid(at, shown(&versions), detail));
    }
}
