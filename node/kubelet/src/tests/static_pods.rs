//! Pods of files, and the mirrors that show them. The behaviours are those of upstream's
//! `mirror_pod_test.go`.

use coracle_runtime::fake::{Behaviour, Verb};
use serde_json::{Value, json};

use super::api::FakeApi;
use super::world::{World, is_ready};
use crate::parse_thresholds;

const MIRROR: &str = "/api/v1/namespaces/ns/pods/web-n1";
const NODE: &str = "/api/v1/nodes/n1";
const HASH: &str = "kubernetes.io/config.hash";

impl World {
    /// Writes a manifest, as an administrator would.
    fn manifest(&self, image: &str) {
        let folder = self.root.path().join("manifests");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: ns}}\n\
             spec:\n  terminationGracePeriodSeconds: 1\n  \
             containers: [{{name: main, image: '{image}'}}]\n"
        );
        std::fs::write(folder.join(".new"), text).unwrap();
        std::fs::rename(folder.join(".new"), folder.join("web.yaml")).unwrap();
    }

    fn remove_manifest(&self) {
        std::fs::remove_file(self.root.path().join("manifests/web.yaml")).unwrap();
    }
}

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap()
}

fn container_id(pod: &Value) -> Value {
    pod["status"]["containerStatuses"][0]["containerID"].clone()
}

/// Waits for a mirror that is another than `before`.
async fn another(api: &FakeApi, before: &Value) -> Value {
    let other = |pod: &Value| uid(pod) != uid(before) && is_ready(pod);
    api.object(MIRROR, "another mirror is ready", other).await
}

#[tokio::test]
async fn a_static_pod_runs_without_the_api_and_is_shown_when_it_is_there() {
    let world = World::new();
    world.api.refuse("/api/v1/nodes", Some(503));
    world.api.refuse("/api/v1/services", Some(503));
    world.manifest("app:v1");
    let kubelet = world.start();
    let runs = |runtime: &coracle_runtime::fake::FakeRuntime| runtime.running() == 1;
    world.runtime.wait_until("it runs", runs).await;
    assert_eq!(world.api.get(MIRROR), None);
    world.api.refuse("/api/v1/nodes", None);
    world.api.refuse("/api/v1/services", None);

    let mirror = world.api.object(MIRROR, "it is shown", is_ready).await;
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(
        annotations["kubernetes.io/config.mirror"],
        annotations[HASH]
    );
    assert_ne!(annotations[HASH], mirror["metadata"]["uid"]);
    let owner = json!([{
        "apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true,
        "uid": uid(&world.api.get(NODE).unwrap()),
    }]);
    assert_eq!(mirror["metadata"]["ownerReferences"], owner);
    assert_eq!(mirror["status"]["phase"], "Running");
    assert_eq!(mirror["status"]["podIP"], "10.42.0.1");
    assert!(mirror["status"]["observedGeneration"].is_null(), "{mirror}");
    assert_eq!(
        world.runtime.count(Verb::StartContainer),
        1,
        "the mirror itself is not run"
    );

    // The next agent adopts what runs, and the mirror.
    kubelet.stop().await;
    let kubelet = world.start();
    kubelet.kubelet.registered().await;
    world.pod("other", json!({}), json!({}));
    let other = super::world::path("other");
    world.api.object(&other, "others run", is_ready).await;
    assert_eq!(world.runtime.count(Verb::StartContainer), 2);
    assert_eq!(uid(&world.api.get(MIRROR).unwrap()), uid(&mirror));
    kubelet.stop().await;
}

