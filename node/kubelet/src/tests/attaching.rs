//! How Pods come into the network: by what their images hold.

use coracle_runtime::{Network, RuntimeService};
use serde_json::{Value, json};

use super::world::{World, is_ready, path};

/// The networks of a Pod's sandboxes, wasm's first.
async fn networks(world: &World) -> Vec<Network> {
    let mut found = Vec::new();
    for runtime in [Some(&world.runtime), world.containers.as_ref()] {
        let Some(runtime) = runtime else { continue };
        let sandboxes = runtime.list_pod_sandboxes().await.unwrap();
        let networks = sandboxes.into_iter().map(|of| of.config.namespaces.network);
        found.extend(networks);
    }
    found
}

async fn ready(world: &World, image: &str, more: Value) -> Value {
    let mut spec = json!({});
    if !more.is_null() {
        spec["initContainers"] =
            json!([{"name": "beside", "image": more, "restartPolicy": "Always"}]);
    }
    world.pod("a", json!({"image": image}), spec);
    world.api.object(&path("a"), "it is ready", is_ready).await
}

#[tokio::test]
async fn one_container_gives_the_pod_a_namespace_for_its_guests_too() {
    let own = Network::Namespace("netns/10.42.0.1".into());
    for (image, more, wanted) in [
        ("app:v1", Value::Null, vec![Network::Loopback]),
        ("app:v1", json!("app:v2"), vec![Network::Loopback]),
        ("container:v1", Value::Null, vec![own.clone()]),
        // The first to be made is a guest, and the image of the other one was not here.
        ("container", json!("app:v1"), vec![own.clone(), own.clone()]),
        ("app", json!("container:v1"), vec![own.clone(), own.clone()]),
    ] {
        let world = World::with_containers();
        let kubelet = world.start();
        let pod = ready(&world, image, more).await;
        assert_eq!(networks(&world).await, wanted, "{image}");
        assert_eq!(pod["status"]["podIP"], "10.42.0.1");
        kubelet.stop().await;
        // The next agent joins it as it is, and takes it out again.
        let kubelet = world.start();
        world.api.delete_gracefully(&path("a"), 1);
        let gone = |api: &super::api::FakeApi| api.get(&path("a")).is_none();
        world.api.until("the object is gone", gone).await;
        assert_eq!(world.network.given(), 0);
        kubelet.stop().await;
    }
}

#[tokio::test]
async fn ports_of_the_machine_are_the_pods_while_it_is_in_the_network() {
    let world = World::new();
    let kubelet = world.start();
    let port = |host: u16| json!({"containerPort": 80, "hostPort": host});
    world.pod("a", json!({"ports": [port(8080)]}), json!({}));
    world.api.object(&path("a"), "it is ready", is_ready).await;
    let held = |uid: &str| world.network.host_ports.lock().get(uid).cloned();
    let ports = held("uid-a").unwrap();
    assert_eq!(
        (ports.len(), ports[0].port, ports[0].pod_port),
        (1, 8080, 80)
    );
    // Bound without the scheduler, or on stale knowledge.
    world.pod("b", json!({"ports": [port(8080)]}), json!({}));
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = world.api.object(&path("b"), "it is refused", failed).await;
    assert_eq!(pod["status"]["reason"], "NodePorts");
    assert_eq!(held("uid-b"), None);
    world.api.delete_gracefully(&path("a"), 1);
    let gone = |api: &super::api::FakeApi| api.get(&path("a")).is_none();
    world.api.until("the object is gone", gone).await;
    assert_eq!(held("uid-a"), None);
    kubelet.stop().await;
}
