//! Tables for Jobs.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::validation::testing::assert_causes;

fn job(change: Value) -> Job {
    let mut spec = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:v1"}]}}});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let mut job =
        serde_json::from_value(json!({"metadata": {"name": "sum", "uid": "u-1"}, "spec": spec}))
            .unwrap();
    JobStrategy.set_defaults(&mut job);
    JobStrategy.prepare_for_create(&mut job);
    job
}

#[test]
fn defaults_and_the_generated_selector() {
    let object = serde_json::to_value(job(json!({}))).unwrap();
    let spec = &object["spec"];
    assert_eq!(
        (
            &spec["completions"],
            &spec["parallelism"],
            &spec["backoffLimit"]
        ),
        (&json!(1), &json!(1), &json!(6))
    );
    assert_eq!(spec["completionMode"], "NonIndexed");
    assert_eq!(spec["podReplacementPolicy"], "TerminatingOrFailed");
    assert_eq!(
        spec["selector"]["matchLabels"],
        json!({"batch.kubernetes.io/controller-uid": "u-1"})
    );
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(labels["job-name"], "sum");
    assert_eq!(labels["controller-uid"], "u-1");
    assert_eq!(&object["metadata"]["labels"], labels);
    let open = job(json!({"parallelism": 3})).spec.unwrap();
    assert_eq!(open.completions, None);
    let indexed = job(json!({"backoffLimitPerIndex": 1})).spec.unwrap();
    assert_eq!(indexed.backoff_limit, Some(i32::MAX));
}

#[test]
fn validation() {
    let rules = |rules: Value| json!({"podFailurePolicy": {"rules": rules}});
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"parallelism": -1, "template": {"spec": {"containers": [{"name": "c", "image": "a:1"}]}}}),
            vec![
                "spec.parallelism FieldValueInvalid must be greater than or equal to 0",
                "spec.template.spec.restartPolicy FieldValueRequired valid values: \"OnFailure\", \"Never\"",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "completions": null, "parallelism": 100_001}),
            vec![
                "spec.parallelism FieldValueInvalid must be less than or equal to 100000 when completion mode is Indexed",
                "spec.completions FieldValueRequired when completion mode is Indexed",
            ],
        ),
        (
            json!({"backoffLimitPerIndex": 1, "managedBy": "me"}),
            vec![
                "spec.managedBy FieldValueInvalid must be a domain-prefixed path (such as \"acme.io/foo\")",
                "spec.backoffLimitPerIndex FieldValueInvalid requires indexed completion mode",
            ],
        ),
        (
            rules(json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}])),
            vec![],
        ),
        (
            rules(json!([
                {"action": "FailIndex"},
                {"action": "", "onExitCodes": {"operator": "In", "values": [3, 0, 3], "containerName": "x"}},
            ])),
            vec![
                "spec.podFailurePolicy.rules[0].action FieldValueInvalid requires the backoffLimitPerIndex to be set",
                "spec.podFailurePolicy.rules[0] FieldValueInvalid specifying one of OnExitCodes and OnPodConditions is required",
                "spec.podFailurePolicy.rules[1].action FieldValueRequired valid values:",
                "spec.podFailurePolicy.rules[1].onExitCodes.containerName FieldValueInvalid must be one of",
                "spec.podFailurePolicy.rules[1].onExitCodes.values[1] FieldValueInvalid must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[1].onExitCodes.values[2] FieldValueDuplicate",
                "spec.podFailurePolicy.rules[1].onExitCodes.values FieldValueInvalid must be ordered",
            ],
        ),
        (
            json!({"successPolicy": {"rules": [{"succeededCount": 1}]}}),
            vec!["spec.successPolicy FieldValueInvalid requires indexed completion mode"],
        ),
        (
            json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{}, {"succeededIndexes": "0-1", "succeededCount": 3}]}}),
            vec![
                "spec.successPolicy.rules[0] FieldValueRequired at least one of succeededCount",
                "spec.successPolicy.rules[1].succeededCount FieldValueInvalid must be less than or equal to 2",
            ],
        ),
        (
            json!({"manualSelector": true}),
            vec![
                "spec.selector FieldValueRequired",
                "spec.template.metadata.labels FieldValueInvalid `selector` does not match template `labels`",
            ],
        ),
        (
            json!({"selector": {"matchLabels": {"a": "b"}}}),
            vec![
                "spec.selector FieldValueInvalid `selector` not auto-generated",
                "spec.template.metadata.labels FieldValueInvalid `selector` does not match template `labels`",
            ],
        ),
    ];
    for (change, want) in table {
        assert_causes(&JobStrategy.validate(&job(change)), &want);
    }
}

#[test]
fn a_suspended_job_may_be_moved_before_it_runs() {
    let moved = json!({"suspend": true, "template": {"spec": {"restartPolicy": "Never", "nodeSelector": {"zone": "a"}, "containers": [{"name": "c", "image": "app:v1"}]}}});
    let suspended = job(json!({"suspend": true}));
    let errors = JobStrategy.validate_update(&job(moved.clone()), &suspended);
    assert_causes(&errors, &[]);
    let errors = JobStrategy.validate_update(&job(moved), &job(json!({})));
    assert_causes(
        &errors,
        &["spec.template FieldValueInvalid field is immutable"],
    );
    let errors = JobStrategy.validate_update(&job(json!({"completions": 2})), &job(json!({})));
    assert_causes(
        &errors,
        &["spec.completions FieldValueInvalid field is immutable"],
    );
}

