//! status, scale, binding and eviction.

use serde_json::json;

use crate::harness::{Api, PODS, deployment, pod};
use crate::kinds::tokens::{ACCOUNTS, account};

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let created = api.post(deployments, &deployment("web")).await.ok(201);
    let path = format!("{deployments}/web/scale");
    let mut scale = api.get(&path).await.ok(200);
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["apiVersion"], "autoscaling/v1");
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"]["selector"], "app=web");
    assert_eq!(scale["metadata"]["uid"], created["metadata"]["uid"]);
    let stale = scale.clone();
    scale["spec"]["replicas"] = json!(3);
    let scaled = api.put(&path, &scale).await.ok(200);
    assert_eq!(scaled["spec"]["replicas"], 3);
    api.put(&path, &stale).await.fails(409, "Conflict");
    let patched = api
        .patch(&path, "merge", &json!({"spec": {"replicas": 4}}))
        .await
        .ok(200);
    assert_eq!(patched["spec"]["replicas"], 4);
    let read = api.get(&format!("{deployments}/web")).await.ok(200);
    assert_eq!(read["spec"]["replicas"], 4);
    assert_eq!(read["metadata"]["generation"], 3);
    api.patch(&path, "merge", &json!({"spec": {"replicas": -1}}))
        .await
        .fails(422, "Invalid");
    api.get(&format!("{PODS}/p/scale"))
        .await
        .fails(404, "NotFound");
}

#[tokio::test]
async fn a_scale_is_of_its_object_and_has_no_other_fields() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    api.post(deployments, &deployment("web")).await.ok(201);
    let path = format!("{deployments}/web/scale");
    let mut other = json!({"metadata": {"name": "other"}, "spec": {"replicas": 2}});
    let message = api.put(&path, &other).await.fails(400, "BadRequest");
    assert!(
        message.contains("the name of the object (other)"),
        "{message}"
    );
    api.patch(&path, "merge", &other)
        .await
        .fails(400, "BadRequest");
    other["metadata"] = json!({"name": "web", "namespace": "elsewhere"});
    api.put(&path, &other).await.fails(400, "BadRequest");

    let colourful = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "colour": "red"}});
    let warned = api.put(&path, &colourful).await;
    assert_eq!(warned.ok(200)["spec"]["replicas"], 2);
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(warning.contains("spec.colour"), "{warning}");
    let strict = format!("{path}?fieldValidation=Strict");
    let message = api.put(&strict, &colourful).await.fails(400, "BadRequest");
    assert!(
        message.contains(r#"unknown field "spec.colour""#),
        "{message}"
    );
    api.patch(&strict, "merge", &colourful)
        .await
        .fails(422, "Invalid");
    let mut config = colourful;
    config["apiVersion"] = json!("autoscaling/v1");
    config["kind"] = json!("Scale");
    let message = api
        .apply(&path, "fieldManager=a&force=true", &config)
        .await
        .fails(400, "BadRequest");
    let unknown = ".spec.colour: field not declared in schema";
    assert!(message.contains(unknown), "{message}");
}

