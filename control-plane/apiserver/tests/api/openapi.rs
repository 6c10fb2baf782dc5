//! OpenAPI, in both forms.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::Api;

/// Every reference of a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn openapi_documents_are_whole() {
    let api = Api::new().await;
    let index = api.get("/openapi/v3").await.ok(200);
    for (name, entry) in index["paths"].as_object().unwrap() {
        let document = api
            .get(entry["serverRelativeURL"].as_str().unwrap())
            .await
            .ok(200);
        let mut found = Vec::new();
        references(&document, &mut found);
        // Two are about who signs tokens, in forms of others.
        let foreign = name.contains("openid");
        assert_eq!(found.is_empty(), foreign, "{name}");
        for reference in found {
            let schema = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(
                document["components"]["schemas"].get(schema).is_some(),
                "{name}: {schema}"
            );
        }
    }
    let core = api.get("/openapi/v3/api/v1").await.ok(200);
    let proxy = "/api/v1/namespaces/{namespace}/services/{name}/proxy/{path}";
    let options = &core["paths"][proxy]["options"];
    assert_eq!(options["x-kubernetes-action"], "connect");
    let kind = &options["x-kubernetes-group-version-kind"]["kind"];
    assert_eq!(*kind, "ServiceProxyOptions");
    assert!(core["paths"]["/api/v1/nodes/{name}/proxy"]["head"].is_object());
    let schemas = &core["components"]["schemas"];
    let gvk = &schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0];
    assert_eq!(gvk["kind"], "Pod");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    // An item of a list without one of its keys has a default of it.
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"];
    assert_eq!(port["protocol"]["default"], "TCP");
    assert!(port["hostIP"].get("default").is_none());
    let quantity = &schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    let types = json!([{"type": "string"}, {"type": "number"}]);
    assert_eq!(quantity["oneOf"], types);
    let patch = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "fieldValidation")
    );
    let paths = core["paths"].as_object().unwrap();
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    let kind = |path: &str, method: &str| {
        paths[&format!("{pod}/{path}")][method]["x-kubernetes-group-version-kind"]["kind"].clone()
    };
    assert_eq!(kind("status", "patch"), "Pod");
    let id = &paths[&format!("{pod}/eviction")]["post"]["operationId"];
    assert_eq!(id, "createCoreV1NamespacedPodEviction");
    assert_eq!(kind("binding", "post"), "Binding");
    assert_eq!(kind("eviction", "post"), "Eviction");
    assert_eq!(kind("log", "get"), "Pod");
    assert!(paths.contains_key("/api/v1/namespaces/{name}/finalize"));
    let apps = api.get("/openapi/v3/apis/apps/v1").await.ok(200);
    let scale = &apps["components"]["schemas"]["io.k8s.api.autoscaling.v1.Scale"];
    assert_eq!(scale["x-kubernetes-group-version-kind"][0]["kind"], "Scale");
    api.get("/openapi/v3/apis/none/v1")
        .await
        .fails(404, "NotFound");
}

/// An operation of a document.
fn operation<'a>(document: &'a Value, path: &str, method: &str) -> &'a Value {
    let operation = &document["paths"][path][method];
    assert!(operation.is_object(), "{method} {path}");
    operation
}

