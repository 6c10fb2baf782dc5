//! CronJob: a Job at certain times.

use coracle_apimachinery::cron::Schedule;
use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::selector::format_label_selector;
use coracle_apimachinery::table;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};

use super::job::{job_warnings, set_policy_defaults};
use super::pod::set_template_defaults;
use super::workload::{selector_column, spec_and_status, template_cells, template_columns};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::job::validate_job_spec;
use crate::validation::{items, non_negative, one_of, shown, text};

/// Longest name: Jobs are named after it, with eleven characters more.
const MAX_NAME: usize = 52;

pub(super) struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    type Object = CronJob;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<CronJob>()
            .short_names(&["cj"])
            .categories(&["all"])
            .subresources(&[Subresource::Status])
            .generation()
    }

    fn set_defaults(&self, object: &mut CronJob) {
        let spec = &mut object.spec;
        if text(&spec.concurrency_policy).is_empty() {
            spec.concurrency_policy = Some("Allow".to_owned());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let job = spec.job_template.spec.get_or_insert_default();
        set_template_defaults(&mut job.template);
        set_policy_defaults(job);
        // WorkloadWithJob is in alpha.
        job.scheduling = None;
        object.status.get_or_insert_default();
    }

    spec_and_status!(CronJob);

    fn validate(&self, object: &CronJob) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_spec(&object.spec, &Path::new("spec"), &mut errors);
        let name = text(&object.metadata.name);
        if name.len() > MAX_NAME {
            let detail = format!("must be no more than {MAX_NAME} characters");
            let at = Path::new("metadata").child("name");
            errors.push(Error::invalid(&at, name, detail));
        }
        errors
    }

    fn validate_update(&self, new: &CronJob, _old: &CronJob) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_spec(&new.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn warnings(&self, object: &CronJob) -> Vec<String> {
        let job = object.spec.job_template.spec.as_ref();
        let at = Path::new("spec").child("jobTemplate").child("spec");
        job_warnings(&object.metadata, job, &at)
    }

    fn columns(&self) -> Vec<Column> {
        let own = [
            Column::name(),
            Column::text("Schedule", "When it runs, in the format of cron."),
            Column::text("Timezone", "The time zone of the schedule."),
            Column {
                kind: "boolean".into(),
                ..Column::text("Suspend", "Whether no more jobs are started.")
            },
            Column::integer("Active", "How many jobs run."),
            Column::text("Last Schedule", "When a job was started last."),
            Column::age(),
        ];
        let template = template_columns().map(Column::wide);
        own.into_iter()
            .chain(template)
            .chain([selector_column()])
            .collect()
    }

    fn row(&self, object: &CronJob, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone();
        let status = object.status.clone().unwrap_or_default();
        let last = status.last_schedule_time.as_ref();
        let last = last.map_or_else(|| "<none>".to_owned(), |time| table::age(Some(time), now));
        let job = spec.job_template.spec.unwrap_or_default();
        let zone = spec.time_zone.unwrap_or_else(|| "<none>".to_owned());
        let suspended = if spec.suspend == Some(true) {
            "True"
        } else {
            "False"
        };
        let own = [
            printing::name(&object.metadata),
            Cell::from(spec.schedule),
            Cell::from(zone),
            Cell::from(suspended),
            Cell::from(items(&status.active).len()),
            Cell::from(last),
            printing::age(&object.metadata, now),
        ];
        own.into_iter()
            .chain(template_cells(Some(&job.template)))
            .chain([Cell::from(format_label_selector(job.selector.as_ref()))])
            .collect()
    }
}

