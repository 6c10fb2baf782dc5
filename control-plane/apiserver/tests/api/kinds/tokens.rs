//! Tokens of service accounts: made, believed, and bound to what they end with.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_apiserver::UserInfo;
use coracle_store::MemoryStore;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, ISSUER, PODS, pod};

pub(crate) const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Makes an account.
pub(crate) async fn account(api: &Api, name: &str) -> Value {
    let body = json!({"metadata": {"name": name}});
    api.post(ACCOUNTS, &body).await.ok(201)
}

/// Makes a token for an account.
async fn request(api: &Api, account: &str, spec: &Value) -> Value {
    let path = format!("{ACCOUNTS}/{account}/token");
    api.post(&path, &json!({"spec": spec})).await.ok(201)
}

pub(crate) async fn token(api: &Api, account: &str, spec: &Value) -> String {
    let answer = request(api, account, spec).await;
    answer["status"]["token"].as_str().unwrap().to_owned()
}

pub(crate) async fn review(api: &Api, token: &str, audiences: &[&str]) -> Value {
    let spec = json!({"token": token, "audiences": audiences});
    let answer = api.post(TOKEN_REVIEWS, &json!({"spec": spec})).await;
    answer.ok(201)["status"].clone()
}

/// Who the server takes the bearer for; 401 is nobody.
pub(crate) async fn whoami(api: &Api, token: &str) -> Option<Value> {
    let answer = api.with_token(token, Method::POST, SELF, &json!({})).await;
    match answer.code {
        401 => {
            answer.fails(401, "Unauthorized");
            None
        }
        _ => Some(answer.ok(201)["status"]["userInfo"].clone()),
    }
}

pub(crate) fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn reference(object: &Value) -> Value {
    json!({"name": object["metadata"]["name"], "uid": object["metadata"]["uid"]})
}

/// A Pod of an account, on a node.
async fn pod_of(api: &Api, name: &str, account: &str, node: &str) -> Value {
    let mut body = pod(name);
    body["spec"]["serviceAccountName"] = json!(account);
    if !node.is_empty() {
        body["spec"]["nodeName"] = json!(node);
    }
    api.post(PODS, &body).await.ok(201)
}

