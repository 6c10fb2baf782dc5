//! StatefulSet: Pods with names and storage that stay.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::selector::Selector;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::persistent_volume_claim::set_claim_defaults;
use super::pod::set_template_defaults;
use super::workload::{
    scale_view, spec_and_status, template_cells, template_columns, template_warnings,
    validate_not_decremented,
};
use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, NameRule, ScaleView, Strategy, Subresource,
};
use crate::validation::claim::validate_claim_spec;
use crate::validation::int_or_percent::{amount, validate_at_most_all, validate_int_or_percent};
use crate::validation::labels::{self, validate_label_selector};
use crate::validation::pod::template::{is_missing, validate_template};
use crate::validation::pod::warnings::claim_warnings;
use crate::validation::{faults, immutable, items, non_negative, shown, text};

pub(super) struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    type Object = StatefulSet;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<StatefulSet>()
            .short_names(&["sts"])
            .categories(&["all"])
            .names(NameRule::DnsLabel)
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
            update.rolling_update.get_or_insert_default();
        }
        if text(&update.type_) == "RollingUpdate"
            && let Some(rolling) = &mut update.rolling_update
        {
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
        let (mut errors, at) = (ErrorList::default(), Path::new("spec"));
        validate_spec(&object.spec, &at, &mut errors);
        validate_pods(&object.spec, &at.child("template"), &mut errors);
        let claims = items(&object.spec.volume_claim_templates).iter();
        for (i, claim) in claims.enumerate() {
            let at = at.child("volumeClaimTemplates").index(i).child("spec");
            let none = PersistentVolumeClaimSpec::default();
            let spec = claim.spec.as_ref().unwrap_or(&none);
            validate_claim_spec(spec, &at, &mut errors);
        }
        let service = text(&object.spec.service_name);
        if !service.is_empty() {
            let at = at.child("serviceName");
            faults(service, names::dns_label(service), &at, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> ErrorList {
        let (mut errors, at) = (ErrorList::default(), Path::new("spec"));
        let (new, old) = (&new.spec, &old.spec);
        validate_spec(new, &at, &mut errors);
        let mut of_pods = ErrorList::default();
        validate_pods(new, &at.child("template"), &mut of_pods);
        if !of_pods.is_empty() {
            // One that has bad Pods already may still be scaled and deleted.
            let mut before = ErrorList::default();
            validate_spec(old, &at, &mut before);
            validate_pods(old, &at.child("template"), &mut before);
            if before.is_empty() {
                errors.extend(of_pods);
            }
        }
        immutable(
            &new.selector,
            &old.selector,
            &at.child("selector"),
            &mut errors,
        );
        immutable(
            &new.volume_claim_templates,
            &old.volume_claim_templates,
            &at.child("volumeClaimTemplates"),
            &mut errors,
        );
        immutable(
            &new.service_name,
            &old.service_name,
            &at.child("serviceName"),
            &mut errors,
        );
        immutable(
            &new.pod_management_policy,
            &old.pod_management_policy,
            &at.child("podManagementPolicy"),
            &mut errors,
        );
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
    if let Some(start) = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start) {
        non_negative(start, &at.child("ordinals.start"), errors);
    }
    let selector_at = at.child("selector");
    validate_label_selector(&spec.selector, &selector_at, errors);
    if is_missing(&spec.selector) {
        errors.push(Error::required(&selector_at, ""));
    } else if labels::is_empty(&spec.selector) {
        let detail = "empty selector is invalid for statefulset";
        errors.push(Error::invalid(&selector_at, shown(&spec.selector), detail));
    }
    let (template, template_at) = (&spec.template, at.child("template"));
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    match Selector::from_label_selector(&spec.selector) {
        Err(_) => errors.push(Error::invalid(&selector_at, shown(&spec.selector), "")),
        Ok(selector) => {
            let nothing = is_missing(&spec.selector);
            let everything = labels::is_empty(&spec.selector);
            if nothing || (!everything && !selector.matches_optional(labels)) {
                let at = template_at.child("metadata").child("labels");
                let detail = "`selector` does not match template `labels`";
                errors.push(Error::invalid(&at, shown(&labels), detail));
            }
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

/// The template of the Pods, with the volumes of the claims and without what each Pod gets anew.
fn validate_pods(spec: &StatefulSetSpec, at: &Path, errors: &mut ErrorList) {
    let mut template = spec.template.clone();
    let pod = template.spec.get_or_insert_default();
    (pod.hostname, pod.subdomain) = (None, None);
    let claims = items(&spec.volume_claim_templates);
    if !claims.is_empty() {
        let name = |claim: &PersistentVolumeClaim| text(&claim.metadata.name).to_owned();
        let names: BTreeSet<String> = claims.iter().map(name).collect();
        let own = pod.volumes.take().unwrap_or_default();
        let own = own.into_iter().filter(|own| !names.contains(&own.name));
        let claimed = names.iter().map(|name| Volume {
            name: name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        });
        pod.volumes = Some(claimed.chain(own).collect());
    }
    validate_template(&template, at, errors);
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
mod tests;
