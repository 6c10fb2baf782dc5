//! DaemonSet: one Pod on each node.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::selector::{Selector, format_label_selector};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::format_labels;
use super::pod::set_template_defaults;
use super::workload::{
    selector_column, template_cells, template_columns, template_warnings, validate_not_decremented,
};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::int_or_percent::{amount, validate_at_most_all, validate_int_or_percent};
use crate::validation::labels::{self, validate_label_selector};
use crate::validation::pod::template::{is_missing, validate_kept_running, validate_template};
use crate::validation::{equality, immutable, non_negative, shown, text};

/// Counts the templates, as it was done before there was a generation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    type Object = DaemonSet;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<DaemonSet>()
            .short_names(&["ds"])
            .categories(&["all"])
            .subresources(&[Subresource::Status])
            .generation()
    }

    fn set_defaults(&self, object: &mut DaemonSet) {
        let spec = &mut object.spec;
        set_template_defaults(&mut spec.template);
        let update = spec.update_strategy.get_or_insert_default();
        if text(&update.type_).is_empty() {
            update.type_ = Some("RollingUpdate".to_owned());
        }
        if text(&update.type_) == "RollingUpdate" {
            let rolling = update.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut DaemonSet) {
        object.status = Some(Default::default());
        set_template_generation(object, 1);
    }

    fn prepare_for_update(&self, new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        let changed = !equality::semantic(&new.spec.template, &old.spec.template);
        set_template_generation(new, template_generation(old) + i64::from(changed));
    }

    fn prepare_for_status_update(&self, new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
    }

    fn spec_changed(&self, new: &DaemonSet, old: &DaemonSet) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn validate(&self, object: &DaemonSet) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_spec(&object.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("selector");
        immutable(&new.spec.selector, &old.spec.selector, &at, &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &DaemonSet, old: &DaemonSet) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("status");
        let status = new.status.clone().unwrap_or_default();
        let counts = [
            ("currentNumberScheduled", status.current_number_scheduled),
            ("numberMisscheduled", status.number_misscheduled),
            ("desiredNumberScheduled", status.desired_number_scheduled),
            ("numberReady", status.number_ready),
            (
                "updatedNumberScheduled",
                status.updated_number_scheduled.unwrap_or(0),
            ),
            ("numberAvailable", status.number_available.unwrap_or(0)),
            ("numberUnavailable", status.number_unavailable.unwrap_or(0)),
        ];
        for (field, number) in counts {
            non_negative(number, &at.child(field), &mut errors);
        }
        let observed = status.observed_generation.unwrap_or(0);
        non_negative(observed, &at.child("observedGeneration"), &mut errors);
        let old = old.status.as_ref().and_then(|old| old.collision_count);
        validate_not_decremented(status.collision_count, old, "collisionCount", &mut errors);
        errors
    }

    fn warnings(&self, object: &DaemonSet) -> Vec<String> {
        template_warnings(
            Some(&object.spec.template),
            &Path::new("spec").child("template"),
        )
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::integer("Desired", "The number of nodes that should have a pod."),
            Column::integer("Current", "The number of nodes that have one."),
            Column::integer("Ready", "The number of nodes whose pod is ready."),
            Column::integer("Up-to-date", "The number of pods of the newest template."),
            Column::integer("Available", "The number of nodes whose pod is available."),
            Column::text("Node Selector", "The labels of the nodes that get a pod."),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter()
            .chain(template)
            .chain([selector_column()])
            .collect()
    }

    fn row(&self, object: &DaemonSet, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let status = object.status.clone().unwrap_or_default();
        let pod = spec.template.spec.as_ref();
        let own = [
            printing::name(&object.metadata),
            Cell::from(status.desired_number_scheduled),
            Cell::from(status.current_number_scheduled),
            Cell::from(status.number_ready),
            Cell::from(status.updated_number_scheduled.unwrap_or(0)),
            Cell::from(status.number_available.unwrap_or(0)),
            Cell::from(format_labels(
                pod.and_then(|pod| pod.node_selector.as_ref()),
            )),
            printing::age(&object.metadata, now),
        ];
        own.into_iter()
            .chain(template_cells(Some(&spec.template)))
            .chain([Cell::from(format_label_selector(Some(&spec.selector)))])
            .collect()
    }
}

fn template_generation(object: &DaemonSet) -> i64 {
    let annotations = object.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(TEMPLATE_GENERATION)?.parse().ok())
        .unwrap_or(1)
}

