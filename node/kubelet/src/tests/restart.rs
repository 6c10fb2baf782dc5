//! What survives a restart of the agent, and what does not.

use std::time::Duration;

use coracle_runtime::RuntimeService;
use coracle_runtime::fake::{Behaviour, Verb};
use serde_json::{Value, json};

use super::world::{World, condition, is_ready, path};

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
    assert!(first.kubelet.stop_all(Duration::from_secs(10)).await);
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

/// Takes everything from the runtimes, as a reset does, or a boot of the machine.
async fn lose_everything(world: &World) {
    for runtime in std::iter::once(&world.runtime).chain(&world.containers) {
        for sandbox in runtime.sandboxes() {
            runtime.remove_pod_sandbox(&sandbox.id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_lost_runs_again_if_it_does_not_run_once() {
    let world = World::with_containers();
    let ends = Behaviour {
        exits: Some(0),
        ..Behaviour::default()
    };
    world.runtime.behave("done", ends);
    let first = world.start();
    let once = json!({"restartPolicy": "Never"});
    world.pod("guest", json!({}), once.clone());
    world.pod("container", json!({"image": "container:v1"}), once);
    world.pod("always", json!({}), json!({}));
    let [done, main] = ["done", "main"].map(|name| json!({"name": name, "image": "app:v1"}));
    let both = json!({"restartPolicy": "OnFailure", "containers": [done, main]});
    world.pod("both", json!({}), both);
    for name in ["guest", "container", "always"] {
        world.api.object(&path(name), name, is_ready).await;
    }
    let half = |restarts: i64| {
        move |pod: &Value| {
            let statuses = &pod["status"]["containerStatuses"];
            statuses[0]["state"]["terminated"]["exitCode"] == 0
                && statuses[0]["restartCount"] == 0
                && statuses[1]["state"]["running"].is_object()
                && statuses[1]["restartCount"] == restarts
        }
    };
    world
        .api
        .object(&path("both"), "one is done", half(0))
        .await;
    first.stop().await;
    lose_everything(&world).await;

    let second = world.start();
    for name in ["guest", "container"] {
        let failed = |pod: &Value| pod["status"]["phase"] == "Failed";
        let pod = world.api.object(&path(name), name, failed).await;
        let status = &pod["status"]["containerStatuses"][0];
        let ended = &status["state"]["terminated"];
        assert_eq!(ended["reason"], "ContainerStatusUnknown", "{name}");
        assert_eq!(ended["exitCode"], 137);
        assert_eq!(status["restartCount"], 0);
    }
    let again = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        is_ready(pod) && status["restartCount"] == 1
    };
    let pod = world
        .api
        .object(&path("always"), "it runs again", again)
        .await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["reason"], "ContainerStatusUnknown");
    world
        .api
        .object(&path("both"), "one runs again", half(1))
        .await;
    assert_eq!(world.runtime.count(Verb::StartContainer), 4 + 2);
    let containers = world.containers.as_ref().unwrap();
    assert_eq!(containers.count(Verb::StartContainer), 1);
    second.stop().await;
}

#[tokio::test]
async fn what_runs_once_fails_with_a_node_that_stops() {
    let world = World::new();
    let first = world.start();
    world.pod("once", json!({}), json!({"restartPolicy": "Never"}));
    world
        .api
        .object(&path("once"), "it is ready", is_ready)
        .await;
    assert!(first.kubelet.stop_all(Duration::from_secs(10)).await);
    let pod = world.api.get(&path("once")).unwrap();
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(pod["status"]["reason"], "Terminated");
    assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    first.stop().await;

    let second = world.start();
    world.pod("other", json!({}), json!({}));
    world
        .api
        .object(&path("other"), "other is ready", is_ready)
        .await;
    assert_eq!(world.runtime.count(Verb::StartContainer), 2);
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
