//! Quotas as objects. What they count is tested with the controllers.

use serde_json::{Value, json};

use crate::harness::Api;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PATH: &str = "/api/v1/namespaces/default/resourcequotas/quota";

async fn create(api: &Api, hard: Value) -> Value {
    let metadata = json!({"name": "quota", "labels": {"quota": "test"}});
    let body = json!({"metadata": metadata, "spec": {"hard": hard}});
    api.post(QUOTAS, &body).await.ok(201)
}

/// Must: a quota of CPU and memory can be created
/// Must: an update of both can be made, and the quota has the new values
/// Must: a deleted quota is not there
#[tokio::test]
async fn resourcequota_should_be_able_to_update_and_delete_resourcequota() {
    let api = Api::new().await;
    let hard = json!({"cpu": "1", "memory": "500Mi"});
    let mut quota = create(&api, hard.clone()).await;
    assert_eq!(api.get(PATH).await.ok(200)["spec"]["hard"], hard);
    let more = json!({"cpu": "2", "memory": "1Gi"});
    quota["spec"]["hard"] = more.clone();
    assert_eq!(api.put(PATH, &quota).await.ok(200)["spec"]["hard"], more);
    assert_eq!(api.get(PATH).await.ok(200)["spec"]["hard"], more);
    api.delete(PATH).await.ok(200);
    api.get(PATH).await.fails(404, "NotFound");
}

/// Must: a quota of CPU and memory can be created
/// Must: quotas of all namespaces can be listed by label
/// Must: the one with the label is found
/// Must: the quota can be patched
/// Must: what was patched has its new values, at a later version
/// Must: quotas can be deleted together, by label
#[tokio::test]
async fn resourcequota_should_manage_the_lifecycle_of_a_resourcequota() {
    let api = Api::new().await;
    let hard = json!({"cpu": "1", "memory": "500Mi"});
    let created = create(&api, hard.clone()).await;
    let read = api.get(PATH).await.ok(200);
    assert_eq!((&read, &read["spec"]["hard"]), (&created, &hard));
    let selector = "labelSelector=quota%3Dtest";
    let everywhere = format!("/api/v1/resourcequotas?{selector}");
    let list = api.get(&everywhere).await.ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["metadata"], created["metadata"]);

    let patch = json!({
        "metadata": {"labels": {"state": "patched"}},
        "spec": {"hard": {"memory": "750Mi"}},
    });
    let patched = api.patch(PATH, "strategic-merge", &patch).await.ok(200);
    assert_eq!(patched["metadata"]["labels"]["state"], "patched");
    assert_eq!(
        patched["spec"]["hard"],
        json!({"cpu": "1", "memory": "750Mi"})
    );
    let version = |quota: &Value| -> u64 {
        let version = quota["metadata"]["resourceVersion"].as_str().unwrap();
        version.parse().unwrap()
    };
    assert!(version(&patched) > version(&created));
    let selected = format!("{QUOTAS}?labelSelector=state%3Dpatched");
    api.delete(&selected).await.ok(200);
    api.get(PATH).await.fails(404, "NotFound");
}

/// Must: a quota of CPU and memory can be created
/// Must: its status can be updated
/// Must: the updated status is then found, by a watch too
/// Must: the status is equal to what the quota wants
/// Must: what the quota wants can be patched
/// Must: the new wants are then found
/// Must: its status can be patched
/// Must: the patched status is equal to the new wants, by a watch too
/// Must: the status can be read
/// Must: it is as it was patched
/// Must: the status can be patched again
/// Must: a patch of the status changes no wants
#[tokio::test]
async fn resourcequota_should_apply_changes_to_a_resourcequota_status() {
    let api = Api::new().await;
    let mut watch = api
        .watch("/api/v1/resourcequotas?watch=true&labelSelector=quota%3Dtest")
        .await;
    let hard = json!({"cpu": "500m", "memory": "500Mi"});
    let mut quota = create(&api, hard.clone()).await;
    assert_eq!(quota["spec"]["hard"], hard);
    watch.expect("ADDED", &quota).await;

    let of_status = format!("{PATH}/status");
    quota["status"] = json!({ "hard": hard });
    let updated = api.put(&of_status, &quota).await.ok(200);
    assert_eq!(updated["status"]["hard"], updated["spec"]["hard"]);
    watch.expect("MODIFIED", &updated).await;

    let more = json!({"cpu": "1", "memory": "1Gi"});
    let patch = json!({"spec": {"hard": more}});
    let patched = api.patch(PATH, "strategic-merge", &patch).await.ok(200);
    assert_eq!(patched["spec"]["hard"], more);
    assert_eq!(patched["status"]["hard"], hard);
    watch.expect("MODIFIED", &patched).await;

    let set_status = async |hard: &Value| {
        let patch = json!({"status": {"hard": hard}});
        api.patch(&of_status, "strategic-merge", &patch)
            .await
            .ok(200)
    };
    let patched = set_status(&more).await;
    assert_eq!(patched["status"]["hard"], patched["spec"]["hard"]);
    watch.expect("MODIFIED", &patched).await;
    let read = api.get(&of_status).await.ok(200);
    assert_eq!(read["status"]["hard"], more);

    let most = json!({"cpu": "2", "memory": "2Gi"});
    let repatched = set_status(&most).await;
    assert_eq!(repatched["status"]["hard"], most);
    assert_eq!(repatched["spec"]["hard"], more);
    watch.expect("MODIFIED", &repatched).await;
}
