//! Jobs, by themselves and in templates.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
    SuccessPolicy,
};
use k8s_openapi::api::core::v1::PodSpec;

use super::pod::template::validate_template;
use super::references::validate_domain_prefixed;
use super::{faults, items, non_negative, shown, text};

const INDEXED: &str = "Indexed";
/// Most Pods at a time of a Job with indexes.
const MAX_PARALLELISM: i32 = 100_000;
/// Most failed indexes that are listed.
const MAX_FAILED_INDEXES: i32 = 100_000;
/// Completions beyond which fewer of both are taken.
pub(crate) const MANY_COMPLETIONS: i32 = 100_000;
/// Most Pods at a time, and most failed indexes, of a Job with very many completions.
pub(crate) const MAX_OF_MANY: i32 = 10_000;
/// Most rules of a policy, and patterns of a rule.
const MAX_RULES: usize = 20;
/// Most exit codes of a rule.
const MAX_EXIT_CODES: usize = 255;
/// Longest list of indexes, in bytes.
const MAX_INDEXES: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

/// Whether a Job's Pods have indexes.
pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    text(&spec.completion_mode) == INDEXED
}

/// Everything that is wrong with a Job but its selector, which is made later.
pub(crate) fn validate_job_spec(spec: &JobSpec, at: &Path, errors: &mut ErrorList) {
    let numbers = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        (
            "ttlSecondsAfterFinished",
            spec.ttl_seconds_after_finished.map(i64::from),
        ),
        (
            "backoffLimitPerIndex",
            spec.backoff_limit_per_index.map(i64::from),
        ),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (field, number) in numbers {
        non_negative(number.unwrap_or(0), &at.child(field), errors);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let at = at.child("backoffLimitPerIndex");
        errors.push(Error::required(&at, "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        let at = at.child("managedBy");
        validate_domain_prefixed(manager, &at, errors);
        if manager.len() > names::LABEL_MAX {
            errors.push(Error::too_long(&at, names::LABEL_MAX));
        }
    }
    validate_indexes(spec, at, errors);
    let pod = spec.template.spec.clone().unwrap_or_default();
    if let Some(policy) = &spec.pod_failure_policy {
        validate_failure_policy(policy, spec, &pod, &at.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = &spec.success_policy {
        validate_success_policy(policy, spec, &at.child("successPolicy"), errors);
    }
    if let Some(policy) = &spec.pod_replacement_policy {
        let at = at.child("podReplacementPolicy");
        match (policy.as_str(), &spec.pod_failure_policy) {
            ("Failed", _) | ("TerminatingOrFailed", None) => {}
            (other, Some(_)) => errors.push(Error::not_supported(&at, other, &["Failed"])),
            (other, None) => {
                let supported = &["Failed", "TerminatingOrFailed"];
                errors.push(Error::not_supported(&at, other, supported));
            }
        }
    }
    let template_at = at.child("template");
    validate_template(&spec.template, &template_at, errors);
    let at = template_at.child("spec").child("restartPolicy");
    match text(&pod.restart_policy) {
        // It is defaulted where it is left out.
        "" | "Always" => errors.push(Error::required(
            &at,
            "valid values: \"OnFailure\", \"Never\"",
        )),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Error::invalid(&at, "OnFailure", detail));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(Error::not_supported(&at, other, &["OnFailure", "Never"])),
    }
}

fn validate_indexes(spec: &JobSpec, at: &Path, errors: &mut ErrorList) {
    let mode = text(&spec.completion_mode);
    if !mode.is_empty() && !matches!(mode, INDEXED | "NonIndexed") {
        let at = at.child("completionMode");
        errors.push(Error::not_supported(&at, mode, &["NonIndexed", "Indexed"]));
        return;
    }
    if !is_indexed(spec) {
        for (field, value) in [
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ] {
            if let Some(value) = value {
                let detail = "requires indexed completion mode";
                errors.push(Error::invalid(&at.child(field), value, detail));
            }
        }
        return;
    }
    let mut most = |field: &str, value: Option<i32>, most: i32, detail: String| {
        if let Some(value) = value.filter(|value| *value > most) {
            errors.push(Error::invalid(&at.child(field), value, detail));
        }
    };
    most(
        "parallelism",
        spec.parallelism,
        MAX_PARALLELISM,
        format!(
            "must be less than or equal to {MAX_PARALLELISM} when completion mode is {INDEXED}"
        ),
    );
    let Some(completions) = spec.completions else {
        let detail = format!("when completion mode is {INDEXED}");
        errors.push(Error::required(&at.child("completions"), detail));
        return;
    };
    let failed = spec.max_failed_indexes;
    most(
        "maxFailedIndexes",
        failed,
        completions,
        "must be less than or equal to completions".to_owned(),
    );
    most(
        "maxFailedIndexes",
        failed,
        MAX_FAILED_INDEXES,
        format!("must be less than or equal to {MAX_FAILED_INDEXES}"),
    );
    if completions <= MANY_COMPLETIONS || spec.backoff_limit_per_index.is_none() {
        return;
    }
    let detail = format!(
        "must be less than or equal to {MAX_OF_MANY} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
    );
    most("parallelism", spec.parallelism, MAX_OF_MANY, detail.clone());
    most("maxFailedIndexes", failed, MAX_OF_MANY, detail);
    if failed.is_none() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(Error::required(&at.child("maxFailedIndexes"), detail));
    }
}

fn validate_failure_policy(
    policy: &PodFailurePolicy,
    spec: &JobSpec,
    pod: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let at = at.child("rules");
    if policy.rules.len() > MAX_RULES {
        errors.push(Error::too_many(&at, policy.rules.len(), MAX_RULES));
    }
    let init = items(&pod.init_containers);
    let containers: BTreeSet<&str> = pod
        .containers
        .iter()
        .chain(init)
        .map(|c| c.name.as_str())
        .collect();
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = at.index(i);
        required_of(&rule.action, ACTIONS, &at.child("action"), errors);
        if rule.action == "FailIndex" && spec.backoff_limit_per_index.is_none() {
            let detail = "requires the backoffLimitPerIndex to be set";
            errors.push(Error::invalid(&at.child("action"), "FailIndex", detail));
        }
        validate_failure_rule(rule, &containers, &at, errors);
    }
}

fn validate_failure_rule(
    rule: &PodFailurePolicyRule,
    containers: &BTreeSet<&str>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(codes) = &rule.on_exit_codes {
        validate_exit_codes(codes, containers, &at.child("onExitCodes"), errors);
    }
    let patterns = items(&rule.on_pod_conditions);
    let patterns_at = at.child("onPodConditions");
    if patterns.len() > MAX_RULES {
        errors.push(Error::too_many(&patterns_at, patterns.len(), MAX_RULES));
    } else {
        for (i, pattern) in patterns.iter().enumerate() {
            let at = patterns_at.index(i);
            let kind = pattern.type_.as_str();
            faults(kind, names::qualified_name(kind), &at.child("type"), errors);
            let states = &["False", "True", "Unknown"];
            required_of(text(&pattern.status), states, &at.child("status"), errors);
        }
    }
    let detail = match (rule.on_exit_codes.is_some(), !patterns.is_empty()) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(Error::invalid_without_value(at, detail));
}

fn validate_exit_codes(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &BTreeSet<&str>,
    at: &Path,
    errors: &mut ErrorList,
) {
    required_of(
        &codes.operator,
        &["In", "NotIn"],
        &at.child("operator"),
        errors,
    );
    if let Some(name) = codes
        .container_name
        .as_deref()
        .filter(|name| !containers.contains(name))
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(Error::invalid(&at.child("containerName"), name, detail));
    }
    let (values, at) = (&codes.values, at.child("values"));
    if values.is_empty() {
        let detail = "at least one value is required";
        errors.push(Error::invalid(&at, shown(values), detail));
    } else if values.len() > MAX_EXIT_CODES {
        errors.push(Error::too_many(&at, values.len(), MAX_EXIT_CODES));
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if *value == 0 && codes.operator == "In" {
            let detail = "must not be 0 for the In operator";
            errors.push(Error::invalid(&at.index(i), 0, detail));
        }
        if !seen.insert(value) {
            errors.push(Error::duplicate(&at.index(i), *value));
        }
    }
    if !values.is_sorted() {
        errors.push(Error::invalid(&at, shown(values), "must be ordered"));
    }
}