/// The names of the members, in their order.
fn members(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// The names of the parameters of a path or an operation.
fn parameters(of: &Value) -> Vec<&str> {
    let all = of["parameters"].as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn streams_and_proxies_are_operations() {
    let api = Api::new().await;
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    let v3 = api.get("/openapi/v3/api/v1").await.ok(200);
    let v2 = api.get("/openapi/v2").await.ok(200);
    for document in [&v3, &v2] {
        let placed = ["namespace", "name"];
        let streams: [(&str, &str, &[&str]); 3] = [
            (
                "exec",
                "PodExecOptions",
                &["command", "container", "stderr", "stdin", "stdout", "tty"],
            ),
            (
                "attach",
                "PodAttachOptions",
                &["container", "stderr", "stdin", "stdout", "tty"],
            ),
            ("portforward", "PodPortForwardOptions", &["ports"]),
        ];
        for (stream, kind, options) in streams {
            let path = format!("{pod}/{stream}");
            let item = &document["paths"][&path];
            assert_eq!(members(item), ["get", "parameters", "post"]);
            assert_eq!(parameters(item), [&placed[..], options].concat());
            let post = operation(document, &path, "post");
            assert_eq!(post["x-kubernetes-action"], "connect");
            assert_eq!(post["x-kubernetes-group-version-kind"]["kind"], kind);
        }
        let exec = operation(document, &format!("{pod}/exec"), "get");
        assert_eq!(exec["operationId"], "connectCoreV1GetNamespacedPodExec");
        assert_eq!(exec["description"], "connect GET requests to exec of Pod");
        assert_eq!(exec["tags"], json!(["core_v1"]));
        let below = operation(document, "/api/v1/nodes/{name}/proxy/{path}", "head");
        assert_eq!(below["operationId"], "connectCoreV1HeadNodeProxyWithPath");
    }
}

#[tokio::test]
async fn operations_say_what_they_answer_and_what_they_need() {
    let api = Api::new().await;
    let apps = api.get("/openapi/v3/apis/apps/v1").await.ok(200);
    let collection = "/apis/apps/v1/namespaces/{namespace}/deployments";
    let object = format!("{collection}/{{name}}");
    let table: [(&str, &str, &[&str], Option<bool>); 7] = [
        (collection, "get", &["200", "401"], None),
        (
            collection,
            "post",
            &["200", "201", "202", "401"],
            Some(true),
        ),
        (collection, "delete", &["200", "401"], Some(false)),
        (&object, "get", &["200", "401"], None),
        (&object, "put", &["200", "201", "401"], Some(true)),
        (&object, "patch", &["200", "201", "401"], Some(true)),
        (&object, "delete", &["200", "202", "401"], Some(false)),
    ];
    for (path, method, codes, needs_body) in table {
        let operation = operation(&apps, path, method);
        assert_eq!(members(&operation["responses"]), codes, "{method} {path}");
        let body = operation.get("requestBody");
        let needs = body.map(|body| body.get("required") == Some(&json!(true)));
        assert_eq!(needs, needs_body, "{method} {path}");
    }
    let list = operation(&apps, collection, "get");
    assert_eq!(
        list["description"],
        "list or watch objects of kind Deployment"
    );
    let forms = members(&list["responses"]["200"]["content"]);
    assert!(
        forms.contains(&"application/json;stream=watch"),
        "{forms:?}"
    );
    let v2 = api.get("/openapi/v2").await.ok(200);
    let produced = &operation(&v2, collection, "get")["produces"];
    assert_eq!(*produced, json!(forms));
    let body = |method: &str| {
        let all = operation(&v2, &object, method)["parameters"]
            .as_array()
            .unwrap();
        all.iter().find(|one| one["in"] == "body").unwrap().clone()
    };
    assert_eq!(body("put")["required"], true);
    assert!(body("delete").get("required").is_none());
    let key = json!({
        "type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication",
    });
    assert_eq!(apps["components"]["securitySchemes"]["BearerToken"], key);
    assert_eq!(v2["securityDefinitions"]["BearerToken"], key);
    assert_eq!(v2["security"], json!([{"BearerToken": []}]));
}

#[tokio::test]
async fn schemas_say_what_kubernetes_says_of_them() {
    let api = Api::new().await;
    let document = api.get("/openapi/v3/apis/policy/v1").await.ok(200);
    let schemas = &document["components"]["schemas"];
    let budget = &schemas["io.k8s.api.policy.v1.PodDisruptionBudget"];
    assert!(budget.get("required").is_none());
    let selector = &schemas["io.k8s.api.policy.v1.PodDisruptionBudgetSpec"]["properties"];
    let selector = &selector["selector"];
    assert_eq!(selector["x-kubernetes-patch-strategy"], "replace");
    // What holds for a type is said there, and not where it is used.
    assert!(selector.get("x-kubernetes-map-type").is_none());
    let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
    assert_eq!(selector["x-kubernetes-map-type"], "atomic");
    let options = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["properties"];
    assert_eq!(options["dryRun"]["x-kubernetes-list-type"], "atomic");

    let v2 = api.get("/openapi/v2").await.ok(200);
    for (name, required) in [
        ("core.v1.ConfigMapKeySelector", json!(["key"])),
        ("core.v1.LocalObjectReference", json!(null)),
        ("core.v1.Binding", json!(["target"])),
        ("core.v1.Event", json!(["involvedObject", "metadata"])),
        ("events.v1.Event", json!(["eventTime"])),
    ] {
        let mut schema = v2["definitions"][format!("io.k8s.api.{name}")].clone();
        if let Some(required) = schema["required"].as_array_mut() {
            required.sort_by_key(Value::to_string);
        }
        assert_eq!(schema["required"], required, "{name}");
    }
    let spec = &v2["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    let policies = json!(["Always", "Never", "OnFailure"]);
    assert_eq!(spec["restartPolicy"]["enum"], policies);
    let service = &v2["definitions"]["io.k8s.api.core.v1.ServiceSpec"]["properties"];
    let families = json!(["", "IPv4", "IPv6"]);
    assert_eq!(service["ipFamilies"]["items"]["enum"], families);
    let stateful = api.get("/openapi/v3/apis/apps/v1").await.ok(200);
    let claim = &stateful["components"]["schemas"]["io.k8s.api.core.v1.PersistentVolumeClaim"];
    let kind = &claim["x-kubernetes-group-version-kind"][0]["kind"];
    assert_eq!(*kind, "PersistentVolumeClaim");
}

#[tokio::test]
async fn what_lists_the_api_is_in_it() {
    let api = Api::new().await;
    let v2 = api.get("/openapi/v2").await.ok(200);
    let index = api.get("/openapi/v3").await.ok(200);
    for (name, path, id, answer) in [
        ("api", "/api/", "getCoreAPIVersions", "meta.v1.APIVersions"),
        (
            "api/v1",
            "/api/v1/",
            "getCoreV1APIResources",
            "meta.v1.APIResourceList",
        ),
        ("apis", "/apis/", "getAPIVersions", "meta.v1.APIGroupList"),
        (
            "apis/batch",
            "/apis/batch/",
            "getBatchAPIGroup",
            "meta.v1.APIGroup",
        ),
        (
            "apis/rbac.authorization.k8s.io/v1",
            "/apis/rbac.authorization.k8s.io/v1/",
            "getRbacAuthorizationV1APIResources",
            "meta.v1.APIResourceList",
        ),
        ("version", "/version/", "getCodeVersion", "version.Info"),
        (
            "openid/v1/jwks",
            "/openid/v1/jwks/",
            "getServiceAccountIssuerOpenIDKeyset",
            "",
        ),
    ] {
        let url = index["paths"][name]["serverRelativeURL"].as_str().unwrap();
        let v3 = api.get(url).await.ok(200);
        let in_v3 = operation(&v3, path, "get");
        let in_v2 = operation(&v2, path, "get");
        assert_eq!(in_v3["operationId"], id);
        assert_eq!(in_v2["operationId"], id);
        let schema = &in_v2["responses"]["200"]["schema"];
        match answer {
            "" => assert_eq!(schema["type"], "string"),
            answer => assert!(
                schema["$ref"].as_str().unwrap().ends_with(answer),
                "{schema}"
            ),
        }
        assert_eq!(api.get(path).await.code, 200, "{path}");
    }
}

#[tokio::test]
async fn openapi_documents_are_kept_by_their_hashes() {
    let api = Api::new().await;
    let index = api.get("/openapi/v3").await.ok(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let answer = api.get(url).await;
    assert!(
        answer.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let etag = answer.headers["etag"].to_str().unwrap();
    assert_eq!(Some(etag.trim_matches('"')), url.split("hash=").nth(1));
    let request = Request::get("/openapi/v3/apis/apps/v1").header("if-none-match", etag);
    let again = api.request(request.body(Body::empty()).unwrap()).await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
    // A hash of another version leads to the document of this one.
    let stale = api.get("/openapi/v3/apis/apps/v1?hash=00").await;
    assert_eq!(stale.code, 301);
    assert_eq!(stale.headers["location"], *url);
}

#[tokio::test]
async fn openapi_documents_are_sent_in_the_form_that_is_wanted() {
    type Case = (&'static str, u16, &'static str);
    const JSON: &str = "application/json";
    const NAMED: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    const ASKED: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let api = Api::new().await;
    let ask = async |accept: &str| {
        let request = Request::get("/openapi/v3/apis/policy/v1").header("accept", accept);
        let response = api.send(request.body(Body::empty()).unwrap()).await;
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    };
    let cases: [Case; 7] = [
        ("*/*", 200, JSON),
        (NAMED, 200, NAMED),
        (ASKED, 200, NAMED),
        ("application/json, application/yaml;q=0.5", 200, JSON),
        ("application/yaml, application/json;q=0.5", 200, JSON),
        ("text/html", 406, JSON),
        (
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
            406,
            JSON,
        ),
    ];
    for (accept, code, media_type) in cases {
        let (parts, body) = ask(accept).await;
        assert_eq!(parts.status, code, "{accept}");
        assert_eq!(parts.headers["content-type"], media_type, "{accept}");
        // The version of OpenAPI is the first field of the message.
        let begin: &[u8] = if media_type == NAMED {
            b"\x0a\x053.0.0"
        } else {
            b"{"
        };
        assert!(body.starts_with(begin), "{accept}");
    }
    let (json, _) = ask(JSON).await;
    let (protobuf, _) = ask(ASKED).await;
    for header in ["etag", "vary"] {
        assert_eq!(json.headers[header], protobuf.headers[header]);
    }
}

#[tokio::test]
async fn openapi_v2_holds_all_definitions() {
    let api = Api::new().await;
    let answer = api.get("/openapi/v2").await;
    let etag = answer.headers["etag"].clone();
    let document = answer.ok(200);
    assert_eq!(document["swagger"], "2.0");
    let definitions = &document["definitions"];
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        let schema = reference.strip_prefix("#/definitions/").unwrap();
        assert!(definitions.get(schema).is_some(), "{schema}");
    }
    for (schema, kind) in [
        ("io.k8s.api.core.v1.Pod", "Pod"),
        ("io.k8s.api.apps.v1.DeploymentList", "DeploymentList"),
    ] {
        let gvk = &definitions[schema]["x-kubernetes-group-version-kind"][0];
        assert_eq!(gvk["kind"], kind);
    }
    let port = &definitions["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert!(port.get("default").is_none());
    let quantity = &definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(
        (&quantity["type"], quantity.get("format")),
        (&json!("string"), None)
    );
    let containers = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    let post = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    let body = post["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|parameter| parameter["in"] == "body");
    assert_eq!(
        body.unwrap()["schema"]["$ref"],
        "#/definitions/io.k8s.api.core.v1.Pod"
    );
    let proxy = "/api/v1/namespaces/{namespace}/pods/{name}/proxy";
    let get = &document["paths"][proxy]["get"];
    assert_eq!(get["produces"], serde_json::json!(["*/*"]));
    assert_eq!(get["responses"]["200"]["schema"]["type"], "string");
    let request = Request::get("/openapi/v2").header("if-none-match", etag);
    let again = api.request(request.body(Body::empty()).unwrap()).await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
}

#[tokio::test]
async fn openapi_v2_is_sent_as_it_is_kept() {
    let api = Api::new().await;
    let plain = api.get("/openapi/v2").await;
    let etag = plain.headers["etag"].clone();
    let ask = async |name: &str, value: &str| {
        let request = Request::get("/openapi/v2").header(name, value);
        let response = api.send(request.body(Body::empty()).unwrap()).await;
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    };
    let (parts, packed) = ask("accept-encoding", "gzip").await;
    assert_eq!(parts.headers["content-encoding"], "gzip");
    assert_eq!(parts.headers["etag"], etag);
    let mut unpacked = String::new();
    let mut reader = flate2::read::GzDecoder::new(&packed[..]);
    std::io::Read::read_to_string(&mut reader, &mut unpacked).unwrap();
    assert!(unpacked == plain.text);
    let etag = etag.to_str().unwrap();
    for (tags, code) in [
        (etag.to_owned(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"a\", {etag}"), 304),
        ("*".to_owned(), 304),
        ("\"a\"".to_owned(), 200),
    ] {
        let (parts, body) = ask("if-none-match", &tags).await;
        assert_eq!(
            (parts.status.as_u16(), body.is_empty()),
            (code, code == 304)
        );
        assert!(!parts.headers.contains_key("content-encoding"));
    }
}
