//! Paths, queries and headers that nobody sends in good faith.

use std::fmt::Write;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use serde_json::json;

use crate::harness::{Answer, Api, CONFIG_MAPS};

#[tokio::test]
async fn tricks_in_paths_lead_nowhere() {
    let api = Api::new().await;
    api.config_map("a").await;
    for path in [
        "/api/v1/namespaces/default/configmaps/..",
        "/api/v1/namespaces/default/configmaps/../configmaps/a",
        "/api/v1/namespaces/default/configmaps/%2e%2e",
        "/api/v1/namespaces/default/configmaps/%2e%2e/%2e%2e/default/configmaps/a",
        "/api/v1/namespaces/default%2fconfigmaps/a",
        "/api/v1/namespaces/default%2Fconfigmaps%2Fa",
        "/api/v1/namespaces/kube-system/configmaps/..%2f..%2fdefault%2fconfigmaps%2fa",
        "/api/v1/namespaces/%2e/configmaps/a",
        "/api/v1/namespaces/default/configmaps/a%00",
        "/api/v1/namespaces/default/configmaps/%00",
        "/api/v1/namespaces/default/configmaps/%ff",
        "/api/v1/namespaces/default/configmaps/%",
        "/api/v1/namespaces/default/configmaps/%zz",
        "/api/v1/namespaces/default/configmaps/a%2fstatus",
        "/api/v1/namespaces/default/configmaps/a/b/c/d/e",
        "/api/v1/namespaces/default/configmaps/A",
        "/api/v1/namespaces/default/ConfigMaps/a",
        "/api/v1/namespaces/default/configmap/a",
        "/api/%76%31%00/configmaps",
        "/api/../api/v1/configmaps/a",
        "/apis//v1/configmaps",
        "/apis/%2e%2e/v1/configmaps",
        "/api/v1/nodes/%2e%2e%2fnamespaces%2fdefault",
        "/openapi/v3/../v2",
        "/openapi/v3/%2e%2e/v2",
        "/openapi/v3/apis/../api/v1",
    ] {
        let message = api.get(path).await.fails(404, "NotFound");
        assert!(!message.contains('\u{0}'), "{path}: {message}");
    }
    // A letter may be written as its number, and a slash at the end or twice changes nothing.
    for path in [
        "/%61pi/v1/namespaces/default/configmaps/%61",
        "/api/v1/namespaces/default/configmaps/a/",
    ] {
        api.get(path).await.ok(200);
    }
}