fn validate_spec(spec: &CronJobSpec, at: &Path, errors: &mut ErrorList) {
    let schedule_at = at.child("schedule");
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        errors.push(Error::required(&schedule_at, ""));
    } else {
        if let Err(fault) = Schedule::parse(schedule) {
            errors.push(Error::invalid(&schedule_at, schedule, fault));
        }
        if schedule.contains("TZ") {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(Error::invalid(&schedule_at, schedule, detail));
        }
    }
    let deadline = spec.starting_deadline_seconds.unwrap_or(0);
    non_negative(deadline, &at.child("startingDeadlineSeconds"), errors);
    if let Some(zone) = &spec.time_zone {
        validate_time_zone(zone, &at.child("timeZone"), errors);
    }
    one_of(
        text(&spec.concurrency_policy),
        &["Allow", "Forbid", "Replace"],
        &at.child("concurrencyPolicy"),
        errors,
    );
    let limits = [
        (
            "successfulJobsHistoryLimit",
            spec.successful_jobs_history_limit,
        ),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (field, limit) in limits {
        non_negative(limit.unwrap_or(0), &at.child(field), errors);
    }
    let Some(job) = &spec.job_template.spec else {
        return;
    };
    let at = at.child("jobTemplate").child("spec");
    validate_job_spec(job, &at, errors);
    if let Some(selector) = &job.selector {
        let detail = "`selector` will be auto-generated";
        errors.push(Error::invalid(
            &at.child("selector"),
            shown(selector),
            detail,
        ));
    }
    if job.manual_selector == Some(true) {
        let at = at.child("manualSelector");
        errors.push(Error::not_supported(&at, true, &["nil", "false"]));
    }
}

/// A zone of the time zone database of the machine.
fn validate_time_zone(zone: &str, at: &Path, errors: &mut ErrorList) {
    if zone.is_empty() {
        let detail = "timeZone must be nil or non-empty string";
        errors.push(Error::invalid(at, zone, detail));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(Error::invalid(at, zone, detail));
    }
    // Kubernetes finds zones by their names as they are written, and knows the machine's own.
    let known = jiff::tz::TimeZone::get(zone);
    if zone != "Local" && !known.is_ok_and(|known| known.iana_name() == Some(zone)) {
        errors.push(Error::invalid(
            at,
            zone,
            format!("unknown time zone {zone}"),
        ));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn cron_job(change: Value) -> CronJob {
        let mut spec = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "app:v1"}]}}}}});
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut object =
            serde_json::from_value(json!({"metadata": {"name": "tick"}, "spec": spec})).unwrap();
        CronJobStrategy.set_defaults(&mut object);
        object
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"timeZone": "UTC"}), vec![]),
            (
                json!({"schedule": "", "concurrencyPolicy": "Maybe", "failedJobsHistoryLimit": -1}),
                vec![
                    "spec.schedule FieldValueRequired",
                    "spec.concurrencyPolicy FieldValueNotSupported",
                    "spec.failedJobsHistoryLimit FieldValueInvalid",
                ],
            ),
            (
                json!({"schedule": "* * * *", "timeZone": "Local"}),
                vec![
                    "spec.schedule FieldValueInvalid expected exactly 5 fields, found 4: [* * * *]",
                    "spec.timeZone FieldValueInvalid timeZone must be an explicit time zone",
                ],
            ),
            (
                json!({"timeZone": "europe/berlin"}),
                vec!["spec.timeZone FieldValueInvalid unknown time zone europe/berlin"],
            ),
            (
                json!({"schedule": "TZ=UTC 0 * * * *", "timeZone": "Middle/Earth"}),
                vec![
                    "spec.schedule FieldValueInvalid cannot use TZ or CRON_TZ in schedule",
                    "spec.timeZone FieldValueInvalid unknown time zone Middle/Earth",
                ],
            ),
            (
                json!({"jobTemplate": {"spec": {"manualSelector": true, "selector": {}, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a:1"}]}}}}}),
                vec![
                    "spec.jobTemplate.spec.selector FieldValueInvalid `selector` will be auto-generated",
                    "spec.jobTemplate.spec.manualSelector FieldValueNotSupported",
                ],
            ),
        ];
        for (change, want) in table {
            assert_causes(&CronJobStrategy.validate(&cron_job(change)), &want);
        }
        let mut long = cron_job(json!({}));
        long.metadata.name = Some("a".repeat(53));
        assert_causes(
            &CronJobStrategy.validate(&long),
            &["metadata.name FieldValueInvalid must be no more than 52 characters"],
        );
    }
}
