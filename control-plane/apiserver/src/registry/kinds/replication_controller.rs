//! ReplicationController: so many Pods of one template, as it was before ReplicaSets.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::selector::Selector;
use k8s_openapi::api::core::v1::ReplicationController;

use super::pod::set_template_defaults;
use super::workload::{
    named_template_warnings, selector_column, spec_and_status, template_cells, template_columns,
    validate_replica_counts,
};
use super::{first_non_empty, format_labels};
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, ScaleView, Strategy, Subresource,
};
use crate::validation::pod::template::{validate_kept_running, validate_template};
use crate::validation::{non_negative, shown};

pub(super) struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    type Object = ReplicationController;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ReplicationController>()
            .short_names(&["rc"])
            .categories(&["all"])
            .subresources(&[Subresource::Status, Subresource::Scale])
            .fields(&["status.replicas"])
            .generation()
            .orphans()
    }

    /// What is left out is taken from the template: the selector, and labels of its own.
    fn set_defaults(&self, object: &mut ReplicationController) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            set_template_defaults(template);
            let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
            first_non_empty(&mut spec.selector, labels.as_ref());
            first_non_empty(&mut object.metadata.labels, labels.as_ref());
        }
        object.status.get_or_insert_default();
    }

    spec_and_status!(ReplicationController);

    fn validate(&self, object: &ReplicationController) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        let spec = object.spec.clone().unwrap_or_default();
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        non_negative(min_ready, &at.child("minReadySeconds"), &mut errors);
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            errors.push(Error::required(&at.child("selector"), ""));
        }
        let replicas = spec.replicas.unwrap_or(1);
        non_negative(replicas, &at.child("replicas"), &mut errors);
        let at = at.child("template");
        let Some(template) = &spec.template else {
            errors.push(Error::required(&at, ""));
            return errors;
        };
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
        let labels = labels.unwrap_or_default();
        if !selector.is_empty() && !Selector::from_set(&selector).matches(&labels) {
            errors.push(Error::invalid(
                &at.child("metadata").child("labels"),
                shown(&labels),
                "`selector` does not match template `labels`",
            ));
        }
        validate_template(template, &at, &mut errors);
        validate_kept_running(template, "ReplicationController", &at, &mut errors);
        errors
    }

    fn validate_update(
        &self,
        new: &ReplicationController,
        _old: &ReplicationController,
    ) -> ErrorList {
        self.validate(new)
    }

    fn validate_status_update(
        &self,
        new: &ReplicationController,
        _old: &ReplicationController,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = new.status.clone().unwrap_or_default();
        let counts = [
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        validate_replica_counts(
            status.replicas,
            &counts,
            status.observed_generation,
            &mut errors,
        );
        errors
    }

    fn warnings(&self, object: &ReplicationController) -> Vec<String> {
        let template = object.spec.as_ref().and_then(|spec| spec.template.as_ref());
        named_template_warnings(
            &object.metadata,
            template,
            &Path::new("spec").child("template"),
        )
    }

    fn selectable_fields(&self, object: &ReplicationController) -> Vec<(&'static str, String)> {
        let replicas = object.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", replicas.to_string())]
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::integer("Desired", "The number of desired replicas."),
            Column::integer("Current", "The most recently observed number of replicas."),
            Column::integer(
                "Ready",
                "The number of pods targeted by this controller that are ready.",
            ),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter()
            .chain(template)
            .chain([selector_column()])
            .collect()
    }

    fn row(&self, object: &ReplicationController, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let own = [
            printing::name(&object.metadata),
            Cell::from(spec.replicas.unwrap_or(1)),
            Cell::from(status.replicas),
            Cell::from(status.ready_replicas.unwrap_or(0)),
            printing::age(&object.metadata, now),
        ];
        own.into_iter()
            .chain(template_cells(spec.template.as_ref()))
            .chain([Cell::from(format_labels(spec.selector.as_ref()))])
            .collect()
    }

    fn scale(&self, object: &ReplicationController) -> Option<ScaleView> {
        let spec = object.spec.as_ref()?;
        let none = BTreeMap::new();
        let selector = Selector::from_set(spec.selector.as_ref().unwrap_or(&none));
        Some(ScaleView {
            replicas: spec.replicas.unwrap_or(1),
            current: object.status.as_ref().map_or(0, |status| status.replicas),
            selector: selector.to_string(),
        })
    }

    fn set_replicas(&self, object: &mut ReplicationController, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn controller(spec: Value) -> ReplicationController {
        let mut controller =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        ReplicationControllerStrategy.set_defaults(&mut controller);
        controller
    }

    fn template() -> Value {
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}})
    }

    #[test]
    fn the_selector_and_the_labels_are_those_of_the_template() {
        let object = controller(json!({"template": template()}));
        let labels = Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        assert_eq!(object.metadata.labels, labels);
        assert_eq!(object.spec.unwrap().selector, labels);
    }

    #[test]
    fn validation() {
        let mut job = template();
        job["spec"]["restartPolicy"] = json!("Never");
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"template": template()}), vec![]),
            (
                json!({"replicas": -1, "minReadySeconds": -1}),
                vec![
                    "spec.minReadySeconds FieldValueInvalid must be greater than or equal to 0",
                    "spec.selector FieldValueRequired",
                    "spec.replicas FieldValueInvalid must be greater than or equal to 0",
                    "spec.template FieldValueRequired",
                ],
            ),
            (
                json!({"selector": {"app": "other"}, "template": job}),
                vec![
                    "spec.template.metadata.labels FieldValueInvalid `selector` does not match template `labels`",
                    "spec.template.spec.restartPolicy FieldValueNotSupported",
                ],
            ),
        ];
        for (spec, want) in table {
            let errors = ReplicationControllerStrategy.validate(&controller(spec));
            assert_causes(&errors, &want);
        }
    }
}
