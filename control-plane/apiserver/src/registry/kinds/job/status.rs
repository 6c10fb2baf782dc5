//! What the status of a Job may say. Other controllers than the cluster's may write it (KEP-4368), and
//! clients rely on its order: what has ended stays ended, and says when and how.
//!
//! Only what has changed is looked at: a status that is wrong already may be written for another
//! reason, and the Job's controller gets the time to follow a spec that was changed.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};

use crate::validation::job::{count_indexes, is_indexed, overlap};
use crate::validation::{IMMUTABLE, items, non_negative, shown, text};

const CONDITIONS_ENDED: [&str; 3] = ["Failed", "Complete", "FailureTarget"];

/// Whether a condition has this state.
fn is(conditions: &Option<Vec<JobCondition>>, kind: &str, state: &str) -> bool {
    items(conditions)
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == state)
}

/// Whether a condition holds.
pub(super) fn has(conditions: &Option<Vec<JobCondition>>, kind: &str) -> bool {
    is(conditions, kind, "True")
}

/// What a status is compared with, and where its errors go.
struct Update<'a> {
    new: &'a JobStatus,
    old: &'a JobStatus,
    spec: &'a JobSpec,
    at: Path,
    errors: &'a mut ErrorList,
}

/// Everything that is wrong with a status that replaces `old`.
pub(super) fn validate_status(
    new: &JobStatus,
    old: &JobStatus,
    spec: &JobSpec,
    errors: &mut ErrorList,
) {
    let mut update = Update {
        new,
        old,
        spec,
        at: Path::new("status"),
        errors,
    };
    update.validate_counts();
    update.validate_end();
    update.validate_indexes();
    update.validate_criteria();
    update.validate_transition();
}

