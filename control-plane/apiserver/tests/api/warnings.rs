//! Warnings: of versions and fields that are deprecated, and of what field validation finds.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, CONFIG_MAPS, PODS, pod};

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_version_that_is_deprecated_says_so_in_every_answer() {
    let api = Api::new().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let said =
        ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""];
    let body = json!({"metadata": {"name": "e"}});
    let path = format!("{endpoints}/e");
    let answers = [
        api.post(endpoints, &body).await,
        api.get(&path).await,
        api.get(endpoints).await,
        api.put(&path, &body).await,
        api.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}}))
            .await,
        api.delete(&path).await,
    ];
    for answer in answers {
        assert!(answer.code < 300, "{}", answer.text);
        assert_eq!(warnings(&answer), said);
    }
    let statuses = api.get("/api/v1/componentstatuses").await;
    let said = ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""];
    assert_eq!(warnings(&statuses), said);
    assert!(warnings(&api.get(CONFIG_MAPS).await).is_empty());
}

#[tokio::test]
async fn fields_that_are_deprecated_are_named() {
    let api = Api::new().await;
    let mut old = pod("old");
    old["metadata"]["annotations"] =
        json!({"seccomp.security.alpha.kubernetes.io/pod": "runtime/default"});
    old["spec"]["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    old["spec"]["volumes"] =
        json!([{"name": "v", "gitRepo": {"repository": "https://example.com"}}]);
    let created = api.post(PODS, &old).await;
    created.ok(201);
    let said = warnings(&created).join("\n");
    for field in [
        "spec.nodeSelector[beta.kubernetes.io/os]",
        "spec.volumes[0].gitRepo",
    ] {
        assert!(said.contains(field), "{said}");
    }
    // A template is no better.
    let mut template = pod("x");
    template["spec"] = old["spec"].clone();
    let job = json!({
        "metadata": {"name": "old"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": old["spec"]["containers"],
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
        }}},
    });
    let created = api
        .post("/apis/batch/v1/namespaces/default/jobs", &job)
        .await;
    created.ok(201);
    let said = warnings(&created).join("\n");
    assert!(said.contains("spec.template.spec.nodeSelector"), "{said}");
}

/// How a body with a field that nobody knows and one that comes twice is met.
async fn validated(api: &Api, method: Method, path: &str, how: &str) -> Answer {
    let body = r#"{"metadata": {"name": "a"}, "data": {"x": "1", "x": "2"}, "extra": 1}"#;
    let query = if how.is_empty() {
        String::new()
    } else {
        format!("?fieldValidation={how}")
    };
    api.raw(method, &format!("{path}{query}"), "application/json", body)
        .await
}

#[tokio::test]
async fn fields_that_nobody_knows_are_refused_told_of_or_dropped() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a");
    for (method, target, code) in [(Method::POST, CONFIG_MAPS, 201), (Method::PUT, &*path, 200)] {
        let refused = validated(&api, method.clone(), target, "Strict").await;
        let message = refused.fails(400, "BadRequest");
        for fault in [
            "strict decoding error",
            "unknown field \"extra\"",
            "duplicate field \"data.x\"",
        ] {
            assert!(message.contains(fault), "{message}");
        }
        validated(&api, method.clone(), target, "Loose")
            .await
            .fails(422, "Invalid");
        for (how, told) in [("Ignore", 0), ("Warn", 2), ("", 2)] {
            if method == Method::POST {
                api.delete(&path).await;
            }
            let taken = validated(&api, method.clone(), target, how).await;
            assert_eq!(taken.ok(code)["data"]["x"], "2", "the last one counts");
            assert!(taken.json().get("extra").is_none());
            assert_eq!(warnings(&taken).len(), told, "{how}");
        }
    }
}

