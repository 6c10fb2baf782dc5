//! Pods that are too much for their node.

use std::time::Duration;

use coracle_runtime::fake::Behaviour;
use coracle_runtime::usage::DiskUsage;
use serde_json::{Value, json};

use super::world::{World, condition, is_ready, path};
use crate::{EvictionPolicy, parse_thresholds};

fn evicted(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed" && pod["status"]["reason"] == "Evicted"
}

#[tokio::test]
async fn a_pod_over_its_local_storage_is_evicted_and_others_run_on() {
    let world = World::new();
    let written = DiskUsage {
        bytes: 20 << 20,
        inodes: 3,
    };
    world.runtime.write_layer("main", written);
    let kubelet = world.start();
    let limit = |limit: &str| json!({"resources": {"limits": {"ephemeral-storage": limit}}});
    world.pod("small", limit("1Gi"), json!({}));
    world.api.object(&path("small"), "it runs", is_ready).await;
    world.pod("big", limit("10Mi"), json!({}));
    let pod = world
        .api
        .object(&path("big"), "it is evicted", evicted)
        .await;
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ";
    assert_eq!(pod["status"]["message"], message);
    let event = format!("Evicted: {message}");
    let written = |api: &super::api::FakeApi| api.events().contains(&event);
    world.api.until("an event says so", written).await;

    let volumes = json!({"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]});
    world.pod("full", json!({}), volumes);
    world.api.object(&path("full"), "it runs", is_ready).await;
    let folder = "kubelet/pods/uid-full/volumes/kubernetes.io~empty-dir/scratch";
    let folder = world.root.path().join(folder);
    std::fs::write(folder.join("file"), vec![1; 2 << 20]).unwrap();
    let pod = world
        .api
        .object(&path("full"), "it is evicted", evicted)
        .await;
    let message = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ";
    assert_eq!(pod["status"]["message"], message);
    let small = world.api.get(&path("small")).unwrap();
    assert!(is_ready(&small), "{small}");
    assert_eq!(world.runtime.running(), 1);
    kubelet.stop().await;
}

fn hard(text: &str) -> EvictionPolicy {
    EvictionPolicy {
        hard: parse_thresholds(text).unwrap(),
        period: Duration::from_millis(50),
        ..EvictionPolicy::default()
    }
}

/// A machine whose threads are above what is allowed: a threshold that no machine reaches.
const NEVER_ENOUGH: u64 = i64::MAX as u64;

#[tokio::test]
async fn a_node_that_is_short_says_so_refuses_pods_and_ends_one() {
    let mut world = World::new();
    let kubelet = world.start();
    let priority = |value: i32| json!({"priority": value});
    world.pod("low", json!({}), priority(-1));
    world.pod("critical", json!({}), priority(2_000_000_000));
    for name in ["low", "critical"] {
        world.api.object(&path(name), "it runs", is_ready).await;
    }
    kubelet.stop().await;

    world.policy.eviction = hard(&format!("memory.available<{NEVER_ENOUGH}"));
    let kubelet = world.start();
    let pod = world
        .api
        .object(&path("low"), "it is evicted", evicted)
        .await;
    let message = pod["status"]["message"].as_str().unwrap();
    let begin = "The node was low on resource: memory. Threshold quantity: 9223372036854775807, available: ";
    let end = "Container main was using 1Mi, request is 0, has larger consumption of memory. ";
    assert!(
        message.starts_with(begin) && message.ends_with(end),
        "{message}"
    );
    assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    let pressed = |node: &Value| condition(node, "MemoryPressure") == "True";
    world
        .api
        .object("/api/v1/nodes/n1", "the node says so", pressed)
        .await;
    world.pod("late", json!({}), json!({}));
    let pod = world
        .api
        .object(&path("late"), "it is refused", evicted)
        .await;
    let text = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!(pod["status"]["message"], text);
    for event in [
        "EvictionThresholdMet: Attempting to reclaim memory",
        "NodeHasInsufficientMemory: Node n1 status is now: NodeHasInsufficientMemory",
    ] {
        let written = |api: &super::api::FakeApi| api.events().iter().any(|of| of == event);
        world.api.until(event, written).await;
    }
    // Nobody else may end.
    assert!(is_ready(&world.api.get(&path("critical")).unwrap()));
    assert_eq!(world.runtime.running(), 1);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_node_that_is_short_of_inodes_ends_a_pod() {
    let mut world = World::new();
    let disk = rustix::fs::statvfs(world.root.path()).unwrap();
    if disk.f_files == 0 {
        eprintln!("SKIPPED: a disk has as many inodes as it needs");
        return;
    }
    let kubelet = world.start();
    world.pod("web", json!({}), json!({}));
    world.api.object(&path("web"), "it runs", is_ready).await;
    kubelet.stop().await;

    world.policy.eviction = hard(&format!("nodefs.inodesFree<{NEVER_ENOUGH}"));
    let kubelet = world.start();
    let pod = world
        .api
        .object(&path("web"), "it is evicted", evicted)
        .await;
    let message = pod["status"]["message"].as_str().unwrap();
    let begin = "The node was low on resource: inodes. Threshold quantity: 9223372036854775807, ";
    assert!(message.starts_with(begin), "{message}");
    let pressed = |node: &Value| condition(node, "DiskPressure") == "True";
    world
        .api
        .object("/api/v1/nodes/n1", "the node says so", pressed)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_pod_goes_for_a_critical_one() {
    let world = World::new();
    let kubelet = world.start();
    let asking = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
    for (name, cpu) in [("small", "500m"), ("large", "1500m")] {
        world.pod(name, asking(cpu), json!({}));
        world.api.object(&path(name), "it is ready", is_ready).await;
    }
    let priority = json!({"priority": 2_000_001_000});
    world.pod("vital", asking("1"), priority);
    world
        .api
        .object(&path("vital"), "it is ready", is_ready)
        .await;
    // It leaves its room before that is told.
    let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
    let large = path("large");
    let gone = world.api.object(&large, "it has failed", failed).await;
    assert_eq!(gone["status"]["reason"], "Preempting");
    assert_eq!(condition(&gone, "DisruptionTarget"), "True");
    assert!(is_ready(&world.api.get(&path("small")).unwrap()));
    let said = "Preempting: Preempted in order to admit critical pod";
    world
        .api
        .until(said, |api| api.events().iter().any(|event| event == said))
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn what_has_ended_and_images_make_room_first() {
    let mut world = World::new();
    let once = Behaviour {
        exits: Some(0),
        ..Behaviour::default()
    };
    world.runtime.behave("once:v1", once);
    let kubelet = world.start();
    world.pod(
        "done",
        json!({"image": "once:v1"}),
        json!({"restartPolicy": "Never"}),
    );
    let done = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    world.api.object(&path("done"), "it ends", done).await;
    kubelet.stop().await;
    assert_eq!(world.runtime.list().len(), 1);

    world.policy.eviction = hard("nodefs.available<99.999%");
    world.policy.images.minimum_age = Duration::ZERO;
    let kubelet = world.start();
    let pressed = |node: &Value| condition(node, "DiskPressure") == "True";
    world
        .api
        .object("/api/v1/nodes/n1", "the node says so", pressed)
        .await;
    let none = |node: &Value| {
        node["status"]["images"]
            .as_array()
            .is_some_and(Vec::is_empty)
    };
    world
        .api
        .object("/api/v1/nodes/n1", "no image is left", none)
        .await;
    assert!(world.runtime.list().is_empty());
    assert!(done(&world.api.get(&path("done")).unwrap()));
    kubelet.stop().await;
}
