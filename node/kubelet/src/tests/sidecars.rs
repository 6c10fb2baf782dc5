//! Pods whose own containers have containers beside them.

use std::time::Duration;

use coracle_runtime::fake::{Behaviour, FakeRuntime, Verb};
use serde_json::{Value, json};

use super::world::{World, is_ready, path};

fn sidecar(name: &str) -> Value {
    json!({"name": name, "image": "app:v1", "restartPolicy": "Always"})
}

fn stubborn() -> Behaviour {
    Behaviour {
        ignores_stop: true,
        ..Behaviour::default()
    }
}

/// The containers that were told to end, in order.
fn stopped(world: &World) -> Vec<String> {
    let calls = world.runtime.calls().into_iter();
    let stops = calls.filter(|(verb, _)| *verb == Verb::StopContainer);
    stops.map(|(_, name)| name).collect()
}

#[tokio::test]
async fn a_pod_has_not_succeeded_while_a_sidecar_runs() {
    let world = World::new();
    world.runtime.behave("one", stubborn());
    let kubelet = world.start();
    let spec = json!({
        "restartPolicy": "Never", "initContainers": [sidecar("one"), sidecar("two")],
    });
    world.pod("job", json!({}), spec);
    world
        .api
        .object(&path("job"), "it is ready", is_ready)
        .await;
    let main = world.runtime.container("main").unwrap().id;
    world.runtime.exit(&main, 0, "Completed", "");
    let two_ended = |pod: &Value| {
        let state = &pod["status"]["initContainerStatuses"][1]["state"];
        !state["terminated"].is_null()
    };
    let pod = world
        .api
        .object(&path("job"), "two has ended", two_ended)
        .await;
    let state = &pod["status"]["containerStatuses"][0]["state"];
    assert_eq!(state["terminated"]["exitCode"], 0);
    assert_eq!(pod["status"]["phase"], "Running");
    let one = |_: &FakeRuntime| stopped(&world).len() == 2;
    world.runtime.wait_until("one is being stopped", one).await;
    assert_eq!(stopped(&world), ["two", "one"], "the last begun goes first");
    let one = world.runtime.container("one").unwrap().id;
    world.runtime.exit(&one, 0, "Completed", "");
    let done = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    world
        .api
        .object(&path("job"), "it has succeeded", done)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_sidecar_hears_of_the_end_before_it_is_its_turn() {
    let world = World::new();
    world.runtime.behave("main", stubborn());
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut one = sidecar("one");
    one["lifecycle"] = json!({"preStop": {"tcpSocket": {"host": "127.0.0.1", "port": port}}});
    let kubelet = world.start();
    world.pod("web", json!({}), json!({"initContainers": [one]}));
    world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    world.api.delete_gracefully(&path("web"), 3600);
    let told = tokio::time::timeout(Duration::from_secs(10), socket.accept()).await;
    told.expect("its hook ran").unwrap();
    let main = |_: &FakeRuntime| !stopped(&world).is_empty();
    world
        .runtime
        .wait_until("main is being stopped", main)
        .await;
    assert_eq!(stopped(&world), ["main"]);
    let main = world.runtime.container("main").unwrap().id;
    world.runtime.exit(&main, 0, "Completed", "");
    world
        .api
        .until("the object is gone", |api| api.get(&path("web")).is_none())
        .await;
    assert_eq!(stopped(&world), ["main", "one"]);
    kubelet.stop().await;
}
