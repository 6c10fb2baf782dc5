//! Templates of Pods, as ReplicaSets and Deployments have them.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::selector::Selector;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{validate_pod_annotations, validate_same_profiles, validate_spec};
use crate::validation::labels::{
    self, validate_annotations, validate_label_selector, validate_labels,
};
use crate::validation::{items, shown, text};

/// A template: its labels and annotations, and its spec.
pub(crate) fn validate_template(template: &PodTemplateSpec, at: &Path, errors: &mut ErrorList) {
    validate_template_meta(template, at, errors);
    let no_spec = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&no_spec);
    validate_spec(spec, None, &at.child("spec"), errors);
    if let Some(meta) = &template.metadata {
        validate_same_profiles(meta, spec, &at.child("spec"), errors);
    }
    if !items(&spec.ephemeral_containers).is_empty() {
        let at = at.child("spec").child("ephemeralContainers");
        errors.push(Error::forbidden(
            &at,
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// The labels and annotations of a template.
pub(crate) fn validate_template_meta(
    template: &PodTemplateSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (no_meta, no_spec) = (ObjectMeta::default(), PodSpec::default());
    let meta = template.metadata.as_ref().unwrap_or(&no_meta);
    let spec = template.spec.as_ref().unwrap_or(&no_spec);
    validate_labels(meta.labels.as_ref(), &at.child("labels"), errors);
    let annotations_at = at.child("annotations");
    validate_annotations(meta.annotations.as_ref(), &annotations_at, errors);
    validate_pod_annotations(meta.annotations.as_ref(), spec, &annotations_at, errors);
}

/// The template of Pods that are kept running, and the selector that finds them. `at` is that
/// of the spec that has both.
pub(crate) fn validate_replicated(
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let selector_at = at.child("selector");
    let (missing, empty) = (is_missing(selector), labels::is_empty(selector));
    validate_label_selector(selector, &selector_at, errors);
    if missing {
        errors.push(Error::required(&selector_at, ""));
    } else if empty {
        let detail = "empty selector is invalid for deployment";
        errors.push(Error::invalid(&selector_at, shown(selector), detail));
    }
    let template_at = at.child("template");
    let Some(template) = template else {
        errors.push(Error::required(&template_at, ""));
        return;
    };
    let Ok(parsed) = Selector::from_label_selector(selector) else {
        let detail = "invalid label selector";
        errors.push(Error::invalid(&selector_at, shown(selector), detail));
        return;
    };
    let labels = template
        .metadata
        .as_ref()
        .and_then(|meta| meta.labels.as_ref());
    // Nothing matches a selector that is left out, everything an empty one.
    if missing || (!empty && !parsed.matches_optional(labels)) {
        let at = template_at.child("metadata").child("labels");
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&at, shown(&labels), detail));
    }
    validate_template(template, &template_at, errors);
    validate_kept_running(template, "ReplicaSet", &template_at, errors);
}

/// Whether a selector was left out, as opposed to one that selects everything. The type does not
/// tell them apart; clients that mean the latter write its lists.
pub(crate) fn is_missing(selector: &LabelSelector) -> bool {
    selector.match_labels.is_none() && selector.match_expressions.is_none()
}

/// Pods that a controller of this kind keeps running are always started again.
pub(crate) fn validate_kept_running(
    template: &PodTemplateSpec,
    kind: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    let at = at.child("spec");
    let spec = template.spec.as_ref();
    let restart = spec.map_or("", |spec| text(&spec.restart_policy));
    if restart != "Always" {
        let at = at.child("restartPolicy");
        errors.push(Error::not_supported(&at, restart, &["Always"]));
    }
    if spec.is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Error::forbidden(&at.child("activeDeadlineSeconds"), detail));
    }
}