#[tokio::test]
async fn a_mirror_that_is_deleted_comes_back_and_its_pod_runs_on() {
    let world = World::new();
    world.manifest("app:v1");
    let kubelet = world.start();
    let first = world.api.object(MIRROR, "it is shown", is_ready).await;
    world.api.delete_gracefully(MIRROR, 30);
    let second = another(&world.api, &first).await;
    world.api.remove(MIRROR);
    let third = another(&world.api, &second).await;
    assert_eq!(
        container_id(&first),
        container_id(&third),
        "nothing was restarted"
    );
    assert_eq!(world.runtime.count(Verb::StartContainer), 1);
    // A mirror of nothing goes.
    let mut foreign = third.clone();
    foreign["metadata"]["name"] = json!("foreign");
    foreign["metadata"]["uid"] = json!("foreign");
    let path = MIRROR.replace("web-n1", "foreign");
    world.api.put(&path, foreign);
    world
        .api
        .until("it is gone", |api| api.get(&path).is_none())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn another_manifest_is_another_pod_and_none_ends_it() {
    let world = World::new();
    world.manifest("app:v1");
    let kubelet = world.start();
    let first = world.api.object(MIRROR, "it is shown", is_ready).await;
    world.manifest("app:v2");
    let second = another(&world.api, &first).await;
    assert_eq!(second["spec"]["containers"][0]["image"], "app:v2");
    assert_eq!(world.runtime.sandboxes().len(), 1, "the first has ended");

    // The same manifest again is the same Pod, restarted.
    world.remove_manifest();
    let gone = |runtime: &coracle_runtime::fake::FakeRuntime| runtime.sandboxes().is_empty();
    world.runtime.wait_until("it has ended", gone).await;
    world
        .api
        .until("its mirror is gone", |api| api.get(MIRROR).is_none())
        .await;
    assert_eq!(world.network.given(), 0);
    world.manifest("app:v2");
    let third = world.api.object(MIRROR, "it is shown", is_ready).await;
    assert_eq!(
        third["metadata"]["annotations"][HASH],
        second["metadata"]["annotations"][HASH]
    );
    kubelet.stop().await;
}

#[tokio::test]
async fn a_manifest_that_is_back_before_its_pod_has_ended_restarts_it() {
    let world = World::new();
    let slow = Behaviour {
        ignores_stop: true,
        ..Behaviour::default()
    };
    world.runtime.behave("main", slow);
    world.manifest("app:v1");
    let kubelet = world.start();
    world.api.object(MIRROR, "it is shown", is_ready).await;
    world.remove_manifest();
    let stops =
        |runtime: &coracle_runtime::fake::FakeRuntime| runtime.count(Verb::StopContainer) > 0;
    world.runtime.wait_until("it is being ended", stops).await;
    world.manifest("app:v1");
    let restarted =
        |pod: &Value| is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    world.api.object(MIRROR, "it runs again", restarted).await;
    kubelet.stop().await;
}

#[tokio::test]
async fn what_an_earlier_manifest_has_left_running_ends_before_another_starts() {
    let world = World::new();
    world.manifest("app:v1");
    let kubelet = world.start();
    world.api.object(MIRROR, "it is shown", is_ready).await;
    kubelet.stop().await;
    world.manifest("app:v2");
    world.api.refuse("/api/v1/nodes", Some(503));
    world.api.refuse(NODE, Some(503));
    let kubelet = world.start();
    let replaced = |runtime: &coracle_runtime::fake::FakeRuntime| {
        runtime.count(Verb::StartContainer) == 2 && runtime.running() == 1
    };
    world
        .runtime
        .wait_until("the other one runs", replaced)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn static_pods_are_not_evicted_and_count_on_their_node() {
    let mut world = World::new();
    world.policy.eviction.hard = parse_thresholds("nodefs.available<99.999%").unwrap();
    world.policy.eviction.period = std::time::Duration::from_millis(50);
    world.manifest("app:v1");
    let kubelet = world.start();
    world.api.object(MIRROR, "it is shown", is_ready).await;
    let attempt = |api: &FakeApi| {
        let events = api.events();
        events
            .iter()
            .any(|event| event.starts_with("EvictionThresholdMet"))
    };
    world.api.until("the node makes room", attempt).await;
    // One that only says that it comes from a file is refused as all others are.
    let liar = super::world::path("liar");
    world.api.put(
        &liar,
        json!({
            "metadata": {
                "name": "liar", "namespace": "ns", "uid": "uid-liar",
                "annotations": {"kubernetes.io/config.source": "file"},
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "app:v1"}]},
        }),
    );
    let refused = |pod: &Value| pod["status"]["reason"] == "Evicted";
    world.api.object(&liar, "it is refused", refused).await;
    let mirror = world.api.get(MIRROR).unwrap();
    assert!(is_ready(&mirror), "{mirror}");
    kubelet.stop().await;
}
