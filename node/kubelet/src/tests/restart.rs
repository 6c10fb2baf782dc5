//! What survives a restart of the agent, and what does not.

use coracle_runtime::fake::Verb;
use serde_json::json;

use super::world::{World, is_ready, path};

#[tokio::test]
async fn pods_survive_the_agent_and_are_adopted() {
    let world = World::new();
    let first = world.start();
    world.pod("stays", json!({}), json!({}));
    world.pod("goes", json!({}), json!({}));
    let before = world
        .api
        .object(&path("stays"), "stays is ready", is_ready)
        .await;
    world
        .api
        .object(&path("goes"), "goes is ready", is_ready)
        .await;
    first.stop().await;
    assert_eq!(world.runtime.running(), 2, "Pods run on");
    world.api.remove(&path("goes"));
    let patches = world.api.status_patches(&path("stays"));

    let second = world.start();
    world
        .runtime
        .wait_until("the orphan is gone", |r| r.sandboxes().len() == 1)
        .await;
    let after = world.api.get(&path("stays")).unwrap();
    assert_eq!(
        before["status"], after["status"],
        "the same container, nothing restarted"
    );
    assert_eq!(
        world.api.status_patches(&path("stays")),
        patches,
        "nothing to report"
    );
    assert_eq!(world.runtime.count(Verb::StartContainer), 2);
    // The second agent owns it now.
    world.api.delete_gracefully(&path("stays"), 1);
    world
        .api
        .until("the object is gone", |api| {
            api.get(&path("stays")).is_none()
        })
        .await;
    second.stop().await;
}

#[tokio::test]
async fn lost_containers_are_started_again_and_counted() {
    let world = World::new();
    let first = world.start();
    world.pod("web", json!({}), json!({}));
    world
        .api
        .object(&path("web"), "web is ready", is_ready)
        .await;
    assert!(
        first
            .kubelet
            .stop_all(std::time::Duration::from_secs(10))
            .await
    );
    assert_eq!(world.runtime.sandboxes().len(), 0, "all Pods have ended");
    let stopped = world.api.get(&path("web")).unwrap();
    assert!(is_ready(&stopped), "the object stays as it was");
    first.stop().await;

    let second = world.start();
    let restarted = |pod: &serde_json::Value| {
        is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
    };
    let pod = world
        .api
        .object(&path("web"), "web runs again", restarted)
        .await;
    assert_eq!(pod["status"]["podIP"], "10.42.0.1", "with its address");
    second.stop().await;
}

#[tokio::test]
async fn an_ended_pod_is_not_started_again() {
    let world = World::new();
    world.pod("done", json!({}), json!({"restartPolicy": "Never"}));
    world.api.change(&path("done"), |pod| {
        pod["status"]["phase"] = json!("Succeeded")
    });
    let kubelet = world.start();
    world.pod("other", json!({}), json!({}));
    world
        .api
        .object(&path("other"), "other is ready", is_ready)
        .await;
    assert_eq!(world.runtime.running(), 1);
    assert_eq!(world.api.status_patches(&path("done")), 0);
    world.api.delete_gracefully(&path("done"), 1);
    world
        .api
        .until("the object is gone", |api| api.get(&path("done")).is_none())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_crashed_sandbox_is_replaced() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("web", json!({}), json!({}));
    world
        .api
        .object(&path("web"), "web is ready", is_ready)
        .await;
    let sandbox = world.runtime.sandboxes().remove(0);
    world.runtime.crash_sandbox(&sandbox.id);
    let restarted = |pod: &serde_json::Value| {
        is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
    };
    world
        .api
        .object(&path("web"), "web is restarted", restarted)
        .await;
    kubelet.stop().await;
}
