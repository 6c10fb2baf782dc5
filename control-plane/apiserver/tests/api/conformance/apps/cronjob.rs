//! test/e2e/apps/cronjob.go: CronJob.

use serde_json::json;

use crate::conformance::objects::{Objects, name};
use crate::harness::Api;

/// Must: create, get, list (in a namespace and in all), watch, update, patch, delete and
/// deletecollection are served.
/// Must: get, update and patch of the status are served.
#[tokio::test]
async fn cronjob_should_support_cronjob_api_operations() {
    let api = Api::new().await;
    let jobs = Objects::namespaced(&api, "/apis/batch/v1", "cronjobs");
    let containers = json!([{"name": "c", "image": "app:v1"}]);
    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": containers}});
    let body = json!({
        "metadata": {"name": "tick", "labels": {"special": "yes"}},
        "spec": {
            "schedule": "* */1 * * ?", "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
            "jobTemplate": {"spec": {"parallelism": 1, "completions": 1, "backoffLimit": 1, "template": template}},
        },
    });
    let created = jobs.create(&body).await;
    assert_eq!(
        jobs.get("tick").await["metadata"]["uid"],
        created["metadata"]["uid"]
    );
    assert_eq!(
        jobs.list("special=yes").await,
        std::slice::from_ref(&created)
    );
    assert_eq!(
        jobs.list_everywhere("special=yes").await,
        std::slice::from_ref(&created)
    );
    let mut watch = jobs.watch("special=yes").await;
    let everywhere = "/apis/batch/v1/cronjobs?labelSelector=special%3Dyes&watch=true";
    let mut wider = api.watch(everywhere).await;

    let annotate = |key: &str| json!({"metadata": {"annotations": {key: "true"}}});
    let mut patched = jobs.patch("tick", "merge", &annotate("patched")).await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    patched["metadata"]["annotations"]["updated"] = json!("true");
    let updated = jobs.update(&patched).await;
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    for watch in [&mut watch, &mut wider] {
        for seen in ["patched", "updated"] {
            let event = watch
                .until(|event| event["object"]["metadata"]["annotations"][seen] == "true")
                .await;
            assert_eq!(event["type"], "MODIFIED");
        }
    }

    let first = "2026-01-01T00:00:00Z";
    let mut patch = annotate("patchedstatus");
    patch["status"] = json!({"lastScheduleTime": first});
    let mut patched = jobs.patch_status("tick", "merge", &patch).await;
    assert_eq!(patched["status"]["lastScheduleTime"], first);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let second = "2026-01-01T01:00:00Z";
    patched["status"]["lastScheduleTime"] = json!(second);
    let updated = jobs.update_status(&patched).await;
    assert_eq!(updated["status"]["lastScheduleTime"], second);
    assert_eq!(
        jobs.status("tick").await["metadata"]["uid"],
        created["metadata"]["uid"]
    );

    let mut other = body.clone();
    other["metadata"]["name"] = json!("for-removal");
    let other = jobs.create(&other).await;
    jobs.delete(name(&other)).await;
    jobs.gone(name(&other)).await;
    jobs.delete_all("special=yes").await;
    assert!(jobs.list("special=yes").await.is_empty());
}
