//! Pods that are too much for their node.

use coracle_runtime::usage::DiskUsage;
use serde_json::{Value, json};

use super::world::{World, is_ready, path};

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
