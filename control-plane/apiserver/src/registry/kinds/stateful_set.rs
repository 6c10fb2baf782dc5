//! StatefulSet: Pods with names and storage that stay.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::selector::Selector;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::persistent_volume_claim::set_claim_defaults;
use super::pod::set_template_defaults;
use super::workload::{
    scale_view, spec_and_status, template_cells, template_columns, template_warnings,
    validate_not_decremented,
};
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, ScaleView, Strategy, Subresource,
};
use crate::validation::int_or_percent::{amount, validate_at_most_all, validate_int_or_percent};
use crate::validation::labels::{self, validate_label_selector};
use crate::validation::pod::template::validate_template_meta;
use crate::validation::pod::warnings::claim_warnings;
use crate::validation::{equality, faults, items, non_negative, shown, text};

pub(super) struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    type Object = StatefulSet;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<StatefulSet>()
            .short_names(&["sts"])
            .categories(&["all"])
            .subresources(&[Subresource::Status, Subresource::Scale])
            .generation()
    }

    fn set_defaults(&self, object: &mut StatefulSet) {
        let spec = &mut object.spec;
        set_template_defaults(&mut spec.template);
        spec.pod_management_policy
            .get_or_insert_with(|| "OrderedReady".to_owned());
        let update = spec.update_strategy.get_or_insert_default();
        if text(&update.type_).is_empty() {
            update.type_ = Some("RollingUpdate".to_owned());
        }
        if text(&update.type_) == "RollingUpdate" {
            let rolling = update.rolling_update.get_or_insert_default();
            rolling.partition.get_or_insert(0);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        }
        let retention = spec
            .persistent_volume_claim_retention_policy
            .get_or_insert_default();
        for policy in [&mut retention.when_deleted, &mut retention.when_scaled] {
            if text(policy).is_empty() {
                *policy = Some("Retain".to_owned());
            }
        }
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        let claims = spec.volume_claim_templates.iter_mut().flatten();
        claims.for_each(set_claim_defaults);
        object.status.get_or_insert_default();
    }

    spec_and_status!(StatefulSet);

    fn validate(&self, object: &StatefulSet) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_spec(&object.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> ErrorList {
        let mut errors = self.validate(new);
        let (new, old) = (&new.spec, &old.spec);
        let same = StatefulSetSpec {
            replicas: old.replicas,
            ordinals: old.ordinals.clone(),
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old
                .persistent_volume_claim_retention_policy
                .clone(),
            min_ready_seconds: old.min_ready_seconds,
            ..new.clone()
        };
        if !equality::semantic(&same, old) {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(Error::forbidden(&Path::new("spec"), detail));
        }
        errors
    }

    fn validate_status_update(&self, new: &StatefulSet, old: &StatefulSet) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = new.status.clone().unwrap_or_default();
        let at = Path::new("status");
        let all = status.replicas;
        non_negative(all, &at.child("replicas"), &mut errors);
        let counts = [
            ("readyReplicas", status.ready_replicas),
            ("currentReplicas", status.current_replicas),
            ("updatedReplicas", status.updated_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        for (field, number) in counts {
            let (number, at) = (number.unwrap_or(0), at.child(field));
            non_negative(number, &at, &mut errors);
            if number > all {
                let detail = "cannot be greater than status.replicas";
                errors.push(Error::invalid(&at, number, detail));
            }
        }
        let (available, ready) = (status.available_replicas, status.ready_replicas);
        if available.unwrap_or(0) > ready.unwrap_or(0) {
            let detail = "cannot be greater than status.readyReplicas";
            let at = at.child("availableReplicas");
            errors.push(Error::invalid(&at, available, detail));
        }
        let observed = status.observed_generation.unwrap_or(0);
        non_negative(observed, &at.child("observedGeneration"), &mut errors);
        let old = old.status.as_ref().and_then(|old| old.collision_count);
        validate_not_decremented(status.collision_count, old, "collisionCount", &mut errors);
        errors
    }

    fn warnings(&self, object: &StatefulSet) -> Vec<String> {
        let mut warnings = template_warnings(
            Some(&object.spec.template),
            &Path::new("spec").child("template"),
        );
        let claims = items(&object.spec.volume_claim_templates).iter();
        for (i, claim) in claims.enumerate() {
            let at = Path::new("spec").child("volumeClaimTemplates").index(i);
            if let Some(spec) = &claim.spec {
                claim_warnings(spec, &at.child("spec"), &mut warnings);
            }
        }
        if object
            .spec
            .revision_history_limit
            .is_some_and(|limit| limit < 0)
        {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::text("Ready", "Number of the pod with ready state"),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter().chain(template).collect()
    }

    fn row(&self, object: &StatefulSet, now: jiff::Timestamp) -> Vec<Cell> {
        let desired = object.spec.replicas.unwrap_or(1);
        let status = object.status.as_ref();
        let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
        let own = [
            printing::name(&object.metadata),
            Cell::from(format!("{ready}/{desired}")),
            printing::age(&object.metadata, now),
        ];
        own.into_iter()
            .chain(template_cells(Some(&object.spec.template)))
            .collect()
    }

    fn scale(&self, object: &StatefulSet) -> Option<ScaleView> {
        let current = object.status.as_ref().map_or(0, |status| status.replicas);
        scale_view(object.spec.replicas, current, &object.spec.selector)
    }

    fn set_replicas(&self, object: &mut StatefulSet, replicas: i32) {
        object.spec.replicas = Some(replicas);
    }
}

fn validate_spec(spec: &StatefulSetSpec, at: &Path, errors: &mut ErrorList) {
    let policy = text(&spec.pod_management_policy);
    if !matches!(policy, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.push(Error::invalid(
            &at.child("podManagementPolicy"),
            policy,
            detail,
        ));
    }
    if let Some(update) = &spec.update_strategy {
        validate_update_strategy(update, &at.child("updateStrategy"), errors);
    }
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let at = at.child("persistentVolumeClaimRetentionPolicy");
        let policies = [
            ("whenDeleted", &retention.when_deleted),
            ("whenScaled", &retention.when_scaled),
        ];
        for (field, policy) in policies {
            let policy = text(policy);
            if !matches!(policy, "Retain" | "Delete") {
                let supported = &["Retain", "Delete"];
                errors.push(Error::not_supported(&at.child(field), policy, supported));
            }
        }
    }
    non_negative(spec.replicas.unwrap_or(1), &at.child("replicas"), errors);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    non_negative(min_ready, &at.child("minReadySeconds"), errors);
    let history = spec.revision_history_limit.unwrap_or(0);
    non_negative(history, &at.child("revisionHistoryLimit"), errors);
    if let Some(start) = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start) {
        non_negative(start, &at.child("ordinals.start"), errors);
    }
    let service = text(&spec.service_name);
    if !service.is_empty() {
        let at = at.child("serviceName");
        faults(service, names::dns_subdomain(service), &at, errors);
    }
    let selector_at = at.child("selector");
    validate_label_selector(&spec.selector, &selector_at, errors);
    if labels::is_empty(&spec.selector) {
        let detail = "empty selector is invalid for statefulset";
        errors.push(Error::invalid(&selector_at, shown(&spec.selector), detail));
    }
    let (template, template_at) = (&spec.template, at.child("template"));
    let meta = template.metadata.clone().unwrap_or_default();
    match Selector::from_label_selector(&spec.selector) {
        Err(_) => errors.push(Error::invalid(&selector_at, shown(&spec.selector), "")),
        Ok(selector) => {
            if !selector.matches_optional(meta.labels.as_ref()) {
                let at = template_at.child("metadata").child("labels");
                let detail = "`selector` does not match template `labels`";
                errors.push(Error::invalid(&at, shown(&meta.labels), detail));
            }
            // The rest of the template is looked at when a Pod is made of it: its volumes are
            // whole only together with those of the claims.
            validate_template_meta(template, &template_at, errors);
        }
    }
    let pod = template.spec.clone().unwrap_or_default();
    let spec_at = template_at.child("spec");
    let restart = text(&pod.restart_policy);
    if restart != "Always" {
        let at = spec_at.child("restartPolicy");
        errors.push(Error::not_supported(&at, restart, &["Always"]));
    }
    if pod.active_deadline_seconds.is_some() {
        let at = spec_at.child("activeDeadlineSeconds");
        let detail = "activeDeadlineSeconds in StatefulSet is not Supported";
        errors.push(Error::forbidden(&at, detail));
    }
}

