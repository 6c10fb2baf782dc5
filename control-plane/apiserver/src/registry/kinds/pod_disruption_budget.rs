//! PodDisruptionBudget: how many Pods may go at the same time by somebody's will. Eviction asks it
//! (`handlers/eviction`); a controller keeps its status.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, NameRule, Strategy, Subresource,
};
use crate::validation::conditions::validate_conditions;
use crate::validation::int_or_percent::{validate_at_most_all, validate_int_or_percent};
use crate::validation::labels::validate_label_selector;
use crate::validation::{equality, items, non_negative, shown};

pub(super) struct PodDisruptionBudgetStrategy;

impl Strategy for PodDisruptionBudgetStrategy {
    type Object = PodDisruptionBudget;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PodDisruptionBudget>()
            .short_names(&["pdb"])
            .names(NameRule::PathSegment)
            .subresources(&[Subresource::Status])
            .generation()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut PodDisruptionBudget) {
        object.spec.get_or_insert_default();
        let status = object.status.get_or_insert_default();
        status.current_healthy.get_or_insert(0);
        status.desired_healthy.get_or_insert(0);
        status.disruptions_allowed.get_or_insert(0);
        status.expected_pods.get_or_insert(0);
    }

    fn prepare_for_create(&self, object: &mut PodDisruptionBudget) {
        object.status = Some(Default::default());
    }

    fn prepare_for_update(&self, new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(&self, new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.spec.clone_from(&old.spec);
    }

    /// A selector of all Pods is not the same as one of none, which is not there.
    fn spec_changed(&self, new: &PodDisruptionBudget, old: &PodDisruptionBudget) -> bool {
        let selects = |object: &PodDisruptionBudget| {
            let spec = object.spec.as_ref();
            spec.is_some_and(|spec| spec.selector.is_some())
        };
        selects(new) != selects(old) || !equality::semantic(&new.spec, &old.spec)
    }

    fn validate(&self, object: &PodDisruptionBudget) -> ErrorList {
        let mut errors = ErrorList::default();
        let Some(spec) = &object.spec else {
            return errors;
        };
        let at = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(Error::invalid(&at, shown(spec), detail));
        }
        let amounts = [
            ("minAvailable", &spec.min_available),
            ("maxUnavailable", &spec.max_unavailable),
        ];
        for (field, amount) in amounts {
            if let Some(amount) = amount {
                let at = at.child(field);
                validate_int_or_percent(amount, &at, &mut errors);
                validate_at_most_all(amount, &at, &mut errors);
            }
        }
        if let Some(selector) = &spec.selector {
            validate_label_selector(selector, &at.child("selector"), &mut errors);
        }
        let policies = &["AlwaysAllow", "IfHealthyBudget"];
        if let Some(policy) = spec
            .unhealthy_pod_eviction_policy
            .as_deref()
            .filter(|policy| !policies.contains(policy))
        {
            let at = at.child("unhealthyPodEvictionPolicy");
            errors.push(Error::not_supported(&at, policy, policies));
        }
        errors
    }

    fn validate_update(&self, new: &PodDisruptionBudget, _old: &PodDisruptionBudget) -> ErrorList {
        self.validate(new)
    }

    fn validate_status_update(
        &self,
        new: &PodDisruptionBudget,
        _old: &PodDisruptionBudget,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("status");
        let status = new.status.clone().unwrap_or_default();
        let conditions = items(&status.conditions);
        validate_conditions(conditions, &at.child("conditions"), &mut errors);
        let counts = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        for (field, number) in counts {
            non_negative(number.unwrap_or(0), &at.child(field), &mut errors);
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Min Available", "How many pods must stay available."),
            Column::text("Max Unavailable", "How many pods may be unavailable."),
            Column::integer("Allowed Disruptions", "How many pods may go now."),
            Column::age(),
        ]
    }

    fn row(&self, object: &PodDisruptionBudget, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let allowed = object.status.as_ref().and_then(|s| s.disruptions_allowed);
        let amount = |amount: Option<IntOrString>| {
            Cell::from(match amount {
                None => "N/A".to_owned(),
                Some(IntOrString::Int(number)) => number.to_string(),
                Some(IntOrString::String(percent)) => percent,
            })
        };
        vec![
            printing::name(&object.metadata),
            amount(spec.min_available),
            amount(spec.max_unavailable),
            Cell::from(allowed.unwrap_or(0)),
            printing::age(&object.metadata, now),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn budget(value: Value) -> PodDisruptionBudget {
        let mut budget = serde_json::from_value(value).unwrap();
        PodDisruptionBudgetStrategy.set_defaults(&mut budget);
        budget
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}),
                vec![],
            ),
            (
                json!({"minAvailable": -1, "maxUnavailable": "101%", "unhealthyPodEvictionPolicy": "Never"}),
                vec![
                    "spec FieldValueInvalid minAvailable and maxUnavailable cannot be both set",
                    "spec.minAvailable FieldValueInvalid must be greater than or equal to 0",
                    "spec.maxUnavailable FieldValueInvalid must not be greater than 100%",
                    "spec.unhealthyPodEvictionPolicy FieldValueNotSupported",
                ],
            ),
        ];
        for (spec, want) in table {
            let object = budget(json!({"spec": spec}));
            assert_causes(&PodDisruptionBudgetStrategy.validate(&object), &want);
        }
        let of = |selector: Value| budget(json!({"spec": { "selector": selector }}));
        let changed = |new, old| PodDisruptionBudgetStrategy.spec_changed(&of(new), &of(old));
        assert!(changed(json!({}), Value::Null));
        assert!(!changed(json!({}), json!({"matchLabels": {}})));
        let bad = json!({"status": {"disruptionsAllowed": -1, "conditions": [
            {"type": "A", "status": "Maybe", "reason": "-", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "A", "status": "True", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "B", "status": "", "reason": "R", "message": "", "observedGeneration": -1, "lastTransitionTime": "0001-01-01T00:00:00Z"},
        ]}});
        let errors =
            PodDisruptionBudgetStrategy.validate_status_update(&budget(bad), &budget(json!({})));
        assert_causes(
            &errors,
            &[
                "status.conditions[0].status FieldValueNotSupported",
                "status.conditions[0].reason FieldValueInvalid a condition reason must start",
                "status.conditions[1] FieldValueDuplicate",
                "status.conditions[1].reason FieldValueRequired",
                "status.conditions[2].status FieldValueRequired",
                "status.conditions[2].observedGeneration FieldValueInvalid must be greater than or equal to zero",
                "status.conditions[2].lastTransitionTime FieldValueRequired",
                "status.disruptionsAllowed FieldValueInvalid",
            ],
        );
    }
}
