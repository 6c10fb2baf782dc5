//! ReplicaSet: so many Pods of one template.

use coracle_apimachinery::field::Path;
use coracle_apimachinery::selector::format_label_selector;
use k8s_openapi::api::apps::v1::ReplicaSet;

use super::pod::set_template_defaults;
use super::workload::{
    named_template_warnings, scale_view, selector_column, spec_and_status, template_cells,
    template_columns, validate_replica_counts,
};
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, ScaleView, Strategy, Subresource,
};
use crate::validation::pod::template::validate_replicated;
use crate::validation::{immutable, non_negative};

pub(super) struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    type Object = ReplicaSet;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ReplicaSet>()
            .short_names(&["rs"])
            .categories(&["all"])
            .subresources(&[Subresource::Status, Subresource::Scale])
            .generation()
    }

    fn set_defaults(&self, object: &mut ReplicaSet) {
        let spec = &mut object.spec;
        spec.replicas.get_or_insert(1);
        set_template_defaults(spec.template.get_or_insert_default());
        object.status.get_or_insert_default();
    }

    spec_and_status!(ReplicaSet);

    fn validate(&self, object: &ReplicaSet) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        let spec = object.spec.clone();
        non_negative(
            spec.replicas.unwrap_or(1),
            &at.child("replicas"),
            &mut errors,
        );
        non_negative(
            spec.min_ready_seconds.unwrap_or(0),
            &at.child("minReadySeconds"),
            &mut errors,
        );
        validate_replicated(&spec.selector, spec.template.as_ref(), &at, &mut errors);
        errors
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("selector");
        immutable(&new.spec.selector, &old.spec.selector, &at, &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &ReplicaSet, _old: &ReplicaSet) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = new.status.clone().unwrap_or_default();
        let counts = [
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
            ("terminatingReplicas", status.terminating_replicas),
        ];
        validate_replica_counts(
            status.replicas,
            &counts,
            status.observed_generation,
            &mut errors,
        );
        errors
    }

    fn warnings(&self, object: &ReplicaSet) -> Vec<String> {
        named_template_warnings(
            &object.metadata,
            object.spec.template.as_ref(),
            &Path::new("spec").child("template"),
        )
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::integer("Desired", "The number of desired replicas."),
            Column::integer("Current", "The most recently observed number of replicas."),
            Column::integer(
                "Ready",
                "The number of pods targeted by this set that are ready.",
            ),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter()
            .chain(template)
            .chain([selector_column()])
            .collect()
    }

    fn row(&self, object: &ReplicaSet, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
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
            .chain([Cell::from(format_label_selector(Some(&spec.selector)))])
            .collect()
    }

    fn scale(&self, object: &ReplicaSet) -> Option<ScaleView> {
        let current = object.status.as_ref().map_or(0, |status| status.replicas);
        scale_view(object.spec.replicas, current, &object.spec.selector)
    }

    fn set_replicas(&self, object: &mut ReplicaSet, replicas: i32) {
        object.spec.replicas = Some(replicas);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn set(spec: Value) -> ReplicaSet {
        let mut set =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        ReplicaSetStrategy.set_defaults(&mut set);
        set
    }

    fn template(labels: Value) -> Value {
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:v1"}, {"name": "d", "image": "b"}]}})
    }

    #[test]
    fn validation() {
        let labels = json!({"app": "web"});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"selector": {"matchLabels": labels}, "template": template(labels.clone())}),
                vec![],
            ),
            (
                json!({"replicas": -1, "selector": {"matchLabels": labels}, "template": template(json!({"app": "x"}))}),
                vec![
                    "spec.replicas FieldValueInvalid must be greater than or equal to 0",
                    "spec.template.metadata.labels FieldValueInvalid `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"template": template(labels.clone())}),
                vec![
                    "spec.selector FieldValueRequired",
                    "spec.template.metadata.labels FieldValueInvalid",
                ],
            ),
            (
                json!({"selector": {"matchLabels": labels}}),
                vec![
                    "spec.template.metadata.labels FieldValueInvalid `selector` does not match",
                    "spec.template.spec.containers FieldValueRequired",
                ],
            ),
        ];
        for (spec, want) in table {
            assert_causes(&ReplicaSetStrategy.validate(&set(spec)), &want);
        }
        let old =
            set(json!({"selector": {"matchLabels": labels}, "template": template(labels.clone())}));
        let both = json!({"app": "web", "tier": "x"});
        let new = set(json!({"selector": {"matchLabels": both}, "template": template(both)}));
        assert_causes(
            &ReplicaSetStrategy.validate_update(&new, &old),
            &["spec.selector FieldValueInvalid field is immutable"],
        );
    }

    #[test]
    fn status() {
        let mut object = set(json!({}));
        object.status = serde_json::from_value(
            json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 2}),
        )
        .unwrap();
        assert_causes(
            &ReplicaSetStrategy.validate_status_update(&object, &object),
            &[
                "status.availableReplicas FieldValueInvalid cannot be greater than status.replicas",
                "status.availableReplicas FieldValueInvalid cannot be greater than readyReplicas",
            ],
        );
    }

    #[test]
    fn rows_and_scale() {
        let labels = json!({"app": "web"});
        let mut object =
            set(json!({"selector": {"matchLabels": labels}, "template": template(labels)}));
        ReplicaSetStrategy.set_replicas(&mut object, 3);
        let row = ReplicaSetStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
        let want = vec![
            "web".into(),
            3.into(),
            0.into(),
            0.into(),
            "<unknown>".into(),
            "c,d".into(),
            "app:v1,b".into(),
            "app=web".into(),
        ];
        assert_eq!(row, want);
        assert_eq!(
            ReplicaSetStrategy.scale(&object).unwrap(),
            ScaleView {
                replicas: 3,
                current: 0,
                selector: "app=web".to_owned()
            }
        );
    }
}
