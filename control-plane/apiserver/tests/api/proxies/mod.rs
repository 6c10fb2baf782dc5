//! pods/proxy, services/proxy and nodes/proxy, to a kubelet and Pods of the tests' own.

mod world;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{DEADLINE, PODS, pod};
use crate::tls::{connect, serve};
use world::{NODE, POD, World, node_at};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

#[tokio::test]
async fn a_pod_hears_what_it_is_sent() {
    let world = World::new().await;
    let below = format!("{PODS}/web/proxy/a%2Fb/../c//d/?x=1&timeout=soon");
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let request = Request::builder()
            .method(method)
            .uri(&below)
            .header("host", "api:6443")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "jane")
            .header("impersonate-group", "system:masters")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-mine", "2")
            .body(Body::from("sent"))
            .unwrap();
        let answer = world.api.request(request).await;
        let heard = answer.ok(201);
        assert_eq!(heard["method"], method);
        assert_eq!(heard["uri"], "/c/d/?x=1&timeout=soon");
        assert_eq!(heard["body"], "sent");
        let headers = &heard["headers"];
        assert_eq!(headers["host"], "api:6443");
        assert_eq!(headers["x-mine"], "2");
        let uri = format!("{PODS}/web/proxy/c/d/");
        assert_eq!(headers["x-forwarded-uri"], *uri);
        for name in [
            "authorization",
            "impersonate-user",
            "impersonate-group",
            "connection",
            "x-hop",
        ] {
            assert_eq!(headers[name], Value::Null, "{name}");
        }
    }
    let head = format!("{PODS}/web/proxy/a");
    let answer = world.api.raw(Method::HEAD, &head, "", Body::empty()).await;
    assert_eq!((answer.code, &*answer.text), (201, ""));
    let trace = world.api.raw(Method::TRACE, &head, "", Body::empty()).await;
    trace.fails(405, "MethodNotAllowed");
}

#[tokio::test]
async fn ports_are_the_first_or_the_one_that_is_named() {
    let world = World::new().await;
    let (port, tls) = (world.port, world.tls_port);
    for name in [
        "web".to_owned(),
        "http:web:".to_owned(),
        "web:http".to_owned(),
        format!("web:{port}"),
        format!("http%3Aweb%3A{port}"),
        format!("https:web:{tls}"),
        "https:web:https".to_owned(),
    ] {
        let heard = world.get(&name, "/x").await.ok(201);
        assert_eq!(heard["uri"], "/x", "{name}");
    }
}