/// What is wrong with a status that replaces another of a Job with these changes.
fn changed(spec: Value, new: Value, old: Value) -> crate::registry::strategy::ErrorList {
    let (mut after, mut before) = (job(spec.clone()), job(spec));
    after.status = serde_json::from_value(new).unwrap();
    before.status = serde_json::from_value(old).unwrap();
    JobStrategy.validate_status_update(&after, &before)
}

#[test]
fn what_has_ended_stays_so() {
    let condition = |kinds: &[&str]| -> Value {
        kinds
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect()
    };
    let (start, end) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
    let complete = json!({
        "startTime": start, "completionTime": end, "succeeded": 1,
        "conditions": condition(&["SuccessCriteriaMet", "Complete"]),
    });
    let indexed = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2, "backoffLimitPerIndex": 1});
    let table: Vec<(Value, Value, Value, Vec<&str>)> = vec![
        (
            json!({}),
            complete.clone(),
            json!({"startTime": start}),
            vec![],
        ),
        (
            json!({}),
            json!({"startTime": start}),
            complete.clone(),
            vec![
                "status.conditions FieldValueInvalid cannot disable the terminal Complete=True",
                "status.succeeded FieldValueInvalid cannot decrease the succeeded counter",
                "status.conditions FieldValueInvalid cannot disable the SuccessCriteriaMet=True",
            ],
        ),
        (
            json!({}),
            json!({"startTime": end, "failed": 1}),
            json!({"startTime": start, "failed": 2}),
            vec![
                "status.failed FieldValueInvalid cannot decrease the failed counter",
                "status.startTime FieldValueInvalid field is immutable for unsuspended job",
            ],
        ),
        (
            indexed.clone(),
            json!({"completedIndexes": "0,2", "failedIndexes": "1-2"}),
            json!({}),
            vec![
                "status.failedIndexes FieldValueInvalid failedIndexes and completedIndexes overlap at index: 2",
            ],
        ),
        (
            indexed,
            json!({"completedIndexes": "x", "uncountedTerminatedPods": {"failed": ["", "a"], "succeeded": ["a"]}}),
            json!({}),
            vec![
                "status.uncountedTerminatedPods.failed[0] FieldValueInvalid must not be empty",
                "status.uncountedTerminatedPods.failed[1] FieldValueDuplicate",
                "status.completedIndexes FieldValueInvalid error parsing completedIndexes: cannot convert",
            ],
        ),
    ];
    for (spec, new, old, want) in table {
        assert_causes(&changed(spec, new, old), &want);
    }
}

#[test]
fn a_suspended_job_may_be_given_other_resources() {
    let asking = |cpu: &str, suspend: bool| {
        let container =
            json!({"name": "c", "image": "app:v1", "resources": {"requests": {"cpu": cpu}}});
        job(
            json!({"suspend": suspend, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}),
        )
    };
    let errors = JobStrategy.validate_update(&asking("2", true), &asking("1", true));
    assert_causes(&errors, &[]);
    let errors = JobStrategy.validate_update(&asking("2", false), &asking("1", false));
    assert_causes(
        &errors,
        &["spec.template FieldValueInvalid field is immutable"],
    );
    let mut running = asking("1", true);
    running.status = serde_json::from_value(json!({"active": 1})).unwrap();
    let errors = JobStrategy.validate_update(&asking("2", true), &running);
    assert_causes(
        &errors,
        &["spec.template FieldValueInvalid field is immutable"],
    );
}

#[test]
fn status() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({"active": 1}), vec![]),
        (
            json!({"active": 1, "conditions": [{"type": "Complete", "status": "True"}, {"type": "Failed", "status": "True"}]}),
            vec![
                "status.conditions FieldValueInvalid cannot set Complete=True and Failed=true",
                "status.completionTime FieldValueRequired",
                "status.conditions FieldValueInvalid cannot set Failed=True condition without",
                "status.conditions FieldValueInvalid cannot set Complete=True condition without",
                "status.active FieldValueInvalid active>0 is invalid for finished job",
                "status.startTime FieldValueRequired",
            ],
        ),
        (
            json!({"completionTime": "2026-01-01T00:00:00Z", "completedIndexes": "1"}),
            vec![
                "status.completionTime FieldValueInvalid cannot set completionTime",
                "status.completedIndexes FieldValueInvalid error parsing completedIndexes: too large",
                "status.completedIndexes FieldValueInvalid cannot set non-empty completedIndexes",
            ],
        ),
    ];
    let old = job(json!({}));
    assert_causes(
        &changed(json!({}), json!({"ready": 1}), json!({})),
        &["status.ready FieldValueInvalid cannot set more ready pods than active"],
    );
    for (status, want) in table {
        let mut new = old.clone();
        new.status = serde_json::from_value(status).unwrap();
        assert_causes(&JobStrategy.validate_status_update(&new, &old), &want);
    }
}

#[test]
fn rows() {
    let mut object = job(json!({"completions": 3}));
    object.status = serde_json::from_value(json!({
        "succeeded": 3, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:30Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    }))
    .unwrap();
    let row = JobStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        row[1..4],
        [Cell::from("Complete"), "3/3".into(), "90s".into()]
    );
}
