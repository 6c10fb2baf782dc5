//! The audit log.

use std::path::Path;

use coracle_apiserver::audit::{Audit, AuditLog, LogOptions, Policy};
use coracle_apiserver::{Config, UserInfo};
use coracle_store::MemoryStore;
use http::{Method, Request};
use serde_json::{Value, json};

use super::Running;
use crate::harness::{Api, CONFIG_MAPS};
use crate::kinds::tokens::{ACCOUNTS, account, part};

async fn audited(log: &Path, rules: &str) -> Running {
    audited_with(log, rules, |_| {}).await
}

async fn audited_with(log: &Path, rules: &str, change: impl FnOnce(&mut Config)) -> Running {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
    let policy = Policy::parse("policy.yaml", &text).unwrap();
    let log = AuditLog::open(LogOptions {
        path: log.to_owned(),
        max_age: 0,
        max_backups: 0,
        max_size: 0,
    });
    let audit = Audit::new(policy, log.unwrap());
    let api = Api::over(MemoryStore::new(), |config| {
        config.audit = Some(audit);
        change(config);
    });
    Running::start(api.await).await
}

/// The events of the log, which is whole when the server has ended.
async fn events(running: Running, log: &Path) -> Vec<Value> {
    running.stop().await;
    let text = std::fs::read_to_string(log).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn levels_say_how_much_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let rules = "omitStages: [RequestReceived]\nrules:\n\
        - {level: Request, verbs: [patch], omitManagedFields: true}\n\
        - {level: RequestResponse, verbs: [create], omitManagedFields: true, resources: [{resources: [configmaps]}]}\n\
        - {level: Metadata, resources: [{resources: [configmaps]}]}\n\
        - {level: Metadata, nonResourceURLs: ['/version']}\n";
    let running = audited(&log, rules).await;
    let api = &running.api;
    let request = Request::post(format!("{CONFIG_MAPS}?fieldManager=m"))
        .header("content-type", "application/json")
        .header("audit-id", "of-mine")
        .header("user-agent", "test/1")
        .header("x-forwarded-for", "192.0.2.7")
        .body(
            json!({"metadata": {"name": "a"}, "data": {"k": "v"}})
                .to_string()
                .into(),
        )
        .unwrap();
    let answer = api.request(request).await;
    answer.ok(201);
    assert_eq!(answer.headers["audit-id"], "of-mine");
    api.get(&format!("{CONFIG_MAPS}/a")).await.ok(200);
    api.patch(
        &format!("{CONFIG_MAPS}/a"),
        "merge",
        &json!({"data": {"k": "w"}}),
    )
    .await
    .ok(200);
    api.get(&format!("{CONFIG_MAPS}/none"))
        .await
        .fails(404, "NotFound");
    api.get("/api/v1/pods").await.ok(200);
    let version = api.get("/version").await;
    let jane = api.user(Some(UserInfo::new("jane", &["people"])));
    jane.get(CONFIG_MAPS).await.fails(403, "Forbidden");

    let events = events(running, &log).await;
    let stages: Vec<&str> = events
        .iter()
        .map(|e| e["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["ResponseComplete"; 6]);
    let [create, get, patch, missing, path, denied] = &events[..] else {
        panic!("six events");
    };

    assert_eq!(create["kind"], "Event");
    assert_eq!(create["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(create["level"], "RequestResponse");
    assert_eq!(create["auditID"], "of-mine");
    assert_eq!(create["verb"], "create");
    assert_eq!(
        create["requestURI"],
        format!("{CONFIG_MAPS}?fieldManager=m")
    );
    assert_eq!(create["user"]["username"], "admin");
    assert_eq!(
        create["user"]["groups"],
        json!(["system:masters", "system:authenticated"])
    );
    assert_eq!(create["userAgent"], "test/1");
    assert_eq!(create["sourceIPs"], json!(["192.0.2.7"]));
    assert_eq!(
        create["objectRef"],
        json!({
            "resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1",
        })
    );
    assert_eq!(
        create["responseStatus"],
        json!({"metadata": {}, "code": 201})
    );
    assert_eq!(create["requestObject"]["data"]["k"], "v");
    assert_eq!(create["responseObject"]["metadata"]["name"], "a");
    assert!(
        create["responseObject"]["metadata"]
            .get("managedFields")
            .is_none()
    );
    assert_eq!(
        create["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    for time in ["requestReceivedTimestamp", "stageTimestamp"] {
        let time = create[time].as_str().unwrap();
        assert_eq!(time.len(), "2026-01-01T00:00:00.000000Z".len(), "{time}");
    }

    assert_eq!(get["level"], "Metadata");
    assert!(get.get("responseObject").is_none());
    assert_eq!(patch["requestObject"], json!({"data": {"k": "w"}}));
    assert!(patch.get("responseObject").is_none());
    assert_eq!(missing["responseStatus"]["reason"], "NotFound");
    assert_eq!(missing["responseStatus"]["code"], 404);
    assert_eq!(path["requestURI"], "/version");
    assert_eq!(
        path["auditID"],
        version.headers["audit-id"].to_str().unwrap()
    );
    assert!(path.get("objectRef").is_none());
    assert_eq!(denied["user"]["username"], "jane");
    assert_eq!(
        denied["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
}

#[tokio::test]
async fn objects_are_named_as_their_senders_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let rules = "omitStages: [RequestReceived]\nrules: [{level: Metadata, resources: [{resources: [configmaps]}]}]\n";
    let running = audited(&log, rules).await;
    let api = &running.api;
    let body = json!({"metadata": {"name": "a"}});
    let made = api.post(CONFIG_MAPS, &body).await.ok(201);
    let generated = json!({"metadata": {"generateName": "b-"}});
    api.post(CONFIG_MAPS, &generated).await.ok(201);
    let path = format!("{CONFIG_MAPS}/a");
    api.put(&path, &made).await.ok(200);
    let patch = json!({"metadata": {"uid": made["metadata"]["uid"]}});
    api.patch(&path, "merge", &patch).await.ok(200);
    api.get(&path).await.ok(200);
    let selected = format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Da");
    api.get(&selected).await.ok(200);
    api.delete(&selected).await.ok(200);
    let told: Vec<Value> = events(running, &log)
        .await
        .into_iter()
        .map(|event| {
            assert!(event.get("requestObject").is_none());
            let mut reference = event["objectRef"].clone();
            for same in ["resource", "namespace", "apiVersion"] {
                reference.as_object_mut().unwrap().remove(same);
            }
            reference
        })
        .collect();
    let (uid, version) = (
        &made["metadata"]["uid"],
        &made["metadata"]["resourceVersion"],
    );
    let want = [
        json!({"name": "a"}),
        json!({}),
        json!({"name": "a", "uid": uid, "resourceVersion": version}),
        json!({"name": "a"}),
        json!({"name": "a"}),
        // A list is about the object that it selects; what is deleted of a collection is not.
        json!({"name": "a"}),
        json!({}),
    ];
    assert_eq!(told, want);
}

#[tokio::test]
async fn what_lasts_is_told_of_when_it_begins_and_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let running = audited(
        &log,
        "rules: [{level: RequestResponse, resources: [{resources: [configmaps]}]}]\n",
    )
    .await;
    let path = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1");
    let mut watch = running.api.watch(&path).await;
    while watch.event().await.is_some() {}
    drop(watch);
    // One whose sender is not known.
    running
        .api
        .user(None)
        .get(CONFIG_MAPS)
        .await
        .fails(401, "Unauthorized");
    let events = events(running, &log).await;
    let told: Vec<_> = events
        .iter()
        .map(|e| {
            (
                e["stage"].as_str().unwrap(),
                e["responseStatus"]["code"].as_u64(),
            )
        })
        .collect();
    let want = [
        ("RequestReceived", None),
        ("ResponseStarted", Some(200)),
        ("ResponseComplete", Some(200)),
        ("ResponseStarted", Some(401)),
    ];
    assert_eq!(told, want);
    assert!(events.iter().all(|e| e.get("responseObject").is_none()));
}

#[tokio::test]
async fn who_audits_is_told_which_token_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let rules = "omitStages: [RequestReceived]\nrules: [{level: Metadata, resources: [{resources: [serviceaccounts/token]}]}]\n";
    let running = audited(&log, rules).await;
    let api = &running.api;
    account(api, "robot").await;
    let path = format!("{ACCOUNTS}/robot/token");
    let other = json!({"metadata": {"uid": "another"}});
    let mut ids = Vec::new();
    for body in [json!({}), other] {
        let answer = api.post(&path, &body).await.ok(201);
        let claims = part(answer["status"]["token"].as_str().unwrap(), 1);
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    let events = events(running, &log).await;
    assert_eq!(events.len(), 2);
    for (event, id) in events.iter().zip(ids) {
        let told = &event["annotations"]["authentication.kubernetes.io/issued-credential-id"];
        assert_eq!(*told, format!("JTI={id}"));
    }
    let mismatch = "authentication.k8s.io/token-request-uid-mismatch";
    assert_eq!(events[0]["annotations"].get(mismatch), None);
    let told = events[1]["annotations"][mismatch].as_str().unwrap();
    assert!(told.contains("(another) does not match"), "{told}");
}

#[tokio::test]
async fn who_audits_is_told_of_tokens_that_secrets_hold() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let rules = "rules: [{level: Metadata, nonResourceURLs: [/version]}]\n";
    let running = audited(&log, rules).await;
    let api = &running.api;
    let robot = account(api, "robot").await;
    let uid = robot["metadata"]["uid"].as_str().unwrap();
    let token = api.server.secret_token("default", ("robot", uid), "held");
    let token = token.unwrap();
    let secret = json!({
        "metadata": {"name": "held", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token", "stringData": {"token": token},
    });
    let secrets = "/api/v1/namespaces/default/secrets";
    api.post(secrets, &secret).await.ok(201);
    let none = json!({});
    let known = api.with_token(&token, Method::GET, "/version", &none);
    known.await.ok(200);
    api.get("/version").await.ok(200);
    let events = events(running, &log).await;
    let told: Vec<_> = events
        .iter()
        .map(|event| event["annotations"].get("authentication.k8s.io/legacy-token-manual-secret"))
        .collect();
    let held = json!("held");
    assert_eq!(told, [Some(&held), Some(&held), None, None]);
}

async fn fails() -> &'static str {
    panic!("as a fault in a handler would")
}

#[tokio::test]
async fn a_failure_of_the_server_is_a_stage_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let rules = "rules: [{level: Metadata, nonResourceURLs: [/fails]}]\n";
    let running = audited_with(&log, rules, |config| {
        config.extra = axum::Router::new().route("/fails", axum::routing::get(fails));
    });
    let running = running.await;
    running.api.get("/fails").await.fails(500, "InternalError");
    let events = events(running, &log).await;
    let stages: Vec<_> = events
        .iter()
        .map(|e| e["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["RequestReceived", "Panic"]);
    assert_eq!(events[1]["responseStatus"]["code"], 500);
}

#[tokio::test]
async fn objects_are_told_in_json_whatever_they_came_in() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit.log");
    let running = audited(&log, "omitStages: [RequestReceived]\nrules: [{level: RequestResponse, resources: [{resources: [configmaps]}]}]\n").await;
    let api = &running.api;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {k: v}\n";
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", "application/yaml")
        .header("accept", "application/vnd.kubernetes.protobuf")
        .body(yaml.into())
        .unwrap();
    let answer = api.send(request).await;
    assert_eq!(answer.status(), 201);
    drop(http_body_util::BodyExt::collect(answer.into_body()).await);
    for i in 0..200 {
        let body = json!({"metadata": {"name": format!("c{i}")}, "data": {"a": "x".repeat(1000)}});
        api.post(CONFIG_MAPS, &body).await.ok(201);
    }
    // One that is compressed on its way.
    let request = Request::get(CONFIG_MAPS).header("accept-encoding", "gzip");
    let answer = api
        .send(request.body(axum::body::Body::empty()).unwrap())
        .await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    drop(http_body_util::BodyExt::collect(answer.into_body()).await);
    let events = events(running, &log).await;
    assert_eq!(events[0]["requestObject"]["metadata"]["name"], "y");
    assert_eq!(events[0]["responseObject"]["data"]["k"], "v");
    let list = &events.last().unwrap()["responseObject"];
    assert_eq!(list["items"].as_array().unwrap().len(), 201);
}
