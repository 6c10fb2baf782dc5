//! Taints of devices, what tolerates them, and rules that taint.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::resource::v1::{
    DeviceTaint, DeviceTaintRuleSpec, DeviceTaintRuleStatus, DeviceToleration,
};

use super::at_most;
use super::names::{validate_driver, validate_label, validate_pool};
use crate::validation::conditions::validate_conditions;
use crate::validation::labels::validate_label_name;
use crate::validation::{faults, items, one_of, text};

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
const MAX_CONDITIONS: usize = 8;

/// A taint, and the one that was there before.
pub(super) fn validate_taint(
    taint: &DeviceTaint,
    old: Option<&DeviceTaint>,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_label_name(&taint.key, &at.child("key"), errors);
    let value = text(&taint.value);
    faults(value, names::label_value(value), &at.child("value"), errors);
    if old.is_none_or(|old| old.effect != taint.effect) {
        one_of(&taint.effect, EFFECTS, &at.child("effect"), errors);
    }
}

/// What a request puts up with.
pub(super) fn validate_toleration(
    toleration: &DeviceToleration,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    if !key.is_empty() {
        validate_label_name(key, &at.child("key"), errors);
    }
    let operators = &["Equal", "Exists"];
    match text(&toleration.operator) {
        "Exists" if !value.is_empty() => {
            let detail = "must be empty for operator `Exists`";
            errors.push(Error::invalid(&at.child("value"), value, detail));
        }
        "Equal" => faults(value, names::label_value(value), &at.child("value"), errors),
        operator => one_of(operator, operators, &at.child("operator"), errors),
    }
    let effect = text(&toleration.effect);
    if !effect.is_empty() {
        one_of(effect, EFFECTS, &at.child("effect"), errors);
    }
}

/// The spec of a rule, and the one that it had before.
pub(crate) fn validate_taint_rule(
    spec: &DeviceTaintRuleSpec,
    old: Option<&DeviceTaintRuleSpec>,
) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    if let Some(selector) = &spec.device_selector {
        let at = at.child("deviceSelector");
        if let Some(driver) = &selector.driver {
            validate_driver(driver, &at.child("driver"), &mut errors);
        }
        if let Some(pool) = &selector.pool {
            validate_pool(pool, &at.child("pool"), &mut errors);
        }
        if let Some(device) = &selector.device {
            validate_label(device, &at.child("device"), &mut errors);
        }
    }
    let old = old.map(|old| &old.taint);
    validate_taint(&spec.taint, old, &at.child("taint"), &mut errors);
    errors
}

/// What became of a rule.
pub(crate) fn validate_taint_rule_status(status: &DeviceTaintRuleStatus) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("status").child("conditions");
    let conditions = items(&status.conditions);
    validate_conditions(conditions, &at, &mut errors);
    at_most(conditions, MAX_CONDITIONS, &at, &mut errors);
    errors
}
