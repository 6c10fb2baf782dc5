//! Endpoints as objects.

use serde_json::json;

use crate::harness::Api;

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SELECTOR: &str = "labelSelector=static%3Dtrue";

/// Must: Endpoints that were created are there: a watch and a list of all namespaces tell them
/// Must: an update with another label is seen
/// Must: a patch with another address and port is seen
/// Must: a deletion by label is told to a watch, and they are then gone
#[tokio::test]
async fn endpoints_should_test_the_lifecycle_of_an_endpoint() {
    let api = Api::new().await;
    let mut watch = api
        .watch(&format!("{ENDPOINTS}?watch=true&{SELECTOR}"))
        .await;
    let subset = |ip: &str, name: &str, port: i32| json!([{"addresses": [{"ip": ip}], "ports": [{"name": name, "port": port, "protocol": "TCP"}]}]);
    let body = json!({
        "metadata": {"name": "test", "labels": {"static": "true"}},
        "subsets": subset("10.0.0.24", "http", 80),
    });
    let created = api.post(ENDPOINTS, &body).await.ok(201);
    watch.expect("ADDED", &created).await;
    let everywhere = api
        .get(&format!("/api/v1/endpoints?{SELECTOR}"))
        .await
        .ok(200);
    assert_eq!(everywhere["items"][0]["metadata"], created["metadata"]);

    let path = format!("{ENDPOINTS}/test");
    let mut update = created.clone();
    update["metadata"]["labels"]["service"] = json!("updated");
    let updated = api.put(&path, &update).await.ok(200);
    watch.expect("MODIFIED", &updated).await;
    let read = api.get(&path).await.ok(200);
    assert_eq!(read["metadata"]["labels"]["service"], "updated");

    let patch = json!({
        "metadata": {"labels": {"service": "patched"}},
        "subsets": subset("10.0.0.25", "http-test", 8080),
    });
    let patched = api.patch(&path, "strategic-merge", &patch).await.ok(200);
    watch.expect("MODIFIED", &patched).await;
    let read = api.get(&path).await.ok(200);
    assert_eq!(read["metadata"]["labels"]["service"], "patched");
    assert_eq!(read["subsets"], subset("10.0.0.25", "http-test", 8080));

    api.delete(&format!("{ENDPOINTS}?{SELECTOR}")).await.ok(200);
    assert_eq!(watch.line().await, "DELETED test");
    api.get(&path).await.fails(404, "NotFound");
}
