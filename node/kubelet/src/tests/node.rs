//! The node's own objects, and many Pods at once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::world::{World, condition, is_ready, path};

#[tokio::test]
async fn the_node_registers_with_its_lease() {
    let world = World::new();
    let kubelet = world.start();
    kubelet.kubelet.registered().await;
    let node = world.api.get("/api/v1/nodes/n1").unwrap();
    let status = &node["status"];
    assert_eq!(status["nodeInfo"]["kubeletVersion"], "v1.37.0+coracle");
    assert_eq!(
        status["nodeInfo"]["containerRuntimeVersion"],
        "wasm://1.0.0"
    );
    assert_eq!(
        (&status["capacity"]["pods"], &status["allocatable"]["cpu"]),
        (&json!("110"), &json!("2"))
    );
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(node["spec"]["podCIDR"], "10.42.0.0/24");
    assert_eq!(
        status["features"],
        json!({"supplementalGroupsPolicy": true})
    );
    assert!(is_ready(&node));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let held = |lease: &serde_json::Value| lease["spec"]["holderIdentity"] == "n1";
    let lease = world.api.object(lease, "the lease is held", held).await;
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    kubelet.stop().await;

    // Another start takes the same object over.
    world.api.change("/api/v1/nodes/n1", |node| {
        node["status"]["conditions"] = json!([]);
        node["metadata"]["labels"] = json!({"mine": "kept"});
    });
    let kubelet = world.start();
    let node = world
        .api
        .object("/api/v1/nodes/n1", "it is ready again", is_ready)
        .await;
    assert_eq!(node["metadata"]["labels"]["mine"], "kept");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "linux");
    kubelet.stop().await;
}

#[tokio::test]
async fn a_node_that_was_given_up_says_that_it_is_there() {
    let world = World::new();
    let path = "/api/v1/nodes/n1";
    let kubelet = world.start();
    kubelet.kubelet.registered().await;
    world.api.change(path, |node| {
        let conditions = node["status"]["conditions"].as_array_mut().unwrap();
        for condition in conditions {
            condition["status"] = json!("Unknown");
        }
    });
    world.api.object(path, "it is ready again", is_ready).await;
    world.api.change(path, |node| {
        node["spec"]["unschedulable"] = json!(true);
    });
    let said = "NodeNotSchedulable: Node n1 status is now: NodeNotSchedulable";
    world
        .api
        .until(said, |api| api.events().iter().any(|event| event == said))
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_node_that_was_given_up_says_so_once() {
    let world = World::new();
    let path = "/api/v1/nodes/n1";
    let kubelet = world.start();
    kubelet.kubelet.registered().await;
    // What is told of it shows how far the node has read.
    let cordon = async |is: bool, event: &str| {
        world.api.change(path, |node| {
            node["spec"]["unschedulable"] = json!(is);
        });
        let said = format!("{event}: Node n1 status is now: {event}");
        let told = |api: &super::api::FakeApi| api.events().contains(&said);
        world.api.until(&said, told).await;
    };
    cordon(true, "NodeNotSchedulable").await;
    let before = world.api.status_patches(path);
    world.api.change(path, |node| {
        let conditions = node["status"]["conditions"].as_array_mut().unwrap();
        for condition in conditions {
            condition["status"] = json!("Unknown");
        }
    });
    // Before it has heard of that, another change follows.
    world.api.change(path, |node| {
        node["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
    });
    world.api.object(path, "it is ready again", is_ready).await;
    cordon(false, "NodeSchedulable").await;
    assert_eq!(world.api.status_patches(path), before + 1);
    kubelet.stop().await;
}

#[tokio::test]
async fn pods_of_a_node_that_was_given_up_are_ready_again() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("web", json!({}), json!({}));
    let path = path("web");
    world.api.object(&path, "it is ready", is_ready).await;
    world.api.change(&path, |pod| {
        let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
        for condition in conditions.iter_mut().filter(|of| of["type"] == "Ready") {
            condition["status"] = json!("False");
            condition["reason"] = json!("NodeNotReady");
        }
        conditions.push(json!({"type": "example.com/other", "status": "True"}));
    });
    let pod = world.api.object(&path, "it is again", is_ready).await;
    assert_eq!(condition(&pod, "example.com/other"), "True");
    kubelet.stop().await;
}

#[tokio::test]
async fn a_lease_is_that_of_the_node_of_now() {
    let world = World::new();
    let (node, lease) = (
        "/api/v1/nodes/n1",
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
    );
    world.api.refuse(lease, Some(503));
    let kubelet = world.start();
    kubelet.kubelet.registered().await;
    let mut other = world.api.get(node).unwrap();
    world.api.remove(node);
    other["metadata"]["uid"] = json!("other");
    world.api.put(node, other);
    world.api.refuse(lease, None);
    let owned =
        |lease: &serde_json::Value| lease["metadata"]["ownerReferences"][0]["uid"] == "other";
    world
        .api
        .object(lease, "it is that of the other", owned)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_hundred_pods_start_without_a_pause() {
    let world = World::new();
    let kubelet = world.start();
    kubelet.kubelet.registered().await;
    let before = Instant::now();
    let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    for name in &names {
        world.pod(name, json!({}), json!({}));
    }
    let all_ready = |api: &super::api::FakeApi| {
        names
            .iter()
            .all(|name| api.get(&path(name)).is_some_and(|pod| is_ready(&pod)))
    };
    world.api.until("all are ready", all_ready).await;
    // No timer lies on the way: with one, a hundred Pods would need seconds.
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(world.runtime.running(), 100);
    kubelet.stop().await;
}
