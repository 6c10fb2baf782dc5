//! Job: Pods that run until enough of them have succeeded.

mod status;
mod update;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::selector::{Selector, format_label_selector};
use coracle_apimachinery::table::human_duration;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::status::{has, validate_status};
use self::update::validate_spec_update;
use super::first_non_empty;
use super::pod::set_template_defaults;
use super::workload::{named_template_warnings, selector_column, template_cells, template_columns};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::job::{MANY_COMPLETIONS, MAX_OF_MANY, is_indexed, validate_job_spec};
use crate::validation::labels::validate_label_selector;
use crate::validation::{equality, shown, text};

/// Labels by which a Job finds its Pods, under the name of today and that of before.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

pub(super) struct JobStrategy;

impl Strategy for JobStrategy {
    type Object = Job;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Job>()
            .categories(&["all"])
            .subresources(&[Subresource::Status])
            .fields(&["status.successful"])
            .generation()
            .orphans()
    }

    fn set_defaults(&self, object: &mut Job) {
        let spec = object.spec.get_or_insert_default();
        set_template_defaults(&mut spec.template);
        // WorkloadWithJob is in alpha.
        spec.scheduling = None;
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        let limit = if spec.backoff_limit_per_index.is_some() {
            i32::MAX
        } else {
            6
        };
        spec.backoff_limit.get_or_insert(limit);
        spec.completion_mode
            .get_or_insert_with(|| "NonIndexed".to_owned());
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let replacement = if spec.pod_failure_policy.is_some() {
            "Failed"
        } else {
            "TerminatingOrFailed"
        };
        spec.pod_replacement_policy
            .get_or_insert_with(|| replacement.to_owned());
        set_policy_defaults(spec);
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut Job) {
        object.status = Some(JobStatus::default());
        generate_selector(object);
        default_labels(object);
    }

    fn validate(&self, object: &Job) -> ErrorList {
        let mut errors = ErrorList::default();
        let Some(spec) = &object.spec else {
            return errors;
        };
        validate_generated_selector(object, spec, &mut errors);
        validate_whole_spec(spec, &mut errors);
        if is_indexed(spec) && spec.completions.unwrap_or(0) > 0 {
            let name = text(&object.metadata.name);
            let last = format!("{name}-{}", spec.completions.unwrap_or(0) - 1);
            if !names::dns_label(&last).is_empty() {
                let detail = format!("will not able to create pod with invalid DNS label: {last}");
                let at = Path::new("metadata").child("name");
                errors.push(Error::invalid(&at, name, detail));
            }
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut Job, old: &Job) {
        new.status.clone_from(&old.status);
        default_labels(new);
    }

    fn validate_update(&self, new: &Job, old: &Job) -> ErrorList {
        let mut errors = ErrorList::default();
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            validate_whole_spec(spec, &mut errors);
            let idle = old.status.as_ref().is_none_or(|status| {
                let waits = status.start_time.is_none() || has(&status.conditions, "Suspended");
                waits && status.active.unwrap_or(0) == 0
            });
            let movable = was.suspend == Some(true) && idle;
            validate_spec_update(spec, was, movable, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(&self, new: &mut Job, old: &Job) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Job, old: &Job) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(status) = &new.status {
            let (no_status, no_spec) = (JobStatus::default(), JobSpec::default());
            let old = old.status.as_ref().unwrap_or(&no_status);
            let spec = new.spec.as_ref().unwrap_or(&no_spec);
            validate_status(status, old, spec, &mut errors);
        }
        errors
    }

    fn spec_changed(&self, new: &Job, old: &Job) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn warnings(&self, object: &Job) -> Vec<String> {
        job_warnings(&object.metadata, object.spec.as_ref(), &Path::new("spec"))
    }

    fn selectable_fields(&self, object: &Job) -> Vec<(&'static str, String)> {
        let succeeded = object.status.as_ref().and_then(|status| status.succeeded);
        vec![("status.successful", succeeded.unwrap_or(0).to_string())]
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::text("Status", "Whether it has succeeded or failed."),
            Column::text("Completions", "How many pods have succeeded, of how many."),
            Column::text("Duration", "Time that it runs, or took to complete."),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter()
            .chain(template)
            .chain([selector_column()])
            .collect()
    }

    fn row(&self, object: &Job, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let duration = status.start_time.as_ref().map(|start| {
            let end = status.completion_time.as_ref().map_or(now, |end| end.0);
            human_duration(end.duration_since(start.0))
        });
        let own = [
            printing::name(&object.metadata),
            Cell::from(state(object, &status)),
            Cell::from(completions(&spec, &status)),
            Cell::from(duration.unwrap_or_default()),
            printing::age(&object.metadata, now),
        ];
        own.into_iter()
            .chain(template_cells(Some(&spec.template)))
            .chain([Cell::from(format_label_selector(spec.selector.as_ref()))])
            .collect()
    }
}

