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
async fn on_the_machines_network_a_pod_has_the_machines_name() {
    let world = World::with_containers();
    let kubelet = world.start();
    let image = json!({"image": "container:v1"});
    world.pod("box", image, json!({"hostNetwork": true}));
    world.api.object(&path("box"), "it runs", is_ready).await;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let sandboxes = world.containers.as_ref().unwrap().sandboxes();
    assert_eq!(sandboxes[0].config.hostname, name.trim());
    kubelet.stop().await;
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

#[tokio::test]
async fn a_pod_with_users_of_its_own_has_the_same_everywhere_until_it_is_gone() {
    let world = World::with_containers();
    let kubelet = world.start();
    let own = json!({"hostUsers": false});
    world.pod("a", json!({"image": "container:v1"}), own.clone());
    world.pod("b", json!({"image": "container:v1"}), own.clone());
    world.pod("guest", json!({"image": "app:v1"}), own);
    for name in ["a", "b", "guest"] {
        world.api.object(&path(name), "it is ready", is_ready).await;
    }
    let in_network = |uid: &str| world.network.users.lock().get(uid).copied().flatten();
    let (a, b) = (in_network("uid-a").unwrap(), in_network("uid-b").unwrap());
    assert_ne!(a, b);
    let runtime = world.containers.as_ref().unwrap();
    for sandbox in runtime.list_pod_sandboxes().await.unwrap() {
        let expected = in_network(&sandbox.config.pod.uid);
        assert_eq!(sandbox.config.namespaces.users, expected);
    }
    // A guest has no users.
    assert_eq!(in_network("uid-guest"), None);
    for sandbox in world.runtime.list_pod_sandboxes().await.unwrap() {
        assert_eq!(sandbox.config.namespaces.users, None);
    }
    kubelet.stop().await;
    let kubelet = world.start();
    world.pod(
        "c",
        json!({"image": "container:v1"}),
        json!({"hostUsers": false}),
    );
    world.api.object(&path("c"), "it is ready", is_ready).await;
    let c = in_network("uid-c").unwrap();
    assert!(c != a && c != b);
    world.api.delete_gracefully(&path("a"), 1);
    let gone = |api: &super::api::FakeApi| api.get(&path("a")).is_none();
    world.api.until("the object is gone", gone).await;
    world.pod(
        "d",
        json!({"image": "container:v1"}),
        json!({"hostUsers": false}),
    );
    world.api.object(&path("d"), "it is ready", is_ready).await;
    assert_eq!(in_network("uid-d"), Some(a));
    kubelet.stop().await;
}
