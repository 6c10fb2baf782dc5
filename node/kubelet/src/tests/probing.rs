//! Probes, and what follows from them.

use coracle_runtime::fake::Behaviour;
use serde_json::json;

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
