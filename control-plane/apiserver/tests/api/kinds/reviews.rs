//! Questions about who somebody is and what they may do.

use coracle_apiserver::UserInfo;
use serde_json::{Value, json};

use crate::harness::Api;

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

/// What `kubectl auth whoami` asks.
#[tokio::test]
async fn everybody_is_told_who_they_are() {
    let api = Api::new().await;
    let path = format!("{AUTHENTICATION}/selfsubjectreviews");
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "status": {}});
    let mut user = UserInfo::new("admin", &["system:masters"]);
    user.uid = "7".to_owned();
    user.extra.insert("scopes".to_owned(), vec!["a".to_owned()]);
    let answer = api.user(Some(user)).post(&path, &review).await.ok(201);
    let want = json!({
        "username": "admin", "uid": "7", "groups": ["system:masters", "system:authenticated"],
        "extra": {"scopes": ["a"]},
    });
    assert_eq!(answer["status"]["userInfo"], want);
    assert_eq!(answer["kind"], "SelfSubjectReview");
    assert!(answer["metadata"]["creationTimestamp"].is_string());
}

async fn allowed(api: &Api, path: &str, spec: &Value) -> Value {
    let answer = api.post(path, &json!({"spec": spec})).await.ok(201);
    assert_eq!(&answer["spec"], spec);
    answer["status"]["allowed"].clone()
}

/// What `kubectl auth can-i` asks, and what others ask about others.
#[tokio::test]
async fn answers_are_those_of_the_authorizer() {
    let api = Api::new().await;
    let node = api.user(Some(UserInfo::new("system:node:a", &["system:nodes"])));
    let own = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let pods = json!({"verb": "list", "resource": "pods", "namespace": "default"});
    for who in [&api, &node] {
        let spec = json!({"resourceAttributes": pods});
        assert_eq!(allowed(who, &own, &spec).await, true);
    }
    let of_others = format!("{AUTHORIZATION}/subjectaccessreviews");
    let local = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let table = [
        (json!({"user": "jane"}), false),
        (json!({"user": "jane", "groups": ["system:masters"]}), true),
        (json!({"groups": ["system:nodes"]}), true),
    ];
    for (mut spec, want) in table {
        spec["resourceAttributes"] = pods.clone();
        assert_eq!(allowed(&api, &of_others, &spec).await, want, "{spec}");
        assert_eq!(allowed(&api, &local, &spec).await, want, "{spec}");
    }
    for (path, verb, want) in [
        ("/version", "get", true),
        ("/version", "post", false),
        ("/metrics", "get", false),
    ] {
        let spec = json!({"user": "jane", "nonResourceAttributes": {"path": path, "verb": verb}});
        assert_eq!(allowed(&api, &of_others, &spec).await, want, "{spec}");
    }
}

#[tokio::test]
async fn rules_are_those_of_the_authorizer() {
    let api = Api::new().await;
    let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let spec = json!({"spec": {"namespace": "default"}});
    let status = api.post(&path, &spec).await.ok(201)["status"].clone();
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    assert_eq!(status["resourceRules"], all);
    let everything = json!({"nonResourceURLs": ["*"], "verbs": ["*"]});
    assert_eq!(status["nonResourceRules"][0], everything);
    assert_eq!(status["incomplete"], false);
    let message = api
        .post(&path, &json!({"spec": {}}))
        .await
        .fails(400, "BadRequest");
    assert_eq!(message, "no namespace on request");
}

#[tokio::test]
async fn questions_are_asked_and_not_kept() {
    let api = Api::new().await;
    let group = api.get(AUTHORIZATION).await.ok(200);
    for resource in group["resources"].as_array().unwrap() {
        assert_eq!(resource["verbs"], json!(["create"]), "{resource}");
    }
    for path in [
        format!("{AUTHORIZATION}/subjectaccessreviews"),
        format!("{AUTHENTICATION}/selfsubjectreviews"),
    ] {
        api.get(&path).await.fails(405, "MethodNotAllowed");
        let named = format!("{path}/a");
        api.delete(&named).await.fails(405, "MethodNotAllowed");
    }
    let everywhere = format!("{AUTHORIZATION}/localsubjectaccessreviews");
    let spec = json!({"spec": {"user": "jane", "resourceAttributes": {"namespace": "b"}}});
    api.post(&everywhere, &spec)
        .await
        .fails(405, "MethodNotAllowed");
    let local = format!("{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews");
    let message = api.post(&local, &spec).await.fails(422, "Invalid");
    assert!(
        message.contains("must match metadata.namespace"),
        "{message}"
    );
    let elsewhere = json!({"metadata": {"namespace": "b"}, "spec": {"user": "jane"}});
    api.post(&local, &elsewhere).await.fails(400, "BadRequest");
    let document = api
        .get("/openapi/v3/apis/authorization.k8s.io/v1")
        .await
        .ok(200);
    let asked = &document["paths"]["/apis/authorization.k8s.io/v1/subjectaccessreviews"];
    assert!(asked.get("post").is_some() && asked.get("get").is_none());
}