fn bound_to(kind: &str, object: &Value) -> Value {
    let mut bound = reference(object);
    bound["apiVersion"] = json!("v1");
    bound["kind"] = json!(kind);
    json!({"boundObjectRef": bound})
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_is_believed() {
    let api = Api::new().await;
    let made = account(&api, "robot").await;
    let answer = request(&api, "robot", &json!({})).await;
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(answer["metadata"]["name"], "robot");
    assert_eq!(answer["metadata"]["namespace"], "default");
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert!(answer["status"]["expirationTimestamp"].is_string());

    let token = answer["status"]["token"].as_str().unwrap();
    let claims = part(token, 1);
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(claims["aud"], json!([ISSUER]));
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    let time = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!(time("exp") - time("iat"), 3600);
    assert_eq!(time("nbf"), time("iat"));
    let about = &claims["kubernetes.io"];
    assert_eq!(about["serviceaccount"], reference(&made));
    assert_eq!(about["namespace"], "default");
    for bound in ["pod", "secret", "node", "warnafter"] {
        assert_eq!(about.get(bound), None);
    }
    let header = part(token, 0);
    let names: BTreeSet<&String> = header.as_object().unwrap().keys().collect();
    assert!(names.iter().copied().eq(["alg", "kid"]), "{header}");

    let user = whoami(&api, token).await.unwrap();
    let want = json!({
        "username": "system:serviceaccount:default:robot",
        "uid": made["metadata"]["uid"],
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": [format!("JTI={}", claims["jti"].as_str().unwrap())]},
    });
    assert_eq!(user, want);
    let status = review(&api, token, &[]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"], want);
    assert_eq!(status["audiences"], json!([ISSUER]));
    assert_eq!(status.get("error"), None);
}

#[tokio::test]
async fn what_is_asked_for_is_checked() {
    let api = Api::new().await;
    let other = account(&api, "other").await;
    account(&api, "robot").await;
    let path = format!("{ACCOUNTS}/robot/token");
    let pod = pod_of(&api, "p", "other", "").await;
    let mut stale = bound_to("Pod", &pod);
    stale["boundObjectRef"]["uid"] = json!("another");
    let foreign =
        json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
    let none = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}});
    let table = [
        (
            json!({"expirationSeconds": 599}),
            422,
            "Invalid",
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"expirationSeconds": (1_i64 << 32) + 1}),
            422,
            "Invalid",
            "may not specify a duration larger than 2^32 seconds",
        ),
        (
            foreign,
            400,
            "BadRequest",
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
        (none, 404, "NotFound", "pods \"none\" not found"),
        (
            bound_to("Pod", &pod),
            400,
            "BadRequest",
            "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.",
        ),
    ];
    for (spec, code, reason, part) in table {
        let answer = api.post(&path, &json!({"spec": spec})).await;
        let message = answer.fails(code, reason);
        assert!(message.contains(part), "{message}");
    }
    let of_other = format!("{ACCOUNTS}/other/token");
    let answer = api.post(&of_other, &json!({"spec": stale})).await;
    let message = answer.fails(409, "Conflict");
    assert!(
        message.contains("does not match the UID in record"),
        "{message}"
    );
    let named = json!({"metadata": {"name": "robot", "namespace": "elsewhere"}, "spec": {}});
    let message = api.post(&of_other, &named).await.fails(422, "Invalid");
    for field in ["name", "namespace"] {
        let part = format!("must match the service account {field} if specified");
        assert!(message.contains(&part), "{message}");
    }
    let nobody = format!("{ACCOUNTS}/nobody/token");
    let message = api.post(&nobody, &json!({})).await.fails(404, "NotFound");
    assert_eq!(message, "serviceaccounts \"nobody\" not found");
    assert_eq!(other["kind"], "ServiceAccount");
    api.get(&path).await.fails(405, "MethodNotAllowed");
}

