//! Deployment: ReplicaSets of one template after another.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::selector::format_label_selector;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, DeploymentStrategy as Rollout};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::set_template_defaults;
use super::workload::{
    named_template_warnings, scale_view, selector_column, template_cells, template_columns,
    validate_not_decremented, validate_replica_counts,
};
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, ScaleView, Strategy, Subresource,
};
use crate::validation::int_or_percent::{amount, validate_at_most_all, validate_int_or_percent};
use crate::validation::pod::template::validate_replicated;
use crate::validation::{equality, immutable, non_negative, shown, text};

pub(super) struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    type Object = Deployment;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Deployment>()
            .short_names(&["deploy"])
            .categories(&["all"])
            .subresources(&[Subresource::Status, Subresource::Scale])
            .generation()
    }

    fn set_defaults(&self, object: &mut Deployment) {
        let spec = &mut object.spec;
        spec.replicas.get_or_insert(1);
        set_template_defaults(&mut spec.template);
        set_rollout_defaults(spec.strategy.get_or_insert_default());
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut Deployment) {
        object.status = Some(DeploymentStatus::default());
    }

    fn validate(&self, object: &Deployment) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        let spec = &object.spec;
        non_negative(
            spec.replicas.unwrap_or(1),
            &at.child("replicas"),
            &mut errors,
        );
        validate_replicated(&spec.selector, Some(&spec.template), &at, &mut errors);
        if let Some(strategy) = &spec.strategy {
            validate_rollout(strategy, &at.child("strategy"), &mut errors);
        }
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        non_negative(min_ready, &at.child("minReadySeconds"), &mut errors);
        non_negative(
            spec.revision_history_limit.unwrap_or(0),
            &at.child("revisionHistoryLimit"),
            &mut errors,
        );
        if let Some(deadline) = spec.progress_deadline_seconds {
            let at = at.child("progressDeadlineSeconds");
            non_negative(deadline, &at, &mut errors);
            if deadline <= min_ready {
                errors.push(Error::invalid(
                    &at,
                    deadline,
                    "must be greater than minReadySeconds",
                ));
            }
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("selector");
        immutable(&new.spec.selector, &old.spec.selector, &at, &mut errors);
        errors
    }

    fn prepare_for_status_update(&self, new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["metadata", "labels"]],
            _ => &[&["status"]],
        }
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = new.status.clone().unwrap_or_default();
        let counts = [
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
            ("terminatingReplicas", status.terminating_replicas),
        ];
        let replicas = status.replicas.unwrap_or(0);
        validate_replica_counts(replicas, &counts, status.observed_generation, &mut errors);
        let at = Path::new("status");
        non_negative(
            status.unavailable_replicas.unwrap_or(0),
            &at.child("unavailableReplicas"),
            &mut errors,
        );
        let old = old.status.as_ref().and_then(|old| old.collision_count);
        validate_not_decremented(status.collision_count, old, "collisionCount", &mut errors);
        errors
    }

    /// Annotations count too: the controller copies them to the newest ReplicaSet.
    fn spec_changed(&self, new: &Deployment, old: &Deployment) -> bool {
        !equality::semantic(&new.spec, &old.spec)
            || !equality::semantic(&new.metadata.annotations, &old.metadata.annotations)
    }

    fn warnings(&self, object: &Deployment) -> Vec<String> {
        named_template_warnings(
            &object.metadata,
            Some(&object.spec.template),
            &Path::new("spec").child("template"),
        )
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::text("Ready", "Number of the pod with ready state"),
            Column::text("Up-to-date", "Number of pods of the newest template."),
            Column::text(
                "Available",
                "Number of pods that have been ready for long enough.",
            ),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter()
            .chain(template)
            .chain([selector_column()])
            .collect()
    }

    fn row(&self, object: &Deployment, now: jiff::Timestamp) -> Vec<Cell> {
        let status = object.status.clone().unwrap_or_default();
        let desired = object.spec.replicas.unwrap_or(1);
        let own = [
            printing::name(&object.metadata),
            Cell::from(format!("{}/{desired}", status.ready_replicas.unwrap_or(0))),
            Cell::from(status.updated_replicas.unwrap_or(0)),
            Cell::from(status.available_replicas.unwrap_or(0)),
            printing::age(&object.metadata, now),
        ];
        let selector = format_label_selector(Some(&object.spec.selector));
        own.into_iter()
            .chain(template_cells(Some(&object.spec.template)))
            .chain([Cell::from(selector)])
            .collect()
    }

    fn scale(&self, object: &Deployment) -> Option<ScaleView> {
        let status = object.status.as_ref();
        let current = status.and_then(|status| status.replicas).unwrap_or(0);
        scale_view(object.spec.replicas, current, &object.spec.selector)
    }

    fn set_replicas(&self, object: &mut Deployment, replicas: i32) {
        object.spec.replicas = Some(replicas);
    }
}