impl Update<'_> {
    fn has(&self, kind: &str) -> bool {
        has(&self.new.conditions, kind)
    }

    fn had(&self, kind: &str) -> bool {
        has(&self.old.conditions, kind)
    }

    /// Whether any of these conditions holds that did not, or the reverse.
    fn turned(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.has(kind) != self.had(kind))
    }

    fn is_finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }

    fn finished_now(&self) -> bool {
        self.is_finished() != (self.had("Complete") || self.had("Failed"))
    }

    fn conditions(&mut self, detail: impl Into<String>) {
        let at = self.at.child("conditions");
        self.errors.push(Error::invalid_without_value(&at, detail));
    }

    fn validate_counts(&mut self) {
        let counts = [
            ("active", self.new.active),
            ("succeeded", self.new.succeeded),
            ("failed", self.new.failed),
            ("ready", self.new.ready),
            ("terminating", self.new.terminating),
        ];
        for (field, number) in counts {
            non_negative(number.unwrap_or(0), &self.at.child(field), self.errors);
        }
        if let Some(pods) = &self.new.uncounted_terminated_pods {
            let at = self.at.child("uncountedTerminatedPods");
            validate_uncounted(pods, &at, self.errors);
        }
    }

    fn validate_end(&mut self) {
        let complete = self.has("Complete");
        if self.turned(&["Complete", "Failed"]) && complete && self.has("Failed") {
            self.conditions("cannot set Complete=True and Failed=true conditions");
        }
        if self.turned(&["Complete", "FailureTarget"]) && complete && self.has("FailureTarget") {
            self.conditions("cannot set Complete=True and FailureTarget=true conditions");
        }
        let (start, end) = (&self.new.start_time, &self.new.completion_time);
        let (started, ended) = (
            *start != self.old.start_time,
            *end != self.old.completion_time,
        );
        let end_at = self.at.child("completionTime");
        if self.turned(&["Complete"]) || ended {
            match end {
                Some(time) if !complete => {
                    let detail =
                        "cannot set completionTime when there is no Complete=True condition";
                    self.errors
                        .push(Error::invalid(&end_at, shown(time), detail));
                }
                None if complete => {
                    let detail = "completionTime is required for Complete jobs";
                    self.errors.push(Error::required(&end_at, detail));
                }
                _ => {}
            }
        }
        if let (Some(start), Some(end)) = (start, end)
            && (started || ended)
            && end.0 < start.0
        {
            let detail = "must be equal to or after `startTime`";
            self.errors
                .push(Error::invalid(&end_at, shown(end), detail));
        }
        let indexes_changed = self.new.failed_indexes != self.old.failed_indexes;
        if (self.turned(&["Failed"]) || indexes_changed)
            && self.has("Failed")
            && !self.has("FailureTarget")
        {
            self.conditions(
                "cannot set Failed=True condition without the FailureTarget=true condition",
            );
        }
        if self.turned(&["Complete", "SuccessCriteriaMet"])
            && complete
            && !self.has("SuccessCriteriaMet")
        {
            self.conditions(
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            );
        }
        if self.is_finished() {
            self.validate_finished(started);
        }
    }

    /// Of a Job that has ended nothing goes on.
    fn validate_finished(&mut self, started: bool) {
        let (new, old, now) = (self.new, self.old, self.finished_now());
        let number = |number: Option<i32>| number.unwrap_or(0);
        if (now || number(new.active) != number(old.active)) && number(new.active) > 0 {
            let detail = "active>0 is invalid for finished job";
            let at = self.at.child("active");
            self.errors.push(Error::invalid(&at, new.active, detail));
        }
        let nothing_to_do = self.spec.suspend == Some(true) && self.spec.completions == Some(0);
        if (now || started) && !nothing_to_do && new.start_time.is_none() {
            let detail = "startTime is required for finished job";
            let at = self.at.child("startTime");
            self.errors.push(Error::required(&at, detail));
        }
        let pods = &new.uncounted_terminated_pods;
        let uncounted = pods.as_ref().is_some_and(|pods| {
            !items(&pods.failed).is_empty() || !items(&pods.succeeded).is_empty()
        });
        if (now || *pods != old.uncounted_terminated_pods) && uncounted {
            let at = self.at.child("uncountedTerminatedPods");
            let detail = "must be empty for finished job";
            self.errors.push(Error::invalid(&at, shown(pods), detail));
        }
        if (now || new.terminating != old.terminating) && number(new.terminating) > 0 {
            let detail = "terminating>0 is invalid for finished job";
            let at = self.at.child("terminating");
            self.errors
                .push(Error::invalid(&at, new.terminating, detail));
        }
    }

    fn validate_indexes(&mut self) {
        let (new, old, spec) = (self.new, self.old, self.spec);
        let completed = text(&new.completed_indexes);
        let completed_at = self.at.child("completedIndexes");
        let failed_at = self.at.child("failedIndexes");
        let completed_changed = completed != text(&old.completed_indexes);
        let failed_changed = new.failed_indexes != old.failed_indexes;
        let failed = new.failed_indexes.as_deref();
        let lists = [
            ("completedIndexes", Some(completed), completed_changed, true),
            (
                "failedIndexes",
                failed,
                failed_changed,
                spec.backoff_limit_per_index.is_some(),
            ),
        ];
        for (field, list, changed, parsed) in lists {
            if let (Some(list), Some(completions)) = (list, spec.completions)
                && changed
                && parsed
                && let Err(fault) = count_indexes(list, completions)
            {
                let detail = format!("error parsing {field}: {fault}");
                let at = self.at.child(field);
                self.errors.push(Error::invalid(&at, list, detail));
            }
        }
        if completed_changed && !completed.is_empty() && !is_indexed(spec) {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            self.errors
                .push(Error::invalid(&completed_at, completed, detail));
        }
        let Some(failed) = failed else {
            return;
        };
        if failed_changed && spec.backoff_limit_per_index.is_none() {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            self.errors.push(Error::invalid(&failed_at, failed, detail));
        }
        if (failed_changed || completed_changed)
            && spec.completions.is_some()
            && let Some(index) = overlap(completed, failed)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            self.errors.push(Error::invalid(&failed_at, failed, detail));
        }
    }

    fn validate_criteria(&mut self) {
        let (new, old) = (self.new, self.old);
        let active = new.active.unwrap_or(0);
        let changed = new.ready != old.ready || active != old.active.unwrap_or(0);
        if let Some(ready) = new.ready.filter(|ready| changed && *ready > active) {
            let detail = "cannot set more ready pods than active";
            let at = self.at.child("ready");
            self.errors.push(Error::invalid(&at, ready, detail));
        }
        let met = self.has("SuccessCriteriaMet");
        if met && self.has("Failed") {
            self.conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions");
        }
        if met && self.has("FailureTarget") {
            self.conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        }
        if self.spec.success_policy.is_some() && !met && self.has("Complete") {
            self.conditions(
                "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
            );
        }
    }

    fn validate_transition(&mut self) {
        let (new, old, spec) = (self.new, self.old, self.spec);
        for kind in CONDITIONS_ENDED {
            if self.had(kind) && !self.has(kind) {
                self.conditions(format!("cannot disable the terminal {kind}=True condition"));
            }
        }
        // A Job whose numbers of completions and of Pods are one may be made smaller.
        let elastic = is_indexed(spec) && spec.completions == spec.parallelism;
        let counters = [
            ("failed", new.failed, old.failed, true),
            ("succeeded", new.succeeded, old.succeeded, !elastic),
        ];
        for (field, now, before, grows) in counters {
            let now = now.unwrap_or(0);
            if grows && now < before.unwrap_or(0) {
                let detail = format!("cannot decrease the {field} counter");
                self.errors
                    .push(Error::invalid(&self.at.child(field), now, detail));
            }
        }
        if let (Some(now), Some(before)) = (&new.completion_time, &old.completion_time)
            && now != before
        {
            let at = self.at.child("completionTime");
            self.errors.push(Error::invalid(&at, shown(now), IMMUTABLE));
        }
        let resumed =
            has(&old.conditions, "Suspended") && is(&new.conditions, "Suspended", "False");
        if old.start_time.is_some()
            && old.start_time != new.start_time
            && !resumed
            && spec.suspend != Some(true)
        {
            let at = self.at.child("startTime");
            let detail = "field is immutable for unsuspended job once set";
            self.errors
                .push(Error::invalid(&at, shown(&new.start_time), detail));
        }
        let (met, was_met) = (
            self.has("SuccessCriteriaMet"),
            self.had("SuccessCriteriaMet"),
        );
        if was_met && !met {
            self.conditions("cannot disable the SuccessCriteriaMet=True condition");
        }
        if self.had("Complete") && !was_met && met {
            self.conditions(
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
            );
        }
    }
}

/// Pods that have ended and are not counted yet: each is named once.
fn validate_uncounted(pods: &UncountedTerminatedPods, at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (field, uids) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in items(uids).iter().enumerate() {
            let at = at.child(field).index(i);
            if uid.is_empty() {
                errors.push(Error::invalid(&at, "", "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(Error::duplicate(&at, uid.as_str()));
            }
        }
    }
}
