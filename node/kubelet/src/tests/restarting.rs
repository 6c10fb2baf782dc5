//! Containers with restart policies of their own.

use serde_json::{Value, json};

use super::world::{World, is_ready, path};

/// The Pod once its container was restarted so often, and runs.
async fn restarted(world: &World, times: i64) {
    let of = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == times && !status["state"]["running"].is_null()
    };
    world.api.object(&path("a"), "it is restarted", of).await;
}

#[tokio::test]
async fn a_container_restarts_by_its_own_rules_in_a_pod_that_never_does() {
    let world = World::new();
    let kubelet = world.start();
    let container = json!({
        "restartPolicy": "Never",
        "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}},
        ],
    });
    world.pod("a", container, json!({"restartPolicy": "Never"}));
    world.api.object(&path("a"), "it is ready", is_ready).await;
    let end = |code: i32, reason: &str| {
        let of = world.runtime.list().into_iter();
        let latest = of.max_by_key(|of| of.config.attempt).unwrap();
        world.runtime.exit(&latest.id, code, reason, "");
    };
    end(42, "Error");
    restarted(&world, 1).await;
    let pod = world.api.get(&path("a")).unwrap();
    assert_eq!(pod["status"]["phase"], "Running");
    end(0, "Completed");
    let done = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    world.api.object(&path("a"), "it has succeeded", done).await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_container_that_never_restarts_leaves_its_pod_to_the_others() {
    let world = World::new();
    let kubelet = world.start();
    let main = json!({"name": "main", "image": "app:v1"});
    let once = json!({"name": "once", "image": "app:v1", "restartPolicy": "Never"});
    world.pod("a", json!({}), json!({"containers": [main, once]}));
    world.api.object(&path("a"), "it is ready", is_ready).await;
    let once = world.runtime.container("once").unwrap().id;
    world.runtime.exit(&once, 1, "Error", "");
    let ended = |pod: &Value| {
        let state = &pod["status"]["containerStatuses"][1]["state"];
        state["terminated"]["exitCode"] == 1
    };
    let pod = world.api.object(&path("a"), "one has ended", ended).await;
    assert_eq!(pod["status"]["phase"], "Running");
    let main = world.runtime.container("main").unwrap().id;
    world.runtime.exit(&main, 1, "Error", "");
    restarted(&world, 1).await;
    let pod = world.api.get(&path("a")).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][1]["restartCount"], 0);
    kubelet.stop().await;
}