fn validate_update_strategy(update: &StatefulSetUpdateStrategy, at: &Path, errors: &mut ErrorList) {
    let rolling_at = at.child("rollingUpdate");
    match (text(&update.type_), &update.rolling_update) {
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(Error::invalid(&rolling_at, shown(rolling), detail));
        }
        ("RollingUpdate", Some(rolling)) => {
            let partition = rolling.partition.unwrap_or(0);
            non_negative(partition, &rolling_at.child("partition"), errors);
            if let Some(most) = &rolling.max_unavailable {
                let at = rolling_at.child("maxUnavailable");
                validate_int_or_percent(most, &at, errors);
                if amount(most) == 0 {
                    errors.push(Error::invalid(&at, shown(most), "cannot be 0"));
                }
                validate_at_most_all(most, &at, errors);
            }
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(Error::invalid(at, shown(update), detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn set(change: Value) -> StatefulSet {
        let mut spec = json!({
            "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}},
        });
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut set =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        StatefulSetStrategy.set_defaults(&mut set);
        set
    }

    #[test]
    fn defaults() {
        let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        let spec = serde_json::to_value(set(json!({"volumeClaimTemplates": claims})).spec).unwrap();
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(spec["revisionHistoryLimit"], 10);
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
        assert_eq!(claim["status"]["phase"], "Pending");
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"podManagementPolicy": "Random", "replicas": -1, "ordinals": {"start": -1}}),
                vec![
                    "spec.podManagementPolicy FieldValueInvalid must be 'OrderedReady' or 'Parallel'",
                    "spec.replicas FieldValueInvalid",
                    "spec.ordinals.start FieldValueInvalid",
                ],
            ),
            (
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {}}, "selector": {}}),
                vec![
                    "spec.updateStrategy.rollingUpdate FieldValueInvalid only allowed for updateStrategy 'RollingUpdate'",
                    "spec.selector FieldValueInvalid empty selector is invalid for statefulset",
                ],
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "0%", "partition": -1}}, "selector": {"matchLabels": {"app": "x"}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.partition FieldValueInvalid",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable FieldValueInvalid cannot be 0",
                    "spec.template.metadata.labels FieldValueInvalid `selector` does not match",
                ],
            ),
        ];
        for (change, want) in table {
            assert_causes(&StatefulSetStrategy.validate(&set(change)), &want);
        }
        let errors = |change| StatefulSetStrategy.validate_update(&set(change), &set(json!({})));
        assert_causes(
            &errors(json!({"replicas": 3, "minReadySeconds": 2, "revisionHistoryLimit": 1})),
            &[],
        );
        assert_causes(
            &errors(json!({"serviceName": "other"})),
            &["spec FieldValueForbidden updates to statefulset spec for fields other than"],
        );
    }
}
