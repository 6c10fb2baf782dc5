//! Admission.

use serde_json::json;

use crate::harness::{Api, PODS, pod};

#[tokio::test]
async fn a_pod_gets_its_account_priority_and_tolerations() {
    let api = Api::new().await;
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let spec = &created["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    let tolerations = spec["tolerations"].as_array().unwrap();
    assert_eq!(tolerations.len(), 2);
    assert!(
        tolerations
            .iter()
            .all(|t| t["tolerationSeconds"] == 300 && t["effect"] == "NoExecute")
    );
    let mut tolerant = pod("q");
    tolerant["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let created = api.post(PODS, &tolerant).await.ok(201);
    assert_eq!(
        created["spec"]["tolerations"],
        json!([{"operator": "Exists"}])
    );
}

#[tokio::test]
async fn an_update_need_not_repeat_what_admission_decided() {
    let api = Api::new().await;
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let mut body = created.clone();
    body["metadata"]["labels"] = json!({"changed": "yes"});
    for decided in ["priority", "preemptionPolicy", "tolerations"] {
        body["spec"].as_object_mut().unwrap().remove(decided);
    }
    let updated = api.put(&format!("{PODS}/p"), &body).await.ok(200);
    assert_eq!(updated["metadata"]["labels"]["changed"], "yes");
    assert_eq!(updated["spec"], created["spec"]);
}

#[tokio::test]
async fn accounts_exist_and_bring_their_pull_secrets() {
    let api = Api::new().await;
    let mut body = pod("p");
    body["spec"]["serviceAccountName"] = json!("robot");
    let message = api.post(PODS, &body).await.fails(403, "Forbidden");
    assert!(
        message.contains("serviceaccount \"robot\" not found"),
        "{message}"
    );
    let account = json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "pull"}]});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account)
        .await
        .ok(201);
    let created = api.post(PODS, &body).await.ok(201);
    assert_eq!(
        created["spec"]["imagePullSecrets"],
        json!([{"name": "pull"}])
    );
}

#[tokio::test]
async fn priority_classes() {
    let api = Api::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let mut body = pod("p");
    body["spec"]["priorityClassName"] = json!("system-node-critical");
    let created = api.post(PODS, &body).await.ok(201);
    assert_eq!(created["spec"]["priority"], 2_000_001_000);
    body = pod("q");
    body["spec"]["priority"] = json!(5);
    api.post(PODS, &body).await.fails(403, "Forbidden");
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 7, "globalDefault": true, "preemptionPolicy": "Never"});
    api.post(classes, &class("usual")).await.ok(201);
    let message = api
        .post(classes, &class("second"))
        .await
        .fails(403, "Forbidden");
    assert!(message.contains("already marked as default"), "{message}");
    let created = api.post(PODS, &pod("r")).await.ok(201);
    assert_eq!(created["spec"]["priority"], 7);
    assert_eq!(created["spec"]["priorityClassName"], "usual");
    assert_eq!(created["spec"]["preemptionPolicy"], "Never");
}

#[tokio::test]
async fn runtime_classes() {
    let api = Api::new().await;
    let mut body = pod("p");
    body["spec"]["runtimeClassName"] = json!("wasm");
    let message = api.post(PODS, &body).await.fails(403, "Forbidden");
    assert!(
        message.contains("RuntimeClass \"wasm\" not found"),
        "{message}"
    );
    let class = json!({
        "metadata": {"name": "wasm"}, "handler": "wasmtime", "overhead": {"podFixed": {"memory": "1Mi"}},
        "scheduling": {"nodeSelector": {"wasm": "yes"}},
    });
    api.post("/apis/node.k8s.io/v1/runtimeclasses", &class)
        .await
        .ok(201);
    let created = api.post(PODS, &body).await.ok(201);
    assert_eq!(created["spec"]["overhead"]["memory"], "1Mi");
    assert_eq!(created["spec"]["nodeSelector"]["wasm"], "yes");
    let plain = json!({"metadata": {"name": "plain"}, "handler": "wasmtime"});
    api.post("/apis/node.k8s.io/v1/runtimeclasses", &plain)
        .await
        .ok(201);
    let table = [
        (
            "wasm",
            json!({"overhead": {"memory": "2Mi"}}),
            "Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            "plain",
            json!({"overhead": {"memory": "1Mi"}}),
            "Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            "wasm",
            json!({"nodeSelector": {"wasm": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[wasm] = yes; pod.spec.nodeSelector[wasm] = no",
        ),
    ];
    for (class, spec, want) in table {
        let mut body = pod("other");
        let of_pod = body["spec"].as_object_mut().unwrap();
        of_pod.extend(spec.as_object().unwrap().clone());
        of_pod.insert("runtimeClassName".to_owned(), json!(class));
        let message = api.post(PODS, &body).await.fails(403, "Forbidden");
        assert!(message.contains(want), "{message}");
    }
}

#[tokio::test]
async fn the_default_account_is_waited_for() {
    let api = Api::new().await;
    let namespaces = "/api/v1/namespaces";
    let named = |name: &str| json!({"metadata": {"name": name}});
    api.post(namespaces, &named("new")).await.ok(201);
    let pods = "/api/v1/namespaces/new/pods";
    let (first, second) = (pod("first"), pod("second"));
    let refused = api.post(pods, &first).await.fails(403, "Forbidden");
    assert!(
        refused.contains(
            "error looking up service account new/default: serviceaccount \"default\" not found"
        ),
        "{refused}"
    );
    let (made, ()) = tokio::join!(api.post(pods, &second), api.default_account("new"));
    assert_eq!(made.ok(201)["spec"]["serviceAccountName"], "default");
}