/// Warnings about what is named `meta` and makes Pods of a Job's spec, which is at `at`.
pub(super) fn job_warnings(meta: &ObjectMeta, spec: Option<&JobSpec>, at: &Path) -> Vec<String> {
    let template = spec.map(|spec| &spec.template);
    let mut warnings = named_template_warnings(meta, template, &at.child("template"));
    let too_many = |spec: &&JobSpec| {
        is_indexed(spec)
            && spec.completions.is_some_and(|n| n > MANY_COMPLETIONS)
            && spec.parallelism.is_some_and(|n| n > MAX_OF_MANY)
    };
    if spec.filter(too_many).is_some() {
        warnings.push(format!(
            "{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    warnings
}

pub(super) fn set_policy_defaults(spec: &mut JobSpec) {
    let rules = spec
        .pod_failure_policy
        .iter_mut()
        .flat_map(|policy| &mut policy.rules);
    for pattern in rules
        .filter_map(|rule| rule.on_pod_conditions.as_mut())
        .flatten()
    {
        if text(&pattern.status).is_empty() {
            pattern.status = Some("True".to_owned());
        }
    }
}

/// Makes the selector, of the Job's uid, unless the client makes it itself.
fn generate_selector(object: &mut Job) {
    let Some(spec) = &mut object.spec else {
        return;
    };
    if spec.manual_selector == Some(true) {
        return;
    }
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let meta = spec.template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            // A wrong one that is given is told of by validation.
            labels
                .entry(key.to_owned())
                .or_insert_with(|| value.clone());
        }
    }
    let selector = spec.selector.get_or_insert_default();
    let wanted = selector.match_labels.get_or_insert_default();
    wanted
        .entry(UID_LABELS[0].to_owned())
        .or_insert_with(|| uid.clone());
}

/// A Job without labels has those of its Pods, with those that its selector was made of.
fn default_labels(object: &mut Job) {
    let spec = object.spec.as_ref();
    let meta = spec.and_then(|spec| spec.template.metadata.as_ref());
    let labels = meta.and_then(|meta| meta.labels.as_ref());
    first_non_empty(&mut object.metadata.labels, labels);
}

fn validate_generated_selector(object: &Job, spec: &JobSpec, errors: &mut ErrorList) {
    let Some(selector) = &spec.selector else {
        return;
    };
    if spec.manual_selector == Some(true) {
        return;
    }
    let uid = text(&object.metadata.uid);
    if uid.is_empty() {
        let at = Path::new("metadata").child("uid");
        errors.push(Error::required(&at, ""));
    }
    let name = text(&object.metadata.name);
    let template = spec.template.metadata.clone().unwrap_or_default();
    let labels = template.labels.unwrap_or_default();
    let at = Path::new("spec").child("template").child("metadata");
    let at = at.child("labels");
    let mut expected = std::collections::BTreeMap::new();
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            let at = at.key(key);
            match labels.get(key) {
                None => errors.push(Error::required(&at, format!("must be '{value}'"))),
                Some(given) if given != value => {
                    let detail = format!("must be '{value}'");
                    errors.push(Error::invalid(&at, shown(&labels), detail));
                }
                Some(_) => {}
            }
            expected.insert(key.to_owned(), value.to_owned());
        }
    }
    if Selector::from_label_selector(selector).is_ok_and(|parsed| !parsed.matches(&expected)) {
        let at = Path::new("spec").child("selector");
        let detail = "`selector` not auto-generated";
        errors.push(Error::invalid(&at, shown(selector), detail));
    }
}

/// The spec with its selector.
fn validate_whole_spec(spec: &JobSpec, errors: &mut ErrorList) {
    let at = Path::new("spec");
    validate_job_spec(spec, &at, errors);
    let selector_at = at.child("selector");
    match &spec.selector {
        None => errors.push(Error::required(&selector_at, "")),
        Some(selector) => validate_label_selector(selector, &selector_at, errors),
    }
    let meta = spec.template.metadata.clone().unwrap_or_default();
    // No selector selects nothing.
    let selector = spec.selector.as_ref().map(Selector::from_label_selector);
    let selects = match selector {
        None => false,
        Some(Ok(parsed)) => parsed.matches_optional(meta.labels.as_ref()),
        Some(Err(_)) => true,
    };
    if !selects {
        let at = at.child("template").child("metadata").child("labels");
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&at, shown(&meta.labels), detail));
    }
}

/// `1/3`; where the number of completions is left open, what there is of them.
fn completions(spec: &JobSpec, status: &JobStatus) -> String {
    let succeeded = status.succeeded.unwrap_or(0);
    match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn state(object: &Job, status: &JobStatus) -> &'static str {
    let has = |kind: &str| has(&status.conditions, kind);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if object.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

#[cfg(test)]
mod tests;
