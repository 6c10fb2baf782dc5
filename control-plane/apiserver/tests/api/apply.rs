//! Server-side apply, and who manages which field after every sort of write.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, CONFIG_MAPS, PODS, deployment, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

impl Api {
    /// Applies; the query names the manager and more.
    async fn apply(&self, path: &str, query: &str, config: &Value) -> Answer {
        let path = format!("{path}?{query}");
        self.raw(Method::PATCH, &path, APPLY, config.to_string())
            .await
    }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

/// The managers as `manager/operation[/subresource]` with their fields.
fn managers(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array();
    let entries = entries.into_iter().flatten();
    entries
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            assert_eq!(entry["fieldsType"], "FieldsV1");
            assert!(entry["time"].is_string(), "{entry}");
            let mut who = format!("{}/{}", text("manager"), text("operation"));
            if entry.get("subresource").is_some() {
                who = format!("{who}/{}", text("subresource"));
            }
            (who, entry["fieldsV1"].clone())
        })
        .collect()
}

fn names(object: &Value) -> Vec<String> {
    managers(object).into_iter().map(|(who, _)| who).collect()
}

fn fields(object: &Value, who: &str) -> Value {
    let found = managers(object).into_iter().find(|(name, _)| name == who);
    found
        .unwrap_or_else(|| panic!("no {who}: {:?}", managers(object)))
        .1
}

#[tokio::test]
async fn apply_creates_and_updates() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let x = "fieldManager=x";
    let created = api
        .apply(path, x, &config_map(json!({"a": "1", "b": "1"})))
        .await
        .ok(201);
    assert_eq!(created["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(
        managers(&created),
        [(
            "x/Apply".to_owned(),
            json!({"f:data": {"f:a": {}, "f:b": {}}})
        )]
    );
    assert_eq!(
        created["metadata"]["managedFields"][0]["apiVersion"], "v1",
        "{created}"
    );
    // The same again is no write.
    let again = api
        .apply(path, x, &config_map(json!({"a": "1", "b": "1"})))
        .await
        .ok(200);
    assert_eq!(again, created);
    // What is dropped goes.
    let changed = api
        .apply(path, x, &config_map(json!({"b": "2"})))
        .await
        .ok(200);
    assert_eq!(changed["data"], json!({"b": "2"}));
    assert_eq!(fields(&changed, "x/Apply"), json!({"f:data": {"f:b": {}}}));
    // YAML, as the media type says.
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  b: \"2\"\n";
    let same = api
        .raw(Method::PATCH, &format!("{path}?{x}"), APPLY, yaml)
        .await
        .ok(200);
    assert_eq!(same, changed);
}

