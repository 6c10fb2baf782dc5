//! test/e2e/scheduling/preemption.go: PriorityClass, which needs no scheduler.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: the classes are listed.
/// Must: a patch or an update of a field that may change succeeds.
/// Must: a patch or an update of a field that may not change fails.
/// Must: one is deleted by its name, and the rest as a collection.
#[tokio::test]
async fn schedulerpreemption_priorityclass_endpoints_verify_priorityclass_endpoints_can_be_operated_with_different_http_methods()
 {
    let api = Api::new().await;
    let classes = Objects::of_cluster(&api, "/apis/scheduling.k8s.io/v1", "priorityclasses");
    for (name, value) in [("p1", 1), ("p2", 2)] {
        let labels = json!({"e2e": "yes"});
        classes
            .create(&json!({"metadata": {"name": name, "labels": labels}, "value": value}))
            .await;
    }
    let listed = classes.list("e2e=yes").await;
    assert_eq!(listed.len(), 2);
    for mut class in listed {
        let name = class["metadata"]["name"].as_str().unwrap().to_owned();
        let path = classes.path(&name);
        let value = class["value"].as_i64().unwrap();
        for patch in [
            json!({"value": value * 10}),
            json!({"preemptionPolicy": "Never"}),
        ] {
            let answer = api.patch(&path, "strategic-merge", &patch).await;
            answer.fails(422, "Invalid");
        }
        let described = json!({"description": "patched"});
        let patched = classes.patch(&name, "strategic-merge", &described).await;
        assert_eq!(patched["description"], "patched");
        class = patched;
        let mut changed = class.clone();
        changed["value"] = json!(value * 10);
        let message = api.put(&path, &changed).await.fails(422, "Invalid");
        assert!(
            message.contains("value: Forbidden: may not be changed in an update"),
            "{message}"
        );
        class["description"] = json!("updated");
        assert_eq!(classes.update(&class).await["description"], "updated");
        assert_eq!(classes.get(&name).await["value"], value);
    }
    classes.delete("p1").await;
    classes.gone("p1").await;
    classes.delete_all("e2e=yes").await;
    assert!(classes.list("e2e=yes").await.is_empty());
}