#[tokio::test]
async fn a_scale_is_shown_in_a_table() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    api.post(deployments, &deployment("web")).await.ok(201);
    let path = format!("{deployments}/web/scale");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = api.get_as(&path, table).await.ok(200);
    assert_eq!(table["kind"], "Table");
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> = columns.iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(row["cells"][0], "web");
    assert_eq!(row["cells"][1], 1);
    assert_eq!(row["cells"][2], 0);
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"]["name"], "web");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let partial = api.get_as(&path, partial).await.ok(200);
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert!(partial.get("spec").is_none());
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::new().await;
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let path = format!("{PODS}/p/binding");
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let mut other = binding("n1");
    other["metadata"]["uid"] = json!("another");
    api.post(&path, &other).await.fails(409, "Conflict");
    let status = api.post(&path, &binding("n1")).await.ok(201);
    assert_eq!(status["status"], "Success");
    let bound = api.get(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["uid"], created["metadata"]["uid"]);
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    let message = api.post(&path, &binding("n2")).await.fails(409, "Conflict");
    assert_eq!(
        message,
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );
    let mut wrong = binding("n1");
    wrong["target"]["kind"] = json!("Pod");
    api.post(&path, &wrong).await.fails(422, "Invalid");
    let mut absent = binding("n1");
    absent["metadata"]["name"] = json!("none");
    api.post(&format!("{PODS}/none/binding"), &absent)
        .await
        .fails(404, "NotFound");
    let on_node = api
        .get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1"))
        .await
        .ok(200);
    assert_eq!(on_node["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_binding_names_its_pod_and_may_demand_a_version() {
    let api = Api::new().await;
    let bindings = "/api/v1/namespaces/default/bindings";
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let labels = json!({"topology.kubernetes.io/zone": "z"});
    let mut binding = json!({"apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": "q", "resourceVersion": "1", "labels": labels},
        "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/p/binding");
    api.post(&path, &binding).await.fails(400, "BadRequest");
    api.post(bindings, &binding).await.fails(404, "NotFound");
    binding["metadata"]["name"] = json!("p");
    for path in [path.as_str(), bindings] {
        api.post(path, &binding).await.fails(409, "Conflict");
    }
    binding["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    let tried = format!("{bindings}?dryRun=All");
    api.post(&tried, &binding).await.ok(201);
    let free = api.get(&format!("{PODS}/p")).await.ok(200);
    assert!(free["spec"].get("nodeName").is_none());
    assert_eq!(api.post(bindings, &binding).await.ok(201)["kind"], "Status");
    let bound = api.get(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["labels"], labels);
    binding["kind"] = json!("Eviction");
    api.post(&path, &binding).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn an_evicted_pod_is_deleted_with_its_grace() {
    let api = Api::new().await;
    let mut body = pod("p");
    body["spec"]["nodeName"] = json!("n1");
    api.post(PODS, &body).await.ok(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 5}});
    let path = format!("{PODS}/p/eviction");
    assert_eq!(
        api.post(&path, &eviction).await.ok(201)["status"],
        "Success"
    );
    let pod = api.get(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 5);
    let wrong = json!({"metadata": {"name": "q"}});
    api.post(&path, &wrong).await.fails(400, "BadRequest");
}

#[tokio::test]
async fn an_eviction_is_read_as_objects_are() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.ok(201);
    let path = format!("{PODS}/p/eviction?dryRun=All");
    for version in ["policy/v1", "policy/v1beta1"] {
        let eviction = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}});
        api.post(&path, &eviction).await.ok(201);
    }
    for wrong in [
        json!({"apiVersion": "policy/v2", "kind": "Eviction"}),
        json!({"apiVersion": "policy/v1beta1", "kind": "Binding"}),
        json!({"metadata": {"name": "p", "namespace": "other"}}),
        json!({"metadata": {"name": "q"}}),
        json!([]),
    ] {
        api.post(&path, &wrong).await.fails(400, "BadRequest");
    }
    let misspelt = json!({"metadata": {"name": "p"}, "deleteOption": {}});
    let strict = api
        .post(&format!("{path}&fieldValidation=Strict"), &misspelt)
        .await;
    let message = strict.fails(400, "BadRequest");
    assert!(
        message.contains(r#"unknown field "deleteOption""#),
        "{message}"
    );
    let warned = api.post(&path, &misspelt).await;
    assert_eq!(warned.code, 201);
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains(r#"unknown field \"deleteOption\""#),
        "{warning}"
    );
}

#[tokio::test]
async fn the_status_of_a_pod_is_its_own() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.ok(201);
    let status = json!({"status": {"phase": "Running", "podIP": "10.42.0.2", "podIPs": [{"ip": "10.42.0.2"}]}});
    let running = api
        .patch(&format!("{PODS}/p/status"), "strategic-merge", &status)
        .await
        .ok(200);
    assert_eq!(running["status"]["phase"], "Running");
    let main = api
        .patch(
            &format!("{PODS}/p"),
            "merge",
            &json!({"status": {"phase": "Failed"}}),
        )
        .await
        .ok(200);
    assert_eq!(main["status"]["phase"], "Running");
    assert_eq!(api.get(&format!("{PODS}/p/status")).await.ok(200), main);
}

#[tokio::test]
async fn a_request_for_a_token_has_the_options_of_a_write() {
    let api = Api::new().await;
    let robot = account(&api, "robot").await;
    let path = format!("{ACCOUNTS}/robot/token");
    let body = json!({"spec": {"colour": "blue"}});
    let strict = api
        .post(&format!("{path}?fieldValidation=Strict"), &body)
        .await;
    let message = strict.fails(400, "BadRequest");
    assert!(
        message.contains(r#"unknown field "spec.colour""#),
        "{message}"
    );
    let warned = api.post(&path, &body).await;
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains(r#"unknown field \"spec.colour\""#),
        "{warning}"
    );
    let ignored = api
        .post(&format!("{path}?fieldValidation=Ignore"), &body)
        .await;
    assert_eq!(ignored.headers.get("warning"), None);
    assert_eq!(ignored.ok(201)["metadata"]["uid"], robot["metadata"]["uid"]);
    // Nothing is written of a token, so that one is made all the same, as in Kubernetes.
    let tried = api.post(&format!("{path}?dryRun=All"), &json!({})).await;
    assert!(tried.ok(201)["status"]["token"].is_string());
    for unknown in ["dryRun=Some", "fieldValidation=Some"] {
        let refused = api.post(&format!("{path}?{unknown}"), &json!({})).await;
        refused.fails(422, "Invalid");
    }
    let other = json!({"metadata": {"uid": "another"}});
    let warned = api.post(&path, &other).await;
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(warning.contains("does not match the UID"), "{warning}");
}