fn set_template_generation(object: &mut DaemonSet, generation: i64) {
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate_spec(spec: &DaemonSetSpec, at: &Path, errors: &mut ErrorList) {
    let (selector_at, template_at) = (at.child("selector"), at.child("template"));
    validate_label_selector(&spec.selector, &selector_at, errors);
    let meta = spec.template.metadata.clone().unwrap_or_default();
    let missing = is_missing(&spec.selector);
    if let Ok(selector) = Selector::from_label_selector(&spec.selector)
        && (missing || !selector.matches_optional(meta.labels.as_ref()))
    {
        let at = template_at.child("metadata").child("labels");
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&at, shown(&meta.labels), detail));
    }
    if labels::is_empty(&spec.selector) && !missing {
        let detail = "empty selector is invalid for daemonset";
        errors.push(Error::invalid(&selector_at, shown(&spec.selector), detail));
    }
    validate_template(&spec.template, &template_at, errors);
    validate_kept_running(&spec.template, "DaemonSet", &template_at, errors);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    non_negative(min_ready, &at.child("minReadySeconds"), errors);
    if let Some(update) = &spec.update_strategy {
        validate_update_strategy(update, &at.child("updateStrategy"), errors);
    }
    let history = spec.revision_history_limit.unwrap_or(0);
    non_negative(history, &at.child("revisionHistoryLimit"), errors);
}

fn validate_update_strategy(update: &DaemonSetUpdateStrategy, at: &Path, errors: &mut ErrorList) {
    let rolling_at = at.child("rollingUpdate");
    match (text(&update.type_), &update.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(Error::required(&rolling_at, "")),
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let (unavailable_at, surge_at) = (
                rolling_at.child("maxUnavailable"),
                rolling_at.child("maxSurge"),
            );
            for (value, at) in [(unavailable, &unavailable_at), (surge, &surge_at)] {
                validate_int_or_percent(value, at, errors);
                validate_at_most_all(value, at, errors);
            }
            match (amount(unavailable) != 0, amount(surge) != 0) {
                (true, true) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.push(Error::invalid(&surge_at, shown(surge), detail));
                }
                (false, false) => {
                    let detail = "cannot be 0 when maxSurge is 0";
                    errors.push(Error::required(&unavailable_at, detail));
                }
                _ => {}
            }
        }
        _ => {
            let supported = &["RollingUpdate", "OnDelete"];
            errors.push(Error::not_supported(at, shown(update), supported));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn set(change: Value) -> DaemonSet {
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "log"}},
            "template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}},
        });
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut set =
            serde_json::from_value(json!({"metadata": {"name": "log"}, "spec": spec})).unwrap();
        DaemonSetStrategy.set_defaults(&mut set);
        set
    }

    #[test]
    fn validation() {
        let rolling = |value: Value| json!({"updateStrategy": {"rollingUpdate": value}});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"selector": {"matchLabels": {}}, "minReadySeconds": -1}),
                vec![
                    "spec.selector FieldValueInvalid empty selector is invalid for daemonset",
                    "spec.minReadySeconds FieldValueInvalid",
                ],
            ),
            (
                rolling(json!({"maxSurge": "10%"})),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge FieldValueInvalid may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                rolling(json!({"maxUnavailable": 0})),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable FieldValueRequired cannot be 0",
                ],
            ),
            (
                json!({"updateStrategy": {"type": "Never"}}),
                vec!["spec.updateStrategy FieldValueNotSupported"],
            ),
        ];
        for (change, want) in table {
            assert_causes(&DaemonSetStrategy.validate(&set(change)), &want);
        }
    }

    #[test]
    fn templates_are_counted() {
        let mut old = set(json!({}));
        DaemonSetStrategy.prepare_for_create(&mut old);
        assert_eq!(template_generation(&old), 1);
        let mut same = set(json!({"minReadySeconds": 1}));
        DaemonSetStrategy.prepare_for_update(&mut same, &old);
        assert_eq!(template_generation(&same), 1);
        let mut other = old.clone();
        let pod = other.spec.template.spec.as_mut().unwrap();
        pod.containers[0].image = Some("app:v2".to_owned());
        DaemonSetStrategy.prepare_for_update(&mut other, &old);
        assert_eq!(template_generation(&other), 2);
    }
}
