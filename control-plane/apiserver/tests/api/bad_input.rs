//! Bad input, and what it gets.

use axum::body::Body;
use http::{Method, Request};
use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS, PODS, deployment, pod};

#[tokio::test]
async fn bodies_that_are_refused() {
    let api = Api::new().await;
    let json = "application/json";
    let table: &[(&str, &str, u16, &str, &str)] = &[
        (json, "{", 400, "BadRequest", "line 1 column 1"),
        (json, "", 400, "BadRequest", "EOF"),
        (json, "[]", 400, "BadRequest", "invalid"),
        (json, "null", 400, "BadRequest", "null"),
        (
            json,
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            400,
            "BadRequest",
            "cannot be handled as a ConfigMap",
        ),
        (
            json,
            r#"{"kind":"ConfigMap","apiVersion":"v2"}"#,
            400,
            "BadRequest",
            "v2",
        ),
        (
            json,
            r#"{"metadata":{"name":"a"},"data":{"a":1}}"#,
            400,
            "BadRequest",
            "expected a string",
        ),
        (
            json,
            r#"{"metadata":{"name":"a","namespace":"b"}}"#,
            400,
            "BadRequest",
            "does not match",
        ),
        (
            json,
            r#"{"metadata":{"name":"a","resourceVersion":"1"}}"#,
            400,
            "BadRequest",
            "should not be set",
        ),
        (
            json,
            r#"{"metadata":{}}"#,
            422,
            "Invalid",
            "name or generateName is required",
        ),
        (
            json,
            r#"{"metadata":{"name":"A_b"}}"#,
            422,
            "Invalid",
            "metadata.name",
        ),
        (
            json,
            r#"{"metadata":{"name":"a","labels":{"a":"b c"}}}"#,
            422,
            "Invalid",
            "metadata.labels",
        ),
        (
            json,
            r#"{"metadata":{"name":"a","finalizers":["x"]}}"#,
            422,
            "Invalid",
            "metadata.finalizers",
        ),
        (
            json,
            r#"{"metadata":{"name":"a"},"data":{"a/b":"c"}}"#,
            422,
            "Invalid",
            "data[a/b]",
        ),
        (
            "application/yaml",
            "a: [",
            400,
            "BadRequest",
            "yaml: line 1: ",
        ),
        ("application/yaml", "&a [*a]", 400, "BadRequest", ""),
        (
            "text/html",
            "<p>",
            415,
            "UnsupportedMediaType",
            "application/json",
        ),
        (
            "application/vnd.kubernetes.protobuf",
            "k8s",
            400,
            "BadRequest",
            "magic number",
        ),
    ];
    for (media_type, body, code, reason, part) in table {
        let answer = api.raw(Method::POST, CONFIG_MAPS, media_type, *body).await;
        let message = answer.fails(*code, reason);
        assert!(message.contains(part), "{body}: {message}");
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_refused() {
    let api = Api::new().await;
    api.config_map("a").await;
    let a = &format!("{CONFIG_MAPS}/a");
    let table: &[(Method, &str, u16, &str)] = &[
        (Method::GET, "/nothing", 404, "NotFound"),
        (Method::GET, "/apis/none.io/v1", 404, "NotFound"),
        (Method::GET, "/apis/apps/v9/deployments", 404, "NotFound"),
        (Method::GET, "/api/v1/nothings", 404, "NotFound"),
        (
            Method::GET,
            "/api/v1/namespaces/default/nodes",
            404,
            "NotFound",
        ),
        (Method::GET, "/api/v1/configmaps/a", 404, "NotFound"),
        (Method::GET, &format!("{a}/nothing"), 404, "NotFound"),
        (Method::GET, &format!("{a}/status"), 404, "NotFound"),
        (Method::GET, &format!("{CONFIG_MAPS}/b"), 404, "NotFound"),
        (
            Method::GET,
            "/api/v1/namespaces/none/configmaps/a",
            404,
            "NotFound",
        ),
        (Method::POST, a, 405, "MethodNotAllowed"),
        (Method::PUT, CONFIG_MAPS, 405, "MethodNotAllowed"),
        (Method::PATCH, CONFIG_MAPS, 405, "MethodNotAllowed"),
        (Method::POST, "/api/v1/configmaps", 405, "MethodNotAllowed"),
        (Method::TRACE, a, 405, "MethodNotAllowed"),
        (Method::POST, "/version", 405, "MethodNotAllowed"),
        (
            Method::GET,
            &format!("{CONFIG_MAPS}?labelSelector=a%20b"),
            400,
            "BadRequest",
        ),
        (
            Method::GET,
            &format!("{CONFIG_MAPS}?fieldSelector=spec.x%3D1"),
            400,
            "BadRequest",
        ),
        (
            Method::GET,
            &format!("{CONFIG_MAPS}?continue=x"),
            400,
            "BadRequest",
        ),
        (
            Method::GET,
            &format!("{CONFIG_MAPS}?limit=x"),
            400,
            "BadRequest",
        ),
        (
            Method::DELETE,
            &format!("{a}?propagationPolicy=x"),
            422,
            "Invalid",
        ),
        (Method::DELETE, &format!("{a}?dryRun=x"), 422, "Invalid"),
    ];
    for (method, path, code, reason) in table {
        let answer = api.raw(method.clone(), path, "", Body::empty()).await;
        assert_eq!(answer.code, *code, "{method} {path}: {}", answer.text);
        answer.fails(*code, reason);
    }
}

#[tokio::test]
async fn what_cannot_be_answered_as_asked() {
    let api = Api::new().await;
    let answer = api.get_as(CONFIG_MAPS, "text/html").await;
    answer.fails(406, "NotAcceptable");
    let watch = format!("{CONFIG_MAPS}?watch=1");
    let answer = api.get_as(&watch, "application/yaml").await;
    assert_eq!(answer.code, 406);
    assert!(
        answer.text.contains("reason: NotAcceptable"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat(3 * 1024 * 1024)}});
    api.post(CONFIG_MAPS, &body)
        .await
        .fails(413, "RequestEntityTooLarge");
    let body = json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat(2 * 1024 * 1024)}});
    api.post(CONFIG_MAPS, &body).await.fails(422, "Invalid");
}