/// A string of a closed set that is required; the error names what there is.
fn required_of(value: &str, supported: &[&str], at: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("valid values: [{}]", quoted.join(" "));
        errors.push(Error::required(at, detail));
    } else if !supported.contains(&value) {
        errors.push(Error::not_supported(at, value, supported));
    }
}

fn validate_success_policy(
    policy: &SuccessPolicy,
    spec: &JobSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    if !is_indexed(spec) {
        let detail = "requires indexed completion mode";
        errors.push(Error::invalid(at, shown(policy), detail));
        return;
    }
    let at = at.child("rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(Error::required(&at, detail));
    }
    if policy.rules.len() > MAX_RULES {
        errors.push(Error::too_many(&at, policy.rules.len(), MAX_RULES));
    }
    let completions = spec.completions.unwrap_or(0);
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = at.index(i);
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(Error::required(&at, detail));
        }
        let mut total = None;
        if let Some(indexes) = &rule.succeeded_indexes {
            let at = at.child("succeededIndexes");
            if indexes.len() > MAX_INDEXES {
                errors.push(Error::too_long(&at, MAX_INDEXES));
            }
            match count_indexes(indexes, completions) {
                Ok(count) => total = Some(count),
                Err(fault) => {
                    total = Some(0);
                    let detail = format!("error parsing succeededIndexes: {fault}");
                    errors.push(Error::invalid(&at, indexes.as_str(), detail));
                }
            }
        }
        if let Some(count) = rule.succeeded_count {
            let at = at.child("succeededCount");
            non_negative(count, &at, errors);
            if count > completions {
                let detail = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                errors.push(Error::invalid(&at, count, detail));
            }
            if let Some(total) = total.filter(|total| count > *total) {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                errors.push(Error::invalid(&at, count, detail));
            }
        }
    }
}

