//! Job, CronJob.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::Api;

fn job_spec() -> Value {
    json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:v1"}]}}})
}

fn job() -> Subject<'static> {
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set by a test"});
    Subject {
        group_version: "/apis/batch/v1",
        plural: "jobs",
        namespaced: true,
        body: json!({"metadata": {"name": "sum"}, "spec": job_spec()}),
        status: Some(
            json!({"active": 1, "startTime": "2026-01-01T00:00:00Z", "conditions": [condition]}),
        ),
    }
}

#[tokio::test]
async fn a_job_has_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &job()).await;
}

#[tokio::test]
async fn a_suspended_job_is_resumed_and_its_template_stays() {
    let api = Api::new().await;
    let mut subject = job();
    subject.body["spec"]["suspend"] = json!(true);
    let created = subject.create(&api, "sum").await;
    let uid = &created["metadata"]["uid"];
    assert_eq!(
        created["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"],
        *uid
    );
    assert_eq!(
        created["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"],
        "sum"
    );
    let path = format!("{}/sum", subject.collection());
    let move_it = json!({"spec": {"template": {"spec": {"nodeSelector": {"zone": "a"}}}}});
    api.patch(&path, "strategic-merge", &move_it).await.ok(200);
    let resume = json!({"spec": {"suspend": false, "parallelism": 2}});
    let resumed = api.patch(&path, "merge", &resume).await.ok(200);
    assert_eq!(resumed["spec"]["suspend"], false);
    assert_eq!(resumed["metadata"]["generation"], 3);
    let move_on = json!({"spec": {"template": {"spec": {"nodeSelector": {"zone": "b"}}}}});
    let message = api
        .patch(&path, "strategic-merge", &move_on)
        .await
        .fails(422, "Invalid");
    assert!(
        message.contains("spec.template") && message.contains("field is immutable"),
        "{message}"
    );
}

#[tokio::test]
async fn a_cron_job_has_every_verb_and_a_schedule_that_is_one() {
    let api = Api::new().await;
    let subject = Subject {
        group_version: "/apis/batch/v1",
        plural: "cronjobs",
        namespaced: true,
        body: json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* */1 * * ?", "timeZone": "UTC", "jobTemplate": {"spec": job_spec()}}}),
        status: Some(json!({"lastScheduleTime": "2026-01-01T00:00:00Z"})),
    };
    lifecycle(&api, &subject).await;
    let mut wrong = subject.named("wrong");
    wrong["spec"]["schedule"] = json!("never");
    let message = api
        .post(&subject.collection(), &wrong)
        .await
        .fails(422, "Invalid");
    assert!(
        message.contains("expected exactly 5 fields, found 1: [never]"),
        "{message}"
    );
}
