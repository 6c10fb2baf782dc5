//! test/e2e/apps/job.go: what of a Job needs no controller.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn job() -> Value {
    let containers = json!([{"name": "c", "image": "app:v1"}]);
    json!({
        "metadata": {"name": "sum", "labels": {"e2e-job": "sum"}},
        "spec": {
            "parallelism": 2, "completions": 4, "suspend": true,
            "template": {"spec": {"restartPolicy": "Never", "containers": containers}},
        },
    })
}

/// Must: a Job is created.
/// Must: its status is patched.
/// Must: the annotation that came with the patch is found.
/// Must: its status is replaced by an update.
/// Must: its status is read.
#[tokio::test]
async fn job_should_apply_changes_to_a_job_status() {
    let api = Api::new().await;
    let jobs = Objects::namespaced(&api, "/apis/batch/v1", "jobs");
    let mut body = job();
    body["spec"]["suspend"] = json!(false);
    jobs.create(&body).await;
    // As the controller says when it has made the Pods.
    let started = "2026-01-01T00:00:00Z";
    let running = json!({"status": {"active": 2, "startTime": started}});
    jobs.patch_status("sum", "merge", &running).await;

    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"startTime": started}});
    let mut patched = jobs.patch_status("sum", "merge", &patch).await;
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    assert_eq!(patched["status"]["startTime"], started);
    patched["status"]["active"] = json!(1);
    let updated = jobs.update_status(&patched).await;
    assert_eq!(updated["status"]["active"], 1);
    let read = jobs.status("sum").await;
    assert_eq!(read["metadata"]["uid"], updated["metadata"]["uid"]);
    assert_eq!(read["status"], updated["status"]);
}

/// Must: a suspended Job is created.
/// Must: a patch gives it a label.
/// Must: the label is found.
/// Must: an update gives it an annotation, and resumes it.
/// Must: the annotation is found.
/// Must: a list of all namespaces by a label selector succeeds.
/// Must: the list has the one.
/// Must: deletecollection by a label selector deletes it, and a watch sees that.
#[tokio::test]
async fn job_should_manage_the_lifecycle_of_a_job() {
    let api = Api::new().await;
    let jobs = Objects::namespaced(&api, "/apis/batch/v1", "jobs");
    let mut watch = jobs.watch("e2e-job=sum").await;
    let created = jobs.create(&job()).await;
    assert_eq!(created["spec"]["suspend"], true);
    assert_eq!(watch.line().await, "ADDED sum");
    let mut patched = jobs.label("sum", "sum", "patched").await;
    assert_eq!(watch.line().await, "MODIFIED sum");

    patched["spec"]["suspend"] = json!(false);
    patched["metadata"]["annotations"]["updated"] = json!("true");
    let updated = jobs.update(&patched).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    assert_eq!(updated["spec"]["suspend"], false);
    assert_eq!(watch.line().await, "MODIFIED sum");
    assert_eq!(jobs.list_everywhere("sum=patched").await, [updated]);

    let path = "/apis/batch/v1/namespaces/default/jobs?labelSelector=sum%3Dpatched";
    let options = json!({"propagationPolicy": "Background"});
    api.delete_with(path, &options).await.ok(200);
    assert_eq!(watch.line().await, "DELETED sum");
    assert!(jobs.list_everywhere("sum=patched").await.is_empty());
}