#[tokio::test]
async fn what_a_caller_may_not_read_no_path_reads() {
    let api = Api::new().await;
    api.config_map("a").await;
    let jane = api.user(Some(coracle_apiserver::UserInfo::new("jane", &[])));
    for path in [
        "/api/v1/namespaces/default/configmaps/a",
        "/%61pi/v1/namespaces/default/configmaps/a",
        "/api/v1/namespaces/default/configmaps/%61",
        "/api/v1/namespaces/%64efault/configmaps",
        "/api/v1/namespaces//configmaps",
        "//api/v1/configmaps",
        "/api/v1/configmaps/",
        "/api/v1/configmaps?watch=1",
        "/api/v1/namespaces/default/configmaps/a/",
        "/metrics",
        "/metrics/",
        "/%6detrics",
    ] {
        let answer = jane.get(path).await;
        assert!(matches!(answer.code, 403 | 404), "{path}: {}", answer.text);
        assert!(!answer.text.contains("\"data\""), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn options_that_are_no_options() {
    let api = Api::new().await;
    api.config_map("a").await;
    let a = &format!("{CONFIG_MAPS}/a");
    let many = |of: &str, count: usize| {
        (0..count).fold(String::new(), |mut query, n| {
            let _ = write!(query, "{of}{n}=x&");
            query
        })
    };
    let table: &[(Method, &str, String, u16, &str)] = &[
        (
            Method::GET,
            CONFIG_MAPS,
            "resourceVersion=-1".into(),
            400,
            "must be a number",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "resourceVersion=0x1".into(),
            400,
            "must be a number",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "resourceVersion=1.5".into(),
            400,
            "must be a number",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "resourceVersion=99999999999999999999".into(),
            400,
            "must be a number",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "resourceVersion=%00".into(),
            400,
            "must be a number",
        ),
        (
            Method::GET,
            a,
            "resourceVersion=x".into(),
            400,
            "must be a number",
        ),
        (Method::GET, CONFIG_MAPS, "limit=1e3".into(), 400, "limit"),
        (
            Method::GET,
            CONFIG_MAPS,
            "limit=99999999999999999999".into(),
            400,
            "limit",
        ),
        (Method::GET, CONFIG_MAPS, "limit=-1".into(), 200, "\"a\""),
        (
            Method::GET,
            CONFIG_MAPS,
            "timeoutSeconds=x".into(),
            400,
            "timeoutSeconds",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "resourceVersionMatch=Newest&resourceVersion=1".into(),
            422,
            "resourceVersionMatch",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "labelSelector=%00".into(),
            400,
            "unable to parse requirement",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "labelSelector=%ff%fe".into(),
            400,
            "",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "labelSelector=a%20in%20(".into(),
            400,
            "",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("labelSelector={}", "(".repeat(50_000)),
            400,
            "",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("labelSelector={}", "!".repeat(50_000)),
            400,
            "",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("labelSelector={}", "a,".repeat(25_000)),
            400,
            "",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("labelSelector=a%20in%20({})", "x,".repeat(25_000)),
            200,
            "items",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("labelSelector={}", "a".repeat(60_000)),
            400,
            "must be no more than 63",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "fieldSelector=metadata.name".into(),
            400,
            "field selector",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "fieldSelector=metadata.name%3D%00".into(),
            200,
            "items",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("fieldSelector={}", "metadata.name!%3Da,".repeat(3_000)),
            200,
            "items",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            format!("fieldSelector={}", "%5C".repeat(20_000)),
            400,
            "",
        ),
        (Method::GET, CONFIG_MAPS, many("a", 6_000), 200, "items"),
        (
            Method::GET,
            CONFIG_MAPS,
            "&&&=&=&?&;%%%".into(),
            200,
            "items",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "limit=1&limit=x".into(),
            200,
            "items",
        ),
        (
            Method::GET,
            CONFIG_MAPS,
            "includeObject=All".into(),
            200,
            "items",
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            "dryRun=All&dryRun=None".into(),
            422,
            "dryRun",
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            "fieldValidation=strict".into(),
            422,
            "fieldValidation",
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            "fieldManager=%0A".into(),
            422,
            "fieldManager",
        ),
        (
            Method::POST,
            CONFIG_MAPS,
            format!("fieldManager={}", "x".repeat(60_000)),
            422,
            "fieldManager",
        ),
        (
            Method::DELETE,
            a,
            "gracePeriodSeconds=x".into(),
            400,
            "gracePeriodSeconds",
        ),
        (
            Method::DELETE,
            a,
            "gracePeriodSeconds=99999999999999999999".into(),
            400,
            "gracePeriodSeconds",
        ),
        (
            Method::DELETE,
            a,
            "propagationPolicy=Background&orphanDependents=true".into(),
            422,
            "propagationPolicy",
        ),
    ];
    for (method, path, query, code, part) in table {
        let body = if *method == Method::POST {
            r#"{"metadata":{"name":"b"}}"#
        } else {
            ""
        };
        let answer = api
            .raw(
                method.clone(),
                &format!("{path}?{query}"),
                "application/json",
                body,
            )
            .await;
        let shown = query.get(..60).unwrap_or(query);
        assert_eq!(
            answer.code, *code,
            "{method} {path}?{shown}: {}",
            answer.text
        );
        assert!(answer.text.contains(part), "{shown}: {}", answer.text);
        if *code >= 400 {
            let reason = if *code == 422 {
                "Invalid"
            } else {
                "BadRequest"
            };
            answer.fails(*code, reason);
        }
    }
}

#[tokio::test]
async fn tokens_that_the_server_did_not_give() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.config_map(name).await;
    }
    let token = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let get = async |token: &str| {
        api.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}"))
            .await
    };
    for refused in [
        "x".to_owned(),
        "%00".to_owned(),
        "====".to_owned(),
        "a".repeat(50_000),
        token("null"),
        token("[]"),
        token("{}"),
        token(&"[".repeat(10_000)),
        token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a"}"#),
        token(r#"{"v":"coracle/v9","rv":1,"start":"a"}"#),
        token(r#"{"v":"coracle/v1","rv":"1","start":"a"}"#),
        token(r#"{"v":"coracle/v1","rv":1e99,"start":"a"}"#),
        token(r#"{"v":"coracle/v1","rv":1}"#),
        token(r#"{"v":"coracle/v1","rv":-1,"start":1}"#),
    ] {
        let message = get(&refused).await.fails(400, "BadRequest");
        assert_eq!(message, "continue key is not valid", "{refused:.80}");
    }
    // A place that leads out of the collection stays in it.
    for start in ["", "..", "../secrets/x", "/", "\u{0}", "\u{10ffff}"] {
        let json = json!({"v": "coracle/v1", "rv": -1, "start": start}).to_string();
        let list = get(&token(&json)).await.ok(200);
        for item in list["items"].as_array().unwrap() {
            assert_eq!(item["kind"], "ConfigMap");
            assert_eq!(item["metadata"]["namespace"], "default");
        }
    }
}

#[tokio::test]
async fn headers_that_make_no_sense() {
    let api = Api::new().await;
    api.config_map("a").await;
    let send = async |headers: &[(&str, &[u8])]| -> Answer {
        let mut request = Request::get(CONFIG_MAPS);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.request(request.body(Body::empty()).unwrap()).await
    };
    let long = "application/json;a=b,".repeat(5_000);
    let table: &[(&str, &[u8], u16)] = &[
        ("accept", b"", 200),
        ("accept", b",;,=;q=", 406),
        ("accept", b"\xff\xfe", 406),
        ("accept", b"application/json;q=nan", 406),
        ("accept", b"application/json;q=-1", 406),
        ("accept", b"*/*;q=1e999", 200),
        ("accept", long.as_bytes(), 200),
        (
            "accept",
            b"application/json;as=Table;g=meta.k8s.io;v=v1;as=Table",
            200,
        ),
        ("content-type", b"\xff", 200),
        ("accept-encoding", b"\xff;q=\xff", 200),
        ("accept-encoding", b"gzip;q=nan", 200),
        ("if-none-match", b"\xff", 200),
        ("user-agent", b"\xff/\xff", 200),
        ("content-length", b"7", 200),
    ];
    for (name, value, code) in table {
        let answer = send(&[(name, value)]).await;
        let value = String::from_utf8_lossy(value);
        assert_eq!(answer.code, *code, "{name}: {value:.80}: {}", answer.text);
    }
    let many: Vec<(String, Vec<u8>)> = (0..2_000)
        .map(|n| (format!("x-{n}"), b"y".repeat(100)))
        .collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
    assert_eq!(send(&many).await.code, 200);
}

#[tokio::test]
async fn compressed_bodies_are_refused() {
    let api = Api::new().await;
    api.config_map("a").await;
    let a = format!("{CONFIG_MAPS}/a");
    // 64 MiB of blanks in a few kilobytes.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        std::io::Write::write_all(&mut encoder, &vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let body = json!({"metadata": {"name": "b"}}).to_string().into_bytes();
    let json = "application/json";
    let cases: [(Method, &str, &str, &str, &[u8]); 7] = [
        (Method::POST, CONFIG_MAPS, json, "gzip", &bomb),
        (Method::POST, CONFIG_MAPS, json, "gzip", &body),
        (Method::POST, CONFIG_MAPS, json, "identity, deflate", &body),
        (Method::POST, CONFIG_MAPS, json, "br", &body),
        (Method::PUT, &a, json, "GZIP", &bomb),
        (
            Method::PATCH,
            &a,
            "application/merge-patch+json",
            "zstd",
            &body,
        ),
        (Method::DELETE, &a, json, "x-gzip", &bomb),
    ];
    for (method, path, media_type, coding, body) in cases {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .header("content-encoding", coding)
            .body(Body::from(body.to_vec()));
        let message = api
            .request(request.unwrap())
            .await
            .fails(415, "UnsupportedMediaType");
        assert!(message.contains(coding), "{message}");
    }
    let plain = Request::post(CONFIG_MAPS)
        .header("content-type", json)
        .header("content-encoding", "identity")
        .body(Body::from(body));
    api.request(plain.unwrap()).await.ok(201);
}
