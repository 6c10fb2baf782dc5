//! pods/ephemeralcontainers and pods/resize.

use serde_json::{Value, json};

use crate::apply::fields;
use crate::harness::{Api, PODS, pod};

/// A Pod with a container that requests and limits CPU.
async fn create(api: &Api) -> Value {
    let mut body = pod("p");
    body["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    api.post(PODS, &body).await.ok(201)
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let api = Api::new().await;
    create(&api).await;
    let path = format!("{PODS}/p/ephemeralcontainers");
    let debugger = json!({"name": "debug", "image": "app:v1", "targetContainerName": "c"});
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"ephemeralContainers": [debugger], "activeDeadlineSeconds": 9}});
    let patched = api.patch(&path, "strategic-merge", &patch).await.ok(200);
    let added = &patched["spec"]["ephemeralContainers"];
    assert_eq!(
        (&added[0]["name"], &added[1]),
        (&json!("debug"), &Value::Null)
    );
    assert_eq!(added[0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(patched["metadata"]["generation"], 2);
    // Nothing else of the Pod changes by this way, and they change by no other.
    assert_eq!(patched["metadata"].get("labels"), None);
    assert_eq!(patched["spec"].get("activeDeadlineSeconds"), None);
    // Nor does whoever writes by it manage anything else.
    let managed = fields(&patched, "unknown/Update/ephemeralcontainers");
    let debugger = "/f:spec/f:ephemeralContainers/k:{\"name\":\"debug\"}/f:image";
    assert!(managed.pointer(debugger).is_some(), "{managed}");
    assert_eq!(managed.get("f:metadata"), None);
    assert_eq!(managed["f:spec"].as_object().unwrap().len(), 1);
    assert_eq!(api.get(&path).await.ok(200), patched);
    let mut update = patched.clone();
    update["spec"]["ephemeralContainers"][0]["name"] = json!("other");
    api.put(&format!("{PODS}/p"), &update)
        .await
        .fails(422, "Invalid");

    for (change, how) in [
        (json!([]), "removed"),
        (json!([{"name": "debug", "image": "app:v2"}]), "changed"),
    ] {
        let mut update = patched.clone();
        update["spec"]["ephemeralContainers"] = change;
        let message = api.put(&path, &update).await.fails(422, "Invalid");
        let want = format!("existing ephemeral containers \"debug\" may not be {how}");
        assert!(message.contains(&want), "{message}");
    }
    let mut more = patched.clone();
    let again = json!({"name": "again", "image": "app:v1"});
    let list = more["spec"]["ephemeralContainers"].as_array_mut().unwrap();
    list.push(again);
    let added = api.put(&path, &more).await.ok(200);
    assert_eq!(added["spec"]["ephemeralContainers"][1]["name"], "again");
}

#[tokio::test]
async fn resources_change_while_a_pod_runs() {
    let api = Api::new().await;
    create(&api).await;
    let path = format!("{PODS}/p/resize");
    let set = |resources: Value| json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
    let more = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
    let resized = api
        .patch(&path, "strategic-merge", &set(more.clone()))
        .await
        .ok(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"], more);
    assert_eq!(resized["metadata"]["generation"], 2);
    assert_eq!(resized["metadata"].get("labels"), None);
    assert_eq!(api.get(&path).await.ok(200), resized);

    let table = [
        (
            json!({"requests": {"cpu": "300m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}}),
            "Pod QOS Class may not change as a result of resizing",
        ),
        (
            json!({"limits": {"cpu": null}}),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!({"requests": {"ephemeral-storage": "1Mi"}}),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
    ];
    for (resources, want) in table {
        let patch = set(resources);
        let refused = api.patch(&path, "strategic-merge", &patch).await;
        let message = refused.fails(422, "Invalid");
        assert!(message.contains(want), "{message}");
    }
    let mut two = resized.clone();
    let containers = two["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "d", "image": "i"}));
    let message = api.put(&path, &two).await.fails(422, "Invalid");
    let want = "spec.containers: Forbidden: containers may not be added or removed on resize";
    assert!(message.contains(want), "{message}");
}

#[tokio::test]
async fn a_node_that_cannot_resize_is_not_asked_to() {
    let api = Api::new().await;
    create(&api).await;
    let running = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let status = json!({"status": {"phase": "Running", "containerStatuses": [running]}});
    api.patch(&format!("{PODS}/p/status"), "merge", &status)
        .await
        .ok(200);
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "150m"}}}]}});
    let refused = api
        .patch(&format!("{PODS}/p/resize"), "strategic-merge", &patch)
        .await;
    let message = refused.fails(422, "Invalid");
    assert!(
        message.contains("Pod running on node without support for resize"),
        "{message}"
    );
}