#[tokio::test]
async fn links_and_redirections_lead_through_the_proxy() {
    let world = World::new().await;
    let root = format!("{PODS}/web/proxy");
    for method in [Method::GET, Method::HEAD] {
        let path = format!("{root}?a=/b");
        let moved = world.api.raw(method, &path, "", Body::empty()).await;
        assert_eq!(moved.code, 301);
        assert_eq!(moved.headers["location"], format!("{root}/?a=/b"));
    }
    // Without a path all other methods mean the root.
    let posted = world.api.post(&root, &json!({})).await.ok(201);
    assert_eq!(posted["uri"], "/");

    let page = world.get("web", "/page").await;
    assert_eq!(page.text, format!(r#"<a href="{root}/rewriteme">test</a>"#));
    assert_eq!(page.headers.get("content-length"), None);
    let moved = world.get("web", "/moved").await;
    assert_eq!(moved.code, 302);
    assert_eq!(moved.headers["location"], format!("{root}/elsewhere/?a=b"));
}

#[tokio::test]
async fn where_no_proxy_leads_is_said() {
    let world = World::new().await;
    let said = |name: &'static str, code, reason: &'static str| {
        let answer = world.get(name, "/");
        async move { answer.await.fails(code, reason) }
    };
    let message = said("a:b:c:d", 400, "BadRequest").await;
    assert_eq!(message, r#"invalid pod request "a:b:c:d""#);
    said("ftp:web:21", 400, "BadRequest").await;
    let message = said("none", 404, "NotFound").await;
    assert_eq!(message, r#"pods "none" not found"#);
    let message = said("web:65536", 503, "ServiceUnavailable").await;
    assert!(message.contains("invalid port"), "{message}");
    let message = said("web:none", 503, "ServiceUnavailable").await;
    assert!(message.contains("unknown port"), "{message}");
    // Nobody listens there.
    let message = said("web:1", 503, "ServiceUnavailable").await;
    assert!(
        message.starts_with("error trying to reach service: ") && message.contains("refused"),
        "{message}"
    );
    let message = said("https:web:http", 503, "ServiceUnavailable").await;
    assert!(message.contains("tls: "), "{message}");
    let message = said("web:https", 503, "ServiceUnavailable").await;
    assert!(message.starts_with("error trying to reach"), "{message}");
    let dry = world.get("web", "/?dryRun=All").await;
    assert_eq!(dry.fails(400, "BadRequest"), "dryRun is not supported");

    // It has no address yet; or one that is nobody's.
    let mut body = pod("other");
    body["spec"]["nodeName"] = json!("n1");
    world.api.post(PODS, &body).await.ok(201);
    let message = said("other", 400, "BadRequest").await;
    assert_eq!(message, "address not allowed");
    world.pod_at("other", "127.0.0.1").await;
    let message = said("other", 400, "BadRequest").await;
    assert_eq!(message, "address not allowed");
    // Paths below are a proxy's alone.
    world
        .api
        .get(&format!("{PODS}/web/log/x"))
        .await
        .fails(404, "NotFound");
    world
        .api
        .get("/api/v1/pods/web/proxy/")
        .await
        .fails(404, "NotFound");
}

/// Makes a slice of a Service's with one endpoint.
async fn slice(world: &World, name: &str, service: &str, port: Value, endpoint: Value) {
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [port], "endpoints": [endpoint],
    });
    world.api.post(SLICES, &slice).await.ok(201);
}

#[tokio::test]
async fn a_service_leads_to_its_endpoints_that_are_pods() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [
        {"name": "plain", "port": 80, "targetPort": "http"}, {"name": "tls", "port": 443},
    ]}});
    world.api.post(SERVICES, &service).await.ok(201);
    let get = |name: &str| {
        let path = format!("{SERVICES}/{name}/proxy/x?y");
        let api = world.api.clone();
        async move { api.get(&path).await }
    };
    let none = r#"no endpoints available for service "s""#;
    let message = get("s:80").await.fails(503, "ServiceUnavailable");
    assert_eq!(message, none);
    let message = get("s:81").await.fails(503, "ServiceUnavailable");
    assert_eq!(message, r#"no service port 81 found for service "s""#);
    get("none:80").await.fails(404, "NotFound");
    get("none:plain").await.fails(503, "ServiceUnavailable");
    get("a,b:plain").await.fails(503, "ServiceUnavailable");
    let message = get("x:s:80").await.fails(400, "BadRequest");
    assert_eq!(message, r#"invalid service request "x:s:80""#);

    // Whoever writes such a slice by hand leads nobody anywhere.
    let plain = json!({"name": "plain", "port": world.port});
    let web = json!({"kind": "Pod", "namespace": "default", "name": "web"});
    for (name, address, pod) in [
        ("nobody", POD, Value::Null),
        ("elsewhere", "10.42.0.6", web.clone()),
        (
            "missing",
            POD,
            json!({"kind": "Pod", "namespace": "default", "name": "none"}),
        ),
    ] {
        let endpoint = json!({"addresses": [address], "targetRef": pod});
        slice(&world, name, "s", plain.clone(), endpoint).await;
        let message = get("s:80").await.fails(503, "ServiceUnavailable");
        assert_eq!(message, none, "{name}");
    }

    let endpoint = json!({"addresses": [POD], "targetRef": web});
    slice(&world, "plain", "s", plain, endpoint.clone()).await;
    let tls = json!({"name": "tls", "port": world.tls_port});
    slice(&world, "tls", "s", tls, endpoint).await;
    for name in [
        "s:80",
        "s:plain",
        "http:s:plain",
        "https:s:443",
        "https:s:tls",
    ] {
        let heard = get(name).await.ok(201);
        assert_eq!(heard["uri"], "/x?y", "{name}");
        let uri = format!("{SERVICES}/{name}/proxy/x");
        assert_eq!(heard["headers"]["x-forwarded-uri"], *uri);
    }
    // The one without a name is meant where none is named.
    let message = get("s").await.fails(503, "ServiceUnavailable");
    assert_eq!(message, none);
}

#[tokio::test]
async fn a_node_leads_to_its_kubelet_or_to_another_port() {
    let world = World::new().await;
    let get = |name: &str, below: &str| {
        let path = format!("/api/v1/nodes/{name}/proxy{below}");
        let api = world.api.clone();
        async move { api.get(&path).await }
    };
    for name in ["n1", "n1:10250", "https:n1:10250", "http:n1:"] {
        let answer = get(name, "/stats/summary?x").await;
        assert_eq!((answer.code, &*answer.text), (200, "/stats/summary?x"));
    }
    assert_eq!(get("n1", "").await.code, 301);
    let heard = get(&format!("n1:{}", world.port), "/x").await.ok(201);
    assert_eq!(heard["uri"], "/x");
    let heard = get(&format!("https:n1:{}", world.tls_port), "/x")
        .await
        .ok(201);
    assert_eq!(heard["uri"], "/x");
    get("none", "/").await.fails(404, "NotFound");
    get("n1:x", "/").await.fails(503, "ServiceUnavailable");
    get("n1:1", "/").await.fails(503, "ServiceUnavailable");
    get("a:b:c:d", "/").await.fails(400, "BadRequest");
    for address in ["127.0.0.1", "169.254.169.254", "localhost"] {
        node_at(&world.api, address).await;
        let message = get("n1", "/").await.fails(400, "BadRequest");
        assert_eq!(message, "address not allowed", "{address}");
    }
    node_at(&world.api, NODE).await;
    assert_eq!(get("n1", "/").await.code, 200);
}

#[tokio::test]
async fn bodies_come_as_they_are_sent_and_end_with_their_readers() {
    let world = World::new().await;
    let path = format!("{PODS}/web/proxy/stream");
    let request = Request::get(&path).body(Body::empty()).unwrap();
    let mut body = world.api.send(request).await.into_body();
    for piece in ["one", "two"] {
        let sent = world.pieces.send(Ok(Bytes::from_static(piece.as_bytes())));
        sent.await.unwrap();
        let frame = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
    }
    drop(body);
    let gone = world.pieces.closed();
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

#[tokio::test]
async fn what_breaks_off_is_not_whole() {
    let world = World::new().await;
    let path = format!("{PODS}/web/proxy/stream");
    let request = Request::get(&path).body(Body::empty()).unwrap();
    let body = world.api.send(request).await.into_body();
    world
        .pieces
        .send(Ok(Bytes::from_static(b"one")))
        .await
        .unwrap();
    let broken = std::io::ErrorKind::ConnectionReset;
    world.pieces.send(Err(broken.into())).await.unwrap();
    let read = tokio::time::timeout(DEADLINE, body.collect())
        .await
        .unwrap();
    assert!(read.is_err());
    let huge = world.get("web", "/huge").await;
    let message = huge.fails(503, "ServiceUnavailable");
    assert!(message.starts_with("error trying to reach"), "{message}");
}

#[tokio::test]
async fn connections_are_upgraded_to_whatever_the_other_side_speaks() {
    let world = World::new().await;
    let served = serve(&world.api).await;
    let ask = async |protocol: &str| {
        let admin = served.ca.sign("admin", &["system:masters"], &[]);
        let mut stream = connect(&served, Some(admin), false).await.unwrap();
        let request = format!(
            "GET {PODS}/web/proxy?a HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\n\
             Upgrade: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    };
    let (head, mut stream) = ask("echo").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("upgrade: echo\r\n"), "{head}");
    for said in [&b"hello"[..], &[b'x'; 100_000]] {
        let mut heard = vec![0; said.len()];
        let (mut from, mut to) = tokio::io::split(&mut stream);
        let echoed = async { tokio::try_join!(to.write_all(said), from.read_exact(&mut heard)) };
        tokio::time::timeout(DEADLINE, echoed)
            .await
            .unwrap()
            .unwrap();
        assert!(heard == said);
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest));
    assert_eq!(end.await.unwrap().unwrap(), 0);

    let (head, _) = ask("unknown").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let (head, _) = ask("ignored").await;
    assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();

    // Over a connection that cannot be upgraded nothing is begun.
    let request = Request::get(format!("{PODS}/web/proxy/"))
        .header("connection", "upgrade")
        .header("upgrade", "echo");
    let answer = world
        .api
        .request(request.body(Body::empty()).unwrap())
        .await;
    let message = answer.fails(400, "BadRequest");
    assert!(message.contains("cannot be upgraded"), "{message}");
}