/// A token ends with its Pod, its Secret or its node, and with its account; another one of that
/// name does not revive it.
#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let api = Api::new().await;
    account(&api, "robot").await;
    let node = json!({"metadata": {"name": "n"}});
    let node = api.post("/api/v1/nodes", &node).await.ok(201);
    let pod = pod_of(&api, "p", "robot", "n").await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "s"}});
    let secret = api.post(secrets, &secret).await.ok(201);
    let now = json!({"gracePeriodSeconds": 0});

    let of_pod = token(&api, "robot", &bound_to("Pod", &pod)).await;
    let of_secret = token(&api, "robot", &bound_to("Secret", &secret)).await;
    let of_node = token(&api, "robot", &bound_to("Node", &node)).await;
    let of_account = token(&api, "robot", &json!({})).await;
    let about = part(&of_pod, 1)["kubernetes.io"].clone();
    assert_eq!(about["pod"], reference(&pod));
    assert_eq!(about["node"], reference(&node));
    let extra = whoami(&api, &of_pod).await.unwrap()["extra"].clone();
    for (kind, object) in [("pod", &pod), ("node", &node)] {
        for field in ["name", "uid"] {
            let key = format!("authentication.kubernetes.io/{kind}-{field}");
            assert_eq!(extra[&key], json!([object["metadata"][field]]), "{key}");
        }
    }

    let path = format!("{PODS}/p");
    for (token, path, object) in [
        (&of_pod, path.as_str(), Some((PODS, pod.clone()))),
        (&of_secret, "/api/v1/namespaces/default/secrets/s", None),
        (&of_node, "/api/v1/nodes/n", None),
    ] {
        assert!(whoami(&api, token).await.is_some(), "{path}");
        api.delete_with(path, &now).await.ok(200);
        assert_eq!(whoami(&api, token).await, None, "{path}");
        let status = review(&api, token, &[]).await;
        assert_eq!(status.get("authenticated"), None);
        let error = status["error"].as_str().unwrap();
        assert!(error.contains("has been invalidated"), "{error}");
        if let Some((collection, object)) = object {
            let name = object["metadata"]["name"].as_str().unwrap();
            pod_of(&api, name, "robot", "").await;
            assert_eq!(whoami(&api, token).await, None, "{collection}");
            let error = review(&api, token, &[]).await["error"].clone();
            let error = error.as_str().unwrap();
            assert!(error.contains("pod UID ("), "{error}");
        }
    }
    let path = format!("{ACCOUNTS}/robot");
    assert!(whoami(&api, &of_account).await.is_some());
    api.delete(&path).await.ok(200);
    assert_eq!(whoami(&api, &of_account).await, None);
    account(&api, "robot").await;
    let error = review(&api, &of_account, &[]).await["error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains("service account UID ("), "{error}");
}

/// A Pod that is being deleted keeps its token for its grace period, to say good bye with.
#[tokio::test]
async fn a_pod_keeps_its_token_while_it_ends() {
    let api = Api::new().await;
    account(&api, "robot").await;
    let pod = pod_of(&api, "p", "robot", "n").await;
    let token = token(&api, "robot", &bound_to("Pod", &pod)).await;
    api.delete(&format!("{PODS}/p")).await.ok(200);
    assert!(whoami(&api, &token).await.is_some());
}

#[tokio::test]
async fn a_token_is_for_its_audiences() {
    let api = Api::new().await;
    account(&api, "robot").await;
    let spec = json!({"audiences": ["vault", "registry"]});
    let vault = token(&api, "robot", &spec).await;
    assert_eq!(whoami(&api, &vault).await, None);
    let status = review(&api, &vault, &["other", "vault"]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    for audiences in [&[][..], &["other"]] {
        let status = review(&api, &vault, audiences).await;
        assert_eq!(status.get("authenticated"), None);
        let error = status["error"].as_str().unwrap();
        assert!(
            error.contains("is invalid for the target audiences"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_no_token_of_the_cluster_is_nobodys() {
    let api = Api::new().await;
    let stranger = Api::new().await;
    account(&stranger, "robot").await;
    let foreign = token(&stranger, "robot", &json!({})).await;
    for bad in ["x", "a.b.c", &foreign, &format!("{foreign}x")] {
        assert_eq!(whoami(&api, bad).await, None, "{bad}");
        let status = review(&api, bad, &[]).await;
        let error = status["error"].as_str().unwrap();
        assert!(error.contains("invalid bearer token"), "{error}");
        assert_eq!(status.get("user"), None);
    }
    let none = json!({"spec": {"token": ""}});
    let message = api
        .post(TOKEN_REVIEWS, &none)
        .await
        .fails(400, "BadRequest");
    assert_eq!(
        message,
        "token is required for TokenReview in authentication"
    );
}

/// Who has a certificate is whom it names, whatever token comes with it.
#[tokio::test]
async fn a_certificate_goes_before_a_token() {
    let api = Api::new().await;
    let request = http::Request::post(SELF)
        .header("authorization", "Bearer no-token")
        .body(axum::body::Body::from("{}"))
        .unwrap();
    let user = api.request(request).await.ok(201)["status"]["userInfo"].clone();
    assert_eq!(user["username"], "admin");
}

#[tokio::test]
async fn a_server_without_keys_makes_no_tokens() {
    let api = Api::over(MemoryStore::new(), |config| config.tokens = None).await;
    account(&api, "robot").await;
    let path = format!("{ACCOUNTS}/robot/token");
    api.post(&path, &json!({})).await.fails(404, "NotFound");
    assert_eq!(whoami(&api, "a.b.c").await, None);
    assert_eq!(review(&api, "a.b.c", &[]).await, json!({}));
    api.get("/openid/v1/jwks").await.fails(404, "NotFound");
}

/// What service accounts may without a role: look around, and ask who they are.
#[tokio::test]
async fn accounts_may_look_around() {
    let api = Api::new().await;
    account(&api, "robot").await;
    let token = token(&api, "robot", &json!({})).await;
    let get = async |path: &str| {
        let answer = api.with_token(&token, Method::GET, path, &json!({})).await;
        answer.code
    };
    for path in [
        "/apis",
        "/version",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
    ] {
        assert_eq!(get(path).await, 200, "{path}");
    }
    assert_eq!(get(CONFIG_MAPS).await, 403);
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let spec = json!({"spec": {"namespace": "default"}});
    let answer = api.with_token(&token, Method::POST, rules, &spec).await;
    let status = answer.ok(201)["status"].clone();
    let own = json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]});
    assert_eq!(status["resourceRules"][0], own);
    let answer = api
        .with_token(
            &token,
            Method::POST,
            TOKEN_REVIEWS,
            &json!({"spec": {"token": "x"}}),
        )
        .await;
    answer.fails(403, "Forbidden");
}

/// A node has tokens of the Pods that are bound to it, and of no others.
#[tokio::test]
async fn nodes_get_tokens_of_their_pods() {
    let api = Api::new().await;
    account(&api, "robot").await;
    let mut mine = pod("mine");
    mine["spec"]["serviceAccountName"] = json!("robot");
    mine["spec"]["nodeName"] = json!("a");
    let sources = json!([{"serviceAccountToken": {"path": "t"}}]);
    mine["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": sources}}]);
    let mine = api.post(PODS, &mine).await.ok(201);
    let other = pod_of(&api, "other", "robot", "b").await;
    let path = format!("{ACCOUNTS}/robot/token");
    let node = api.user(Some(UserInfo::new("system:node:a", &["system:nodes"])));
    let ask = |spec: Value| json!({ "spec": spec });
    node.post(&path, &ask(bound_to("Pod", &mine))).await.ok(201);
    for (spec, part) in [
        (bound_to("Pod", &other), "scheduled on a different node"),
        (json!({}), "not bound to a pod"),
    ] {
        let message = node.post(&path, &ask(spec)).await.fails(403, "Forbidden");
        assert!(message.contains(part), "{message}");
    }
    let mut vault = bound_to("Pod", &mine);
    vault["audiences"] = json!(["vault"]);
    let message = node.post(&path, &ask(vault)).await.fails(403, "Forbidden");
    assert!(
        message.contains("not found in pod spec volume"),
        "{message}"
    );
}

