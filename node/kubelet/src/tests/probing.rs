//! Probes, and what follows from them.

use coracle_runtime::fake::Behaviour;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, condition, is_ready, path};

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let world = World::new();
    let kubelet = world.start();
    let probe = json!({"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1});
    world.pod("sick", json!({"livenessProbe": probe}), json!({}));
    let restarted = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    };
    world
        .api
        .object(&path("sick"), "it is restarted", restarted)
        .await;
    let said = |event: &String| {
        event
            == "Unhealthy: Liveness probe failed: dial tcp 10.42.0.1:9: connect: connection refused"
    };
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    let killed = |event: &String| {
        event == "Killing: Container main failed liveness probe, will be restarted"
    };
    world
        .api
        .until("another too", |api| api.events().iter().any(killed))
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_probe_that_cannot_be_tried_says_nothing_of_its_container() {
    let world = World::new();
    let kubelet = world.start();
    let probe = json!({"tcpSocket": {"port": "none"}, "periodSeconds": 1, "failureThreshold": 1});
    world.pod("web", json!({"livenessProbe": probe}), json!({}));
    let said = "Unhealthy: Liveness probe errored and resulted in unknown state: couldn't find port: \
                none";
    world
        .api
        .until(said, |api| api.events().iter().any(|event| event == said))
        .await;
    let pod = world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_probe_that_finds_out_nothing_is_tried_again_at_once() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        // Two answers break off.
        for length in [9, 9, 5] {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nwhole");
            stream.write_all(said.as_bytes()).await.unwrap();
        }
    });
    let kubelet = world.start();
    let get = json!({"host": "127.0.0.1", "port": port});
    let probe = json!({"httpGet": get, "periodSeconds": 86400, "timeoutSeconds": 20});
    world.pod("web", json!({"readinessProbe": probe}), json!({}));
    world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    server.await.unwrap();
    kubelet.stop().await;
}

#[tokio::test]
async fn readiness_follows_its_probe() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let app = axum::Router::new().route("/ok", axum::routing::get(|| async { "fine" }));
    let server = tokio::spawn(async move { axum::serve(socket, app).await });
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    world.runtime.behave("main", listens);
    let kubelet = world.start();
    let probe = |path: &str| json!({"httpGet": {"port": port, "path": path}, "periodSeconds": 1});
    world.pod("good", json!({"readinessProbe": probe("/ok")}), json!({}));
    world
        .api
        .object(&path("good"), "good is ready", is_ready)
        .await;
    world.pod("bad", json!({"readinessProbe": probe("/none")}), json!({}));
    let said = |event: &String| {
        event == "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 404"
    };
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    let pod = world.api.get(&path("bad")).unwrap();
    assert_ne!(condition(&pod, "Ready"), "True");
    kubelet.stop().await;
    server.abort();
}

#[tokio::test]
async fn readiness_is_probed_to_the_end() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let stubborn = Behaviour {
        listens: vec![port],
        ignores_stop: true,
        ..Behaviour::default()
    };
    world.runtime.behave("main", stubborn);
    let kubelet = world.start();
    let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 1});
    let probes = json!({"readinessProbe": probe, "livenessProbe": probe});
    world.pod("slow", probes, json!({}));
    world
        .api
        .object(&path("slow"), "it is ready", is_ready)
        .await;
    world.api.delete_gracefully(&path("slow"), 3600);
    let stopping = |event: &String| event == "Killing: Stopping container main";
    world
        .api
        .until("it ends", |api| api.events().iter().any(stopping))
        .await;
    drop(socket);
    let unready = |pod: &serde_json::Value| condition(pod, "Ready") == "False";
    let pod = world
        .api
        .object(&path("slow"), "it serves no more", unready)
        .await;
    let container = &pod["status"]["containerStatuses"][0];
    assert!(!container["state"]["running"].is_null());
    assert_eq!(pod["status"]["phase"], "Running");
    let killed = |event: &String| event.contains("failed liveness probe");
    assert!(!world.api.events().iter().any(killed));
    kubelet.stop().await;
}

#[tokio::test]
async fn grpc_probes_hear_the_health_service() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    // Says how it is in the one way of the protocol: the name of the service decides.
    let check = |request: axum::extract::Request| async {
        let asked = axum::body::to_bytes(request.into_body(), 100).await;
        let serves = asked.unwrap().ends_with(b"fine");
        let answer = bytes::Bytes::from(vec![0, 0, 0, 0, 2, 8, if serves { 1 } else { 2 }]);
        let status = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        use http_body_util::BodyExt;
        let ended = std::future::ready(Some(Ok(status)));
        axum::body::Body::new(http_body_util::Full::new(answer).with_trailers(ended))
    };
    let app = axum::Router::new().route("/grpc.health.v1.Health/Check", axum::routing::post(check));
    let server = tokio::spawn(async move { axum::serve(socket, app).await });
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    world.runtime.behave("main", listens);
    let kubelet = world.start();
    let probe = |service: &str, port: u16| {
        let grpc = json!({"port": port, "service": service});
        json!({"readinessProbe": {"grpc": grpc, "periodSeconds": 1}})
    };
    world.pod("good", probe("fine", port), json!({}));
    world
        .api
        .object(&path("good"), "good is ready", is_ready)
        .await;
    world.pod("bad", probe("ill", port), json!({}));
    world.pod("gone", probe("fine", 9), json!({}));
    for [begins, ends] in [
        ["service unhealthy (responded with \"NOT_SERVING\")", ""],
        [
            "error: failed to connect service at \"10.42.0.",
            ":9: connect: connection refused",
        ],
    ] {
        let begins = format!("Unhealthy: Readiness probe failed: {begins}");
        let said = |event: &String| event.starts_with(&begins) && event.ends_with(ends);
        world
            .api
            .until(&begins, |api| api.events().iter().any(said))
            .await;
    }
    for name in ["bad", "gone"] {
        let pod = world.api.get(&path(name)).unwrap();
        assert_ne!(condition(&pod, "Ready"), "True");
    }
    kubelet.stop().await;
    server.abort();
}