#[tokio::test]
async fn who_is_refused_is_told_of_fields_that_nobody_knows() {
    let api = Api::new().await;
    api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = json!({"metadata": {"name": "a"}, "data": {"a/b": "1"}, "dtaa": {}});
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a/b": "1"}});
    let twice = applied
        .to_string()
        .replacen('{', "{\"kind\":\"ConfigMap\",", 1);
    let apply = "application/apply-patch+yaml";
    let unknown = "299 - \"unknown field \\\"dtaa\\\"\"";
    for (answer, want) in [
        (api.post(CONFIG_MAPS, &wrong).await, unknown),
        (api.put(&path, &wrong).await, unknown),
        (api.patch(&path, "merge", &wrong).await, unknown),
        (
            api.raw(
                Method::PATCH,
                &format!("{path}?fieldManager=m"),
                apply,
                twice,
            )
            .await,
            "299 - \"duplicate field \\\"kind\\\"\"",
        ),
    ] {
        let message = answer.fails(422, "Invalid");
        assert!(message.contains("data[a/b]"), "{message}");
        assert_eq!(warnings(&answer), [want]);
    }
    let ignored = format!("{CONFIG_MAPS}?fieldValidation=Ignore");
    assert!(warnings(&api.post(&ignored, &wrong).await).is_empty());
}

#[tokio::test]
async fn warnings_are_bounded() {
    let api = Api::new().await;
    let mut body = json!({"metadata": {"name": "a"}});
    for n in 0..1000 {
        body[format!("{n:04}{}", "x".repeat(500))] = Value::Null;
    }
    let created = api.post(CONFIG_MAPS, &body).await;
    created.ok(201);
    let said = warnings(&created);
    let length: usize = said.iter().map(String::len).sum();
    assert!(!said.is_empty() && length < 6000, "{length}");
}

#[tokio::test]
async fn owners_that_come_twice_are_told_and_kept_once() {
    let api = Api::new().await;
    let owner = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let owners = json!([owner("a", "1"), owner("b", "2"), owner("a", "1")]);
    let body = json!({"metadata": {"name": "a", "ownerReferences": owners}});
    let created = api.post(CONFIG_MAPS, &body).await;
    let warning = created.headers["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains("duplicate UID(s) observed: 1"),
        "{warning}"
    );
    let kept = json!([owner("a", "1"), owner("b", "2")]);
    assert_eq!(created.ok(201)["metadata"]["ownerReferences"], kept);
    let path = format!("{CONFIG_MAPS}/a");
    let patch =
        json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner("b", "2")}]);
    let patched = api.patch(&path, "json", &patch).await;
    let warning = patched.headers["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains("duplicate UID(s) observed: 2"),
        "{warning}"
    );
    assert_eq!(patched.ok(200)["metadata"]["ownerReferences"], kept);
}

#[tokio::test]
async fn who_is_refused_is_told_what_is_said_of_the_object() {
    let api = Api::new().await;
    api.config_map("a").await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1"});
    let with = |uid: Value, data: Value| {
        json!({
            "metadata": {"name": "a", "uid": uid, "ownerReferences": [owner, owner]},
            "data": data,
        })
    };
    let (plain, wrong) = (json!({"b": "1"}), json!({"a/b": "1"}));
    let path = format!("{CONFIG_MAPS}/a");
    let taken = api
        .post(CONFIG_MAPS, &with(Value::Null, plain.clone()))
        .await;
    taken.fails(409, "AlreadyExists");
    let another = api.put(&path, &with(json!("x"), plain)).await;
    another.fails(409, "Conflict");
    let invalid = api
        .post(CONFIG_MAPS, &with(Value::Null, wrong.clone()))
        .await;
    invalid.fails(422, "Invalid");
    let put = api.put(&path, &with(Value::Null, wrong)).await;
    put.fails(422, "Invalid");
    for answer in [taken, another, invalid, put] {
        let said = warnings(&answer);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("duplicate UID(s) observed: 1"), "{said:?}");
    }
    // What a strategy says comes after it has found the object valid.
    let mut old = pod("old");
    old["spec"]["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    let created = api.post(PODS, &old).await;
    created.ok(201);
    let again = api.post(PODS, &old).await;
    again.fails(409, "AlreadyExists");
    assert!(!warnings(&created).is_empty());
    assert_eq!(warnings(&again), warnings(&created));
}