/// Go clients ask in protobuf.
#[tokio::test]
async fn the_subresource_is_discovered() {
    let api = Api::new().await;
    let resources = api.get("/api/v1").await.ok(200)["resources"].clone();
    let token = resources
        .as_array()
        .unwrap()
        .iter()
        .find(|resource| resource["name"] == "serviceaccounts/token")
        .unwrap();
    assert_eq!(token["kind"], "TokenRequest");
    assert_eq!(token["group"], "authentication.k8s.io");
    assert_eq!(token["verbs"], json!(["create"]));
}

#[tokio::test]
async fn the_issuer_is_described() {
    let api = Api::new().await;
    let answer = api.get("/.well-known/openid-configuration").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "public, max-age=3600");
    let want = json!({
        "issuer": ISSUER,
        "jwks_uri": "https://192.0.2.1:6443/openid/v1/jwks",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    assert_eq!(answer.ok(200), want);
    let answer = api.get("/openid/v1/jwks").await;
    assert_eq!(answer.headers["content-type"], "application/jwk-set+json");
    let keys = answer.ok(200)["keys"].clone();
    let key = &keys[0];
    assert_eq!(keys.as_array().unwrap().len(), 1);
    let point = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    assert_eq!((point("x").len(), point("y").len()), (32, 32));
    for (field, want) in [
        ("kty", "EC"),
        ("crv", "P-256"),
        ("alg", "ES256"),
        ("use", "sig"),
    ] {
        assert_eq!(key[field], want);
    }
    account(&api, "robot").await;
    let token = token(&api, "robot", &json!({})).await;
    assert_eq!(part(&token, 0)["kid"], key["kid"]);
}
