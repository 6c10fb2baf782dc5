//! Server-side apply.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, CONFIG_MAPS, deployment};

pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

impl Api {
    /// Applies; the query names the manager and more.
    pub(crate) async fn apply(&self, path: &str, query: &str, config: &Value) -> Answer {
        let path = format!("{path}?{query}");
        self.raw(Method::PATCH, &path, APPLY, config.to_string())
            .await
    }
}

pub(crate) fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

/// The managers as `manager/operation[/subresource]` with their fields.
pub(crate) fn managers(object: &Value) -> Vec<(String, Value)> {
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

pub(crate) fn names(object: &Value) -> Vec<String> {
    managers(object).into_iter().map(|(who, _)| who).collect()
}

pub(crate) fn fields(object: &Value, who: &str) -> Value {
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
async fn what_is_applied_again_after_another_write_is_no_write() {
    let api = Api::new().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    // Numbers have another order than their texts.
    config["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 80}, {"containerPort": 443}]);
    config["metadata"]["finalizers"] = json!(["example.com/b", "example.com/a"]);
    config["metadata"]["annotations"] = json!({"example.com/a": "\"fieldsV1\":null"});
    let x = "fieldManager=x";
    api.apply(path, x, &config).await.ok(201);
    let label = json!({"metadata": {"labels": {"u": "1"}}}).to_string();
    let merge = "application/merge-patch+json";
    let written = api
        .raw(
            Method::PATCH,
            &format!("{path}?fieldManager=u"),
            merge,
            label,
        )
        .await
        .ok(200);
    assert_eq!(names(&written), ["x/Apply", "u/Update"]);
    assert_eq!(api.apply(path, x, &config).await.ok(200), written);
    assert_eq!(api.get(path).await.ok(200), written);
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
    let mut unnamed = good.clone();
    unnamed["metadata"] = json!({});
    refused(x, &unnamed, 400, "BadRequest", "name must be provided").await;
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
    // Where there is no object a version is none of it.
    let mut stale = good.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    api.apply(path, x, &stale).await.ok(201);
    refused(x, &stale, 409, "Conflict", "the object has been modified").await;
    refused(x, &claimed, 422, "Invalid", "metadata.uid: Invalid value").await;
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