/// How many indexes a list names (`1,3-5`), in their order and each once.
pub(crate) fn count_indexes(list: &str, completions: i32) -> Result<i32, String> {
    let (mut total, mut last) = (0, None);
    if list.is_empty() {
        return Ok(0);
    }
    for interval in list.split(',') {
        let (low, high) = bounds(interval)?;
        for index in [low, high] {
            if index >= completions {
                return Err(format!("too large index: \"{index}\""));
            }
        }
        if let Some(last) = last.filter(|last| low <= *last) {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {low}"
            ));
        }
        last = Some(high);
        total += high - low + 1;
    }
    Ok(total)
}

/// The first and the last index of an interval.
fn bounds(interval: &str) -> Result<(i32, i32), String> {
    let number = |text: &str| {
        let parsed: Result<i32, _> = text.parse();
        parsed.map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
    };
    let limits: Vec<&str> = interval.split('-').collect();
    match limits[..] {
        [only] => Ok((number(only)?, number(only)?)),
        [low, high] => {
            let (low, high) = (number(low)?, number(high)?);
            if low >= high {
                return Err(format!(
                    "non-increasing order, previous: {low}, current: {high}"
                ));
            }
            Ok((low, high))
        }
        _ => Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

/// An index that two lists have in common. What is no interval is passed over.
pub(crate) fn overlap(one: &str, other: &str) -> Option<i32> {
    let intervals = |list: &str| -> Vec<(i32, i32)> {
        list.split(',')
            .filter_map(|interval| bounds(interval).ok())
            .collect()
    };
    let (one, other) = (intervals(one), intervals(other));
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    while let (Some((low, high)), Some((from, to))) = (one.peek().copied(), other.peek().copied()) {
        if low <= to && from <= high {
            return Some(low.max(from));
        }
        if low <= from {
            one.next();
        } else {
            other.next();
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_overlap() {
        let table = [
            ("0,2-4", "1,5", None),
            ("0,2-4", "1,4-5", Some(4)),
            ("", "1", None),
            ("x,3", "2-4", Some(3)),
        ];
        for (one, other, want) in table {
            assert_eq!(overlap(one, other), want, "{one} {other}");
            assert_eq!(overlap(other, one), want, "{other} {one}");
        }
    }

    #[test]
    fn lists_of_indexes() {
        assert_eq!(count_indexes("0,2-4", 5), Ok(4));
        assert_eq!(count_indexes("", 5), Ok(0));
        for (list, fault) in [
            ("3,1", "non-increasing order"),
            ("3-3", "non-increasing order"),
            ("1-2-3", "the fragment"),
            ("5", "too large index"),
            ("a", "cannot convert"),
        ] {
            let got = count_indexes(list, 5).unwrap_err();
            assert!(got.starts_with(fault), "{list}: {got}");
        }
    }
}
