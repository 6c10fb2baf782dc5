//! Volumes as a Pod sees them, through the whole kubelet.

use coracle_runtime::fake::Verb;
use serde_json::{Value, json};

use super::world::{World, is_ready, path, waiting};
use crate::Use;
use crate::inotify::{WatchFlags, Watcher};

/// Starts the Pod `vol` with these volumes and mounts, and waits until it is ready.
async fn start(world: &World, volumes: Value, mounts: Value) {
    let container = json!({"volumeMounts": mounts});
    world.pod("vol", container, json!({"volumes": volumes}));
    let api = &world.api;
    api.object(&path("vol"), "vol is ready", is_ready).await;
}

#[tokio::test]
async fn volumes_are_made_before_containers_and_follow_the_pod() {
    let world = World::new();
    let kubelet = world.start();
    let volumes = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "me", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]);
    let mounts = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "me", "mountPath": "/me"},
    ]);
    start(&world, volumes, mounts).await;
    let container = world.runtime.container("main").unwrap();
    let labels = container.config.mounts[1].host_path.join("labels");
    assert!(container.config.mounts[0].host_path.is_dir());
    assert_eq!(std::fs::read_to_string(&labels).unwrap(), "");
    world.api.change(&path("vol"), |pod| {
        pod["metadata"]["labels"] = json!({"a": "b"});
        pod["metadata"]["generation"] = json!(2);
    });
    let seen = |pod: &Value| pod["status"]["observedGeneration"] == 2;
    world
        .api
        .object(&path("vol"), "the change is seen", seen)
        .await;
    assert_eq!(std::fs::read_to_string(&labels).unwrap(), "a=\"b\"");
    kubelet.stop().await;
}

#[tokio::test]
async fn an_image_is_a_volume_of_a_guest() {
    let world = World::new();
    let kubelet = world.start();
    let mounts = json!([{"name": "files", "mountPath": "/files", "subPath": "part"}]);
    let volumes = json!([{"name": "files", "image": {"reference": "container-files:v1"}}]);
    start(&world, volumes, mounts).await;
    let container = world.runtime.container("main").unwrap();
    let mount = &container.config.mounts[0];
    assert_eq!(mount.image.as_deref(), Some("sha256:container-files:v1"));
    assert_eq!(mount.host_path.to_str(), Some("part"));
    assert!(mount.read_only);
    let pulled = |image: &str, of| (image.to_owned(), of);
    let expected = [
        pulled("app:v1", Use::Run),
        pulled("container-files:v1", Use::Files),
    ];
    assert_eq!(*world.images.uses.lock(), expected);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_changed_config_map_is_in_its_volume_at_once() {
    let world = World::new();
    let kubelet = world.start();
    let map = "/api/v1/namespaces/ns/configmaps/cm";
    let with = |color: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"color": color},
            "metadata": {"name": "cm", "namespace": "ns", "uid": "uid-cm"}})
    };
    world.api.put(map, with("red"));
    let volumes = json!([{"name": "v", "configMap": {"name": "cm", "optional": true}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    start(&world, volumes, mounts).await;
    let container = world.runtime.container("main").unwrap();
    let file = container.config.mounts[0].host_path.join("color");
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
    let mut watcher = Watcher::new(file.parent().unwrap(), flags).unwrap();
    let mut until = async |wanted: Option<&str>| {
        let has = async {
            while std::fs::read_to_string(&file).ok().as_deref() != wanted {
                watcher.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), has).await;
        assert!(waited.is_ok(), "not {wanted:?}");
    };
    until(Some("red")).await;
    world
        .api
        .change(map, |map| map["data"]["color"] = json!("blue"));
    until(Some("blue")).await;
    world.api.remove(map);
    until(None).await;
    world.api.put(map, with("green"));
    until(Some("green")).await;
    kubelet.stop().await;
}

#[tokio::test]
async fn unsupported_volumes_and_probes_are_refused_by_name() {
    let world = World::new();
    let kubelet = world.start();
    let volumes = json!([{"name": "far", "nfs": {"server": "s", "path": "/"}}]);
    world.pod("far", json!({}), json!({"volumes": volumes}));
    let said = |event: &String| event.starts_with("FailedMount") && event.contains("type nfs");
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    let probe = json!({"exec": {"command": ["true"]}});
    world.pod("exec", json!({"readinessProbe": probe}), json!({}));
    let held = |pod: &Value| waiting(pod) == "CreateContainerConfigError";
    let pod = world.api.object(&path("exec"), "it waits", held).await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert!(
        message
            .as_str()
            .unwrap()
            .starts_with("readinessProbe: a WebAssembly container runs nothing but"),
        "{message}"
    );
    assert_eq!(world.runtime.count(Verb::StartContainer), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_volume_in_memory_is_there_or_its_lack_is_told() {
    let world = World::new();
    let kubelet = world.start();
    let volumes = json!([{"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    let mounts = json!([{"name": "fast", "mountPath": "/fast"}]);
    let (container, spec) = (json!({"volumeMounts": mounts}), json!({"volumes": volumes}));
    world.pod("mem", container, spec);
    world
        .api
        .object(&path("mem"), "mem is ready", is_ready)
        .await;
    let container = world.runtime.container("main").unwrap();
    let folder = container.config.mounts[0].host_path.clone();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    if mounts.contains(folder.to_str().unwrap()) {
        let events = world.api.events();
        let told = events.iter().any(|event| event.starts_with("MemoryMedium"));
        assert!(!told, "{events:?}");
    } else {
        let said = |event: &String| event.starts_with("MemoryMediumUnavailable: volume \"fast\"");
        world
            .api
            .until("an event says so", |api| api.events().iter().any(said))
            .await;
    }
    // With the node goes what its memory held.
    let stopped = kubelet.kubelet.stop_all(std::time::Duration::from_secs(10));
    assert!(stopped.await);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()));
    kubelet.stop().await;
}

#[tokio::test]
async fn a_token_is_asked_for_until_it_is_given() {
    let world = World::new();
    let kubelet = world.start();
    let path_of_token = "/api/v1/namespaces/ns/serviceaccounts/robot/token";
    world.api.refuse(path_of_token, Some(403));
    let sources = json!([{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]);
    let volumes = json!([{"name": "access", "projected": {"sources": sources}}]);
    let mounts = json!([{"name": "access", "mountPath": "/access", "readOnly": true}]);
    world.pod(
        "tok",
        json!({"volumeMounts": mounts}),
        json!({"volumes": volumes, "serviceAccountName": "robot"}),
    );
    let said = |event: &String| {
        event.starts_with("FailedMount: MountVolume.SetUp failed for volume \"access\"")
            && event.contains("failed to fetch token")
    };
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    assert_eq!(world.runtime.count(Verb::StartContainer), 0);
    world.api.refuse(path_of_token, None);
    world
        .api
        .object(&path("tok"), "tok is ready", is_ready)
        .await;
    let container = world.runtime.container("main").unwrap();
    let mount = &container.config.mounts[0];
    assert!(mount.read_only);
    let token = std::fs::read_to_string(mount.host_path.join("token")).unwrap();
    assert_eq!(token, "token-of-uid-tok");
    // It lies in memory where it can, and goes with the node.
    let stopped = kubelet.kubelet.stop_all(std::time::Duration::from_secs(10));
    assert!(stopped.await);
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(mount.host_path.join("token").exists(), !is_root);
    kubelet.stop().await;
}