#[tokio::test]
async fn a_namespace_must_exist() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "a"}});
    let message = api
        .post("/api/v1/namespaces/none/configmaps", &body)
        .await
        .fails(404, "NotFound");
    assert_eq!(message, "namespaces \"none\" not found");
}

#[tokio::test]
async fn unknown_and_duplicate_fields() {
    let api = Api::new().await;
    let body = r#"{"metadata":{"name":"NAME"},"spec":{"containers":[{"name":"c","image":"i","imagee":"x","image":"j"}]}}"#;
    let send = |name: &str, query: &str| {
        let (api, body, path) = (
            api.clone(),
            body.replace("NAME", name),
            format!("{PODS}{query}"),
        );
        async move { api.raw(Method::POST, &path, "application/json", body).await }
    };
    let message = send("a", "?fieldValidation=Strict")
        .await
        .fails(400, "BadRequest");
    for part in [
        "strict decoding error: ",
        "unknown field \"spec.containers[0].imagee\"",
        "duplicate field \"spec.containers[0].image\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
    for query in ["", "?fieldValidation=Warn"] {
        let answer = send(&format!("a{}", query.len()), query).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
        let warnings: Vec<&str> = answer
            .headers
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert!(
            warnings.contains(&r#"299 - "unknown field \"spec.containers[0].imagee\"""#),
            "{warnings:?}"
        );
    }
    let answer = send("b", "?fieldValidation=Ignore").await;
    assert_eq!(answer.code, 201);
    assert!(answer.headers.get("warning").is_none());
    send("c", "?fieldValidation=Nonsense")
        .await
        .fails(422, "Invalid");
    // A patch is held to the same.
    let path = format!("{PODS}/b?fieldValidation=Strict");
    let message = api
        .patch(&path, "merge", &json!({"metadata": {"lables": {}}}))
        .await
        .fails(422, "Invalid");
    assert!(
        message.contains("unknown field \"metadata.lables\""),
        "{message}"
    );
    for kind in ["merge", "strategic-merge"] {
        let twice = r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#;
        let media_type = format!("application/{kind}-patch+json");
        let message = api
            .raw(Method::PATCH, &path, &media_type, twice)
            .await
            .fails(422, "Invalid");
        assert!(
            message.contains("strict decoding error: duplicate field \"metadata.labels.a\""),
            "{message}"
        );
    }
    let operation = json!([{"op": "test", "path": "/kind", "value": "Pod", "form": "/a"}]);
    let message = api.patch(&path, "json", &operation).await;
    let message = message.fails(422, "Invalid");
    let unknown = "strict decoding error: json patch unknown field \"[0].form\"";
    assert!(message.contains(unknown), "{message}");
}

#[tokio::test]
async fn an_invalid_spec_names_every_cause() {
    let api = Api::new().await;
    let mut body = deployment("web");
    body["spec"]["replicas"] = json!(-1);
    body["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let answer = api
        .post("/apis/apps/v1/namespaces/default/deployments", &body)
        .await;
    let message = answer.fails(422, "Invalid");
    assert!(
        message.starts_with("Deployment.apps \"web\" is invalid: ["),
        "{message}"
    );
    let status = answer.json();
    let fields: Vec<&str> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["field"].as_str().unwrap())
        .collect();
    assert!(fields.contains(&"spec.replicas"), "{fields:?}");
    assert!(
        fields.contains(&"spec.template.metadata.labels"),
        "{fields:?}"
    );
    assert_eq!(status["details"]["kind"], "Deployment");
    assert_eq!(status["details"]["name"], "web");
}

#[tokio::test]
async fn patches_that_are_refused() {
    let api = Api::new().await;
    api.config_map("a").await;
    let path = &format!("{CONFIG_MAPS}/a");
    let patch = |media_type: &'static str, body: &'static str| {
        api.raw(Method::PATCH, path, media_type, body)
    };
    let merge = "application/merge-patch+json";
    let message = patch("application/apply-patch+json", "{}")
        .await
        .fails(415, "UnsupportedMediaType");
    assert!(
        message.contains("application/apply-patch+yaml"),
        "{message}"
    );
    patch("application/json", "{}")
        .await
        .fails(415, "UnsupportedMediaType");
    patch(merge, "{").await.fails(400, "BadRequest");
    patch(merge, "[]").await.fails(400, "BadRequest");
    patch(merge, r#"{"kind":"Secret"}"#)
        .await
        .fails(422, "Invalid");
    let message = patch(merge, r#"{"data":{"a":1}}"#)
        .await
        .fails(422, "Invalid");
    assert!(
        message.starts_with(" \"\" is invalid: patch: Invalid value: "),
        "{message}"
    );
    patch(merge, r#"{"metadata":{"name":"b"}}"#)
        .await
        .fails(400, "BadRequest");
    patch(merge, r#"{"metadata":{"resourceVersion":"1"}}"#)
        .await
        .fails(409, "Conflict");
    patch(merge, r#"{"metadata":{"labels":{"a":"b c"}}}"#)
        .await
        .fails(422, "Invalid");
    patch("application/json-patch+json", r#"{"op":"add"}"#)
        .await
        .fails(400, "BadRequest");
    let missing = r#"[{"op":"remove","path":"/data/none"}]"#;
    patch("application/json-patch+json", missing)
        .await
        .fails(422, "Invalid");
}

#[tokio::test]
async fn deeply_nested_input_is_refused() {
    let api = Api::new().await;
    let deep = format!(
        "{{\"metadata\":{{\"name\":\"a\"}},\"data\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    api.raw(Method::POST, CONFIG_MAPS, "application/json", deep.clone())
        .await
        .fails(400, "BadRequest");
    api.raw(Method::POST, CONFIG_MAPS, "application/yaml", deep)
        .await
        .fails(400, "BadRequest");
}

#[tokio::test]
async fn no_yaml_keeps_the_server_busy() {
    let api = Api::new().await;
    let mut aliases = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..64 {
        aliases.push_str(&format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
    }
    let bodies = [
        "- ".repeat(1_000_000),
        "? ".repeat(1_000_000),
        "[".repeat(2_000_000),
        "a: {".repeat(500_000),
        format!("{}{}", "[".repeat(127), "1,".repeat(1_000_000)),
        aliases,
    ];
    for body in bodies {
        let started = std::time::Instant::now();
        let start = body[..20].to_owned();
        api.raw(Method::POST, CONFIG_MAPS, "application/yaml", body)
            .await
            .fails(400, "BadRequest");
        assert!(started.elapsed() < crate::harness::DEADLINE, "{start}");
    }
}

#[tokio::test]
async fn nobody_is_refused_and_strangers_are_forbidden() {
    let api = Api::new().await;
    let nobody = api.user(None);
    for path in [CONFIG_MAPS, "/api", "/version", "/metrics", "/nothing"] {
        nobody.get(path).await.fails(401, "Unauthorized");
    }
    assert_eq!(nobody.get("/livez").await.text, "ok");
    let jane = api.user(Some(coracle_apiserver::UserInfo::new("jane", &[])));
    let message = jane.get(CONFIG_MAPS).await.fails(403, "Forbidden");
    assert!(
        message.contains("User \"jane\" cannot list resource \"configmaps\""),
        "{message}"
    );
    jane.get("/version").await.ok(200);
}

#[tokio::test]
async fn a_pod_that_is_refused_is_not_stored() {
    let api = Api::new().await;
    let mut body = pod("p");
    body["spec"]["priorityClassName"] = json!("none");
    api.post(PODS, &body).await.fails(403, "Forbidden");
    let request = Request::head(format!("{PODS}/p"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(api.request(request).await.code, 404);
}

#[tokio::test]
async fn a_missing_object_comes_before_a_malformed_patch_of_it() {
    let api = Api::new().await;
    api.config_map("a").await;
    let missing = format!("{CONFIG_MAPS}/none");
    let there = format!("{CONFIG_MAPS}/a");
    let scale = "/apis/apps/v1/namespaces/default/deployments/none/scale".to_owned();
    for form in ["json-patch", "merge-patch", "strategic-merge-patch"] {
        let form = format!("application/{form}+json");
        for (path, code, reason) in [
            (&missing, 404, "NotFound"),
            (&scale, 404, "NotFound"),
            (&there, 400, "BadRequest"),
        ] {
            let answer = api.raw(Method::PATCH, path, &form, "{").await;
            assert_eq!(answer.code, code, "{path} {form} {}", answer.text);
            answer.fails(code, reason);
        }
    }
    // What no patch comes in is said whether the object is there or not.
    let answer = api.raw(Method::PATCH, &missing, "text/plain", "{").await;
    answer.fails(415, "UnsupportedMediaType");
}