#[tokio::test]
async fn conflicts_are_named_and_forced() {
    let api = Api::new().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["spec"]["replicas"] = json!(3);
    api.raw(
        Method::POST,
        &format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"),
        "application/json",
        config.to_string(),
    )
    .await
    .ok(201);
    config["spec"]["replicas"] = json!(5);
    let answer = api.apply(path, "fieldManager=x", &config).await;
    let message = answer.fails(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let causes = &answer.json()["details"]["causes"];
    assert_eq!(
        *causes,
        json!([{
            "reason": "FieldManagerConflict",
            "message": "conflict with \"kubectl-client-side-apply\" using apps/v1",
            "field": ".spec.replicas",
        }])
    );
    let kept = api.get(path).await.ok(200);
    assert_eq!(names(&kept), ["kubectl-client-side-apply/Update"]);
    config["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:v2");
    let message = api
        .apply(path, "fieldManager=x", &config)
        .await
        .fails(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"c\"].image"
    );
    let dry = api
        .apply(path, "fieldManager=x&force=true&dryRun=All", &config)
        .await
        .ok(200);
    assert_eq!(dry["spec"]["replicas"], 5);
    assert_eq!(api.get(path).await.ok(200), kept);
    let forced = api
        .apply(path, "fieldManager=x&force=true", &config)
        .await
        .ok(200);
    assert_eq!(forced["spec"]["replicas"], 5);
    let theirs = fields(&forced, "kubectl-client-side-apply/Update");
    assert!(
        theirs.pointer("/f:spec/f:replicas").is_none()
            && theirs.pointer("/f:spec/f:selector").is_some(),
        "{theirs}"
    );
    // Defaults are the creator's, and stay where an applier does not name them.
    assert!(theirs.pointer("/f:spec/f:revisionHistoryLimit").is_some());
    let mine = fields(&forced, "x/Apply");
    assert_eq!(
        mine["f:spec"]["f:template"]["f:spec"]["f:containers"],
        json!({"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}}})
    );
}

#[tokio::test]
async fn appliers_share_what_they_agree_on() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let one = config_map(json!({"a": "1"}));
    api.apply(path, "fieldManager=x", &one).await.ok(201);
    let shared = api.apply(path, "fieldManager=y", &one).await.ok(200);
    assert_eq!(names(&shared), ["x/Apply", "y/Apply"]);
    let message = api
        .apply(path, "fieldManager=y", &config_map(json!({"a": "2"})))
        .await
        .fails(409, "Conflict");
    assert!(
        message.ends_with("conflict with \"x\": .data.a"),
        "{message}"
    );
    // It stays while one of them has it.
    let left = api
        .apply(path, "fieldManager=x", &config_map(json!({})))
        .await
        .ok(200);
    assert_eq!(left["data"], json!({"a": "1"}));
    let gone = api
        .apply(path, "fieldManager=y", &config_map(json!({})))
        .await
        .ok(200);
    assert!(gone.get("data").is_none(), "{gone}");
}

#[tokio::test]
async fn every_write_takes_what_it_changes() {
    let api = Api::new().await;
    let created = api.post(PODS, &pod("p")).await.ok(201);
    let path = &format!("{PODS}/p");
    // Without a name or a user agent.
    let mine = fields(&created, "unknown/Update");
    assert_eq!(
        mine["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:image"],
        json!({})
    );
    assert!(mine.get("f:metadata").is_none(), "{mine}");
    let request = Request::patch(path.as_str())
        .header("content-type", "application/strategic-merge-patch+json")
        .header("user-agent", "kubectl/v1.37.0 (linux/amd64)")
        .body(Body::from(
            json!({"metadata": {"labels": {"a": "1"}}}).to_string(),
        ));
    let patched = api.request(request.unwrap()).await.ok(200);
    let labels = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}});
    assert_eq!(fields(&patched, "kubectl/Update"), labels);
    // The status has managers of its own, and cannot take what is not status.
    let mut object = patched.clone();
    object["status"]["phase"] = json!("Running");
    object["spec"]["nodeName"] = json!("n");
    let status = api
        .put(&format!("{path}/status?fieldManager=kubelet"), &object)
        .await
        .ok(200);
    assert_eq!(
        fields(&status, "kubelet/Update/status"),
        json!({"f:status": {"f:phase": {}}})
    );
    // Neither can the main resource take the status.
    let mut object = status.clone();
    object["status"]["phase"] = json!("Failed");
    object["metadata"]["labels"]["a"] = json!("2");
    let updated = api.put(&format!("{path}?fieldManager=y"), &object).await;
    let updated = updated.ok(200);
    assert_eq!(
        fields(&updated, "y/Update"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}}})
    );
    assert_eq!(updated["status"]["phase"], "Running");
    // Who set the label first has lost it, but not the map of labels.
    let map = json!({"f:metadata": {"f:labels": {}}});
    assert_eq!(fields(&updated, "kubectl/Update"), map);
    // A write that changes nothing changes no manager.
    assert_eq!(
        api.put(&format!("{path}?fieldManager=z"), &updated)
            .await
            .ok(200),
        updated
    );
    // A binding is nobody's.
    let bound = api
        .post(
            &format!("{path}/binding"),
            &json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
        )
        .await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    let after = api.get(path).await.ok(200);
    assert_eq!(after["spec"]["nodeName"], "n");
    assert_eq!(managers(&after), managers(&updated));
}

#[tokio::test]
async fn scale_has_a_manager_of_its_own() {
    let api = Api::new().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["spec"]["replicas"] = json!(1);
    api.apply(path, "fieldManager=x", &config).await.ok(201);
    api.patch(
        &format!("{path}/scale?fieldManager=scaler"),
        "merge",
        &json!({"spec": {"replicas": 2}}),
    )
    .await
    .ok(200);
    let scaled = api.get(path).await.ok(200);
    let replicas = json!({"f:spec": {"f:replicas": {}}});
    assert_eq!(fields(&scaled, "scaler/Update/scale"), replicas);
    let applied = fields(&scaled, "x/Apply");
    assert!(applied.pointer("/f:spec/f:replicas").is_none(), "{applied}");
    let message = api
        .apply(path, "fieldManager=x", &config)
        .await
        .fails(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 4}});
    let at = &format!("{path}/scale");
    api.apply(at, "fieldManager=hpa", &scale)
        .await
        .fails(409, "Conflict");
    let scale = api.apply(at, "fieldManager=hpa&force=true", &scale).await;
    assert_eq!(scale.ok(200)["spec"]["replicas"], 4);
    let scaled = api.get(path).await.ok(200);
    assert_eq!(fields(&scaled, "hpa/Apply/scale"), replicas);
    assert!(!names(&scaled).contains(&"scaler/Update/scale".to_owned()));
}

