//! Containers with restart policies of their own.

use coracle_runtime::fake::Behaviour;
use serde_json::{Value, json};

use super::world::{World, condition, is_ready, path};

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
async fn all_containers_of_a_pod_begin_anew_where_one_says_so() {
    let world = World::new();
    let once = Behaviour {
        exits: Some(0),
        ..Behaviour::default()
    };
    world.runtime.behave("first", once);
    let kubelet = world.start();
    let main = json!({
        "name": "main", "image": "app:v1", "restartPolicy": "Never",
        "restartPolicyRules": [{
            "action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]},
        }],
    });
    let other = json!({"name": "other", "image": "app:v1"});
    let first = json!([{"name": "first", "image": "app:v1"}]);
    let spec = json!({"containers": [main, other], "initContainers": first});
    world.pod("a", json!({}), spec);
    world.api.object(&path("a"), "it is ready", is_ready).await;
    let main = world.runtime.container("main").unwrap().id;
    world.runtime.exit(&main, 42, "Error", "");
    let anew = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
        let mut all = statuses.iter();
        is_ready(pod) && all.all(|of| of["restartCount"] == 1)
    };
    let pod = world.api.object(&path("a"), "all began anew", anew).await;
    assert_eq!(pod["status"]["initContainerStatuses"][0]["restartCount"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    let last = &pod["status"]["containerStatuses"][0]["lastState"];
    assert_eq!(last["terminated"]["exitCode"], 137);
    assert_eq!(last["terminated"]["reason"], "RestartingAllContainers");
    assert_eq!(condition(&pod, "AllContainersRestarting"), "False");
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