fn set_rollout_defaults(rollout: &mut Rollout) {
    if text(&rollout.type_).is_empty() {
        rollout.type_ = Some("RollingUpdate".to_owned());
    }
    if text(&rollout.type_) == "RollingUpdate" {
        let quarter = || IntOrString::String("25%".to_owned());
        let rolling = rollout.rolling_update.get_or_insert_default();
        rolling.max_unavailable.get_or_insert_with(quarter);
        rolling.max_surge.get_or_insert_with(quarter);
    }
}

fn validate_rollout(rollout: &Rollout, at: &Path, errors: &mut ErrorList) {
    let rolling_at = at.child("rollingUpdate");
    match (text(&rollout.type_), &rollout.rolling_update) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(Error::forbidden(&rolling_at, detail));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(Error::required(
                &rolling_at,
                "this should be defaulted and never be nil",
            ));
        }
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let unavailable_at = rolling_at.child("maxUnavailable");
            validate_int_or_percent(unavailable, &unavailable_at, errors);
            validate_int_or_percent(surge, &rolling_at.child("maxSurge"), errors);
            if amount(unavailable) == 0 && amount(surge) == 0 {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(Error::invalid(&unavailable_at, shown(unavailable), detail));
            }
            validate_at_most_all(unavailable, &unavailable_at, errors);
        }
        _ => errors.push(Error::not_supported(
            at,
            shown(rollout),
            &["Recreate", "RollingUpdate"],
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn deployment(change: Value) -> Deployment {
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}},
        });
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut deployment =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        DeploymentStrategy.set_defaults(&mut deployment);
        deployment
    }

    #[test]
    fn defaults() {
        let spec = serde_json::to_value(deployment(json!({})).spec).unwrap();
        let quarter = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": quarter})
        );
        assert_eq!(
            (
                &spec["replicas"],
                &spec["revisionHistoryLimit"],
                &spec["progressDeadlineSeconds"]
            ),
            (&json!(1), &json!(10), &json!(600))
        );
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(
            pod["enableServiceLinks"],
            Value::Null,
            "that is the Pod's own default"
        );
        let recreate = deployment(json!({"strategy": {"type": "Recreate"}}));
        assert_eq!(recreate.spec.strategy.unwrap().rolling_update, None);
    }

    #[test]
    fn validation() {
        let rolling = |value: Value| json!({"strategy": {"rollingUpdate": value}});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"replicas": -1, "revisionHistoryLimit": -1, "minReadySeconds": 700}),
                vec![
                    "spec.replicas FieldValueInvalid",
                    "spec.revisionHistoryLimit FieldValueInvalid",
                    "spec.progressDeadlineSeconds FieldValueInvalid must be greater than minReadySeconds",
                ],
            ),
            (
                json!({"strategy": {"type": "Yolo"}}),
                vec!["spec.strategy FieldValueNotSupported"],
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                vec!["spec.strategy.rollingUpdate FieldValueForbidden"],
            ),
            (
                rolling(json!({"maxSurge": 0, "maxUnavailable": "0%"})),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable FieldValueInvalid may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                rolling(json!({"maxSurge": "half", "maxUnavailable": "101%"})),
                vec![
                    "spec.strategy.rollingUpdate.maxSurge FieldValueInvalid a valid percent string",
                    "spec.strategy.rollingUpdate.maxUnavailable FieldValueInvalid must not be greater than 100%",
                ],
            ),
            (
                json!({"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 1, "containers": []}}}),
                vec![
                    "spec.template.spec.containers FieldValueRequired",
                    "spec.template.spec.restartPolicy FieldValueNotSupported supported values: \"Always\"",
                    "spec.template.spec.activeDeadlineSeconds FieldValueForbidden",
                ],
            ),
        ];
        for (change, want) in table {
            assert_causes(&DeploymentStrategy.validate(&deployment(change)), &want);
        }
        let new = deployment(
            json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}),
        );
        assert_causes(
            &DeploymentStrategy.validate_update(&new, &deployment(json!({}))),
            &["spec.selector FieldValueInvalid field is immutable"],
        );
    }

    #[test]
    fn generations() {
        let old = deployment(json!({}));
        let mut annotated = old.clone();
        annotated.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(DeploymentStrategy.spec_changed(&annotated, &old));
        assert!(DeploymentStrategy.spec_changed(&deployment(json!({"paused": true})), &old));
        assert!(!DeploymentStrategy.spec_changed(&old, &old));
    }

    #[test]
    fn rows_and_status() {
        let mut object = deployment(json!({"replicas": 3}));
        object.status = serde_json::from_value(json!({
            "replicas": 4, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2, "collisionCount": 1,
        }))
        .unwrap();
        let row = DeploymentStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
        let want = vec![
            "web".into(),
            "2/3".into(),
            3.into(),
            2.into(),
            "<unknown>".into(),
            "c".into(),
            "app:v1".into(),
            "app=web".into(),
        ];
        assert_eq!(row, want);
        assert!(
            DeploymentStrategy
                .validate_status_update(&object, &object)
                .is_empty()
        );
        let mut less = object.clone();
        less.status.as_mut().unwrap().collision_count = None;
        assert_causes(
            &DeploymentStrategy.validate_status_update(&less, &object),
            &["status.collisionCount FieldValueInvalid cannot be decremented"],
        );
    }
}