#[tokio::test]
async fn a_status_is_applied_by_itself() {
    let api = Api::new().await;
    api.post(DEPLOYMENTS, &deployment("web")).await.ok(201);
    let status = |status: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "1"}},
            "spec": {"replicas": 9},
            "status": {"conditions": [{"type": "Available", "status": status}]},
        })
    };
    let path = &format!("{DEPLOYMENTS}/web/status");
    let applied = api.apply(path, "fieldManager=c", &status("True")).await;
    let applied = applied.ok(200);
    assert_eq!(applied["spec"]["replicas"], 1);
    assert_eq!(
        fields(&applied, "c/Apply/status"),
        json!({"f:status": {"f:conditions": {
            "k:{\"type\":\"Available\"}": {".": {}, "f:type": {}, "f:status": {}},
        }}})
    );
    let message = api
        .apply(path, "fieldManager=d", &status("False"))
        .await
        .fails(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"c\" with subresource \"status\": .status.conditions[type=\"Available\"].status"
    );
    // A subresource makes no object.
    let none = path.replace("/web/", "/none/");
    let mut config = status("True");
    config["metadata"]["name"] = json!("none");
    api.apply(&none, "fieldManager=c", &config)
        .await
        .fails(404, "NotFound");
}

#[tokio::test]
async fn clients_may_write_managed_fields() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let config = config_map(json!({"a": "1"}));
    let applied = api.apply(path, "fieldManager=x", &config).await.ok(201);
    // Who does not know of managers does not lose them.
    let mut object = applied.clone();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(api.put(path, &object).await.ok(200), applied);
    // Nor does who breaks them.
    object["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(api.put(path, &object).await.ok(200), applied);
    let renamed =
        json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "z"}]);
    let object = api.patch(path, "json", &renamed).await.ok(200);
    assert_eq!(names(&object), ["z/Apply"]);
    // One empty entry forgets all, and nobody is tracked until the next apply.
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let object = api.patch(path, "merge", &reset).await.ok(200);
    assert_eq!(names(&object), [""; 0]);
    let patch = json!({"data": {"b": "1"}});
    let object = api.patch(path, "merge", &patch).await.ok(200);
    assert_eq!(names(&object), [""; 0]);
    let object = api.apply(path, "fieldManager=x", &config).await.ok(200);
    assert_eq!(names(&object), ["x/Apply", "before-first-apply/Update"]);
}

#[tokio::test]
async fn configurations_and_options_that_are_refused() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let good = config_map(json!({"a": "1"}));
    let refused = async |query: &str, config: &Value, code, reason: &str, part: &str| {
        let message = api.apply(path, query, config).await.fails(code, reason);
        assert!(message.contains(part), "{part}: {message}");
    };
    let required = "fieldManager: Required value: is required for apply patch";
    refused("", &good, 422, "Invalid", required).await;
    let long = format!("fieldManager={}", "x".repeat(129));
    refused(&long, &good, 422, "Invalid", "fieldManager: Too long").await;
    let bell = "fieldManager=a%07";
    refused(bell, &good, 422, "Invalid", "invalid character U+0007").await;
    let x = "fieldManager=x";
    let mut other = good.clone();
    other["kind"] = json!("Secret");
    refused(
        x,
        &other,
        400,
        "BadRequest",
        "invalid object type: /v1, Kind=Secret",
    )
    .await;
    let mut managed = good.clone();
    managed["metadata"]["managedFields"] = json!([]);
    refused(
        x,
        &managed,
        400,
        "BadRequest",
        "metadata.managedFields must be nil",
    )
    .await;
    let mut unknown = good.clone();
    unknown["dtaa"] = json!({});
    let ignore = "fieldManager=x&fieldValidation=Ignore";
    refused(
        ignore,
        &unknown,
        400,
        "BadRequest",
        ".dtaa: field not declared in schema",
    )
    .await;
    let mut renamed = good.clone();
    renamed["metadata"]["name"] = json!("b");
    refused(x, &renamed, 400, "BadRequest", "does not match the name").await;
    let mut wrong = good.clone();
    wrong["data"]["a"] = json!(1);
    refused(x, &wrong, 400, "BadRequest", "cannot be decoded").await;
    let mut invalid = good.clone();
    invalid["data"] = json!({"a/b": "1"});
    refused(x, &invalid, 422, "Invalid", "data[a/b]").await;
    let mut claimed = good.clone();
    claimed["metadata"]["uid"] = json!("u");
    refused(x, &claimed, 409, "Conflict", "uid mismatch").await;
    refused(
        x,
        &json!([]),
        400,
        "BadRequest",
        "a configuration is an object",
    )
    .await;
    api.apply(path, x, &good).await.ok(201);
    let mut stale = good.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    refused(x, &stale, 409, "Conflict", "the object has been modified").await;
    // Options of apply are not those of other writes, and names are checked for all.
    let merge = async |query: &str| {
        let path = format!("{path}?{query}");
        api.patch(&path, "merge", &json!({}))
            .await
            .fails(422, "Invalid")
    };
    let message = merge("force=true").await;
    assert!(
        message.contains("may not be specified for non-apply patch"),
        "{message}"
    );
    assert!(merge(&long).await.contains("PatchOptions.meta.k8s.io"));
    let message = api.post(&format!("{CONFIG_MAPS}?{long}"), &good).await;
    assert!(message.fails(422, "Invalid").contains("CreateOptions"));
    let duplicate = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 1, "protocol": "TCP"}]},
    });
    let message = api
        .apply("/api/v1/namespaces/default/services/s", x, &duplicate)
        .await
        .fails(400, "BadRequest");
    assert_eq!(
        message,
        "failed to create typed patch object (default/s; v1, Kind=Service): .spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]"
    );
}

#[tokio::test]
async fn an_event_has_managers_in_both_its_versions() {
    let api = Api::new().await;
    let core = "/api/v1/namespaces/default/events";
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "type": "Normal", "reason": "R",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "eventTime": "2001-01-01T00:00:00.000000Z", "action": "A", "reportingComponent": "c.d/e", "reportingInstance": "i",
    });
    api.post(&format!("{core}?fieldManager=old"), &event)
        .await
        .ok(201);
    let view = "/apis/events.k8s.io/v1/namespaces/default/events/e?fieldManager=new";
    let series = json!({"series": {"count": 2, "lastObservedTime": "2001-01-01T00:00:00.000000Z"}});
    let patched = api.patch(view, "merge", &series).await.ok(200);
    assert_eq!(names(&patched), ["new/Update", "old/Update"]);
    assert!(fields(&patched, "new/Update").get("f:series").is_some());
    assert!(
        fields(&patched, "old/Update")
            .get("f:involvedObject")
            .is_some()
    );
    // Who knows it as one version takes from who knows it as the other.
    let patch = json!({"metadata": {"labels": {"a": "1"}}});
    api.patch(view, "merge", &patch).await.ok(200);
    let patch = json!({"metadata": {"labels": {"a": "2"}}});
    let taken = api
        .patch(&format!("{core}/e?fieldManager=old"), "merge", &patch)
        .await;
    let taken = taken.ok(200);
    assert!(
        fields(&taken, "new/Update")
            .pointer("/f:metadata/f:labels/f:a")
            .is_none()
    );
    assert!(
        fields(&taken, "old/Update")
            .pointer("/f:metadata/f:labels/f:a")
            .is_some()
    );
}

#[tokio::test]
async fn creating_by_apply_is_creating() {
    let api = Api::new().await;
    let node = api.user(Some(coracle_apiserver::UserInfo::new("nobody", &[])));
    let config = config_map(json!({"a": "1"}));
    node.apply(&format!("{CONFIG_MAPS}/a"), "fieldManager=x", &config)
        .await
        .fails(403, "Forbidden");
    // Admission sees a creation: the namespace must exist.
    api.apply(
        "/api/v1/namespaces/none/configmaps/a",
        "fieldManager=x",
        &config,
    )
    .await
    .fails(404, "NotFound");
    let dry = api
        .apply(
            &format!("{CONFIG_MAPS}/a"),
            "fieldManager=x&dryRun=All",
            &config,
        )
        .await
        .ok(201);
    assert_eq!(names(&dry), ["x/Apply"]);
    api.get(&format!("{CONFIG_MAPS}/a"))
        .await
        .fails(404, "NotFound");
}

#[tokio::test]
async fn ports_are_told_apart_by_their_protocol_too() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/default/services/s";
    let service = |ports: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"selector": {"a": "b"}, "ports": ports},
        })
    };
    let tcp = json!([{"name": "dns-tcp", "port": 53}]);
    api.apply(path, "fieldManager=x", &service(tcp))
        .await
        .ok(201);
    let udp = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
    let both = api
        .apply(path, "fieldManager=y", &service(udp))
        .await
        .ok(200);
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(
        fields(&both, "x/Apply")["f:spec"]["f:ports"],
        json!({"k:{\"port\":53,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}})
    );
    let gone = api.apply(path, "fieldManager=y", &service(json!([]))).await;
    assert_eq!(gone.ok(200)["spec"]["ports"][0]["name"], "dns-tcp");
}
