//! In-place resize: what is allocated, done, put off and refused.

use coracle_runtime::fake::Verb;
use coracle_runtime::{Resources, RuntimeService};
use serde_json::{Value, json};

use super::api::FakeApi;
use super::world::{World, condition, is_ready, path};

fn resources(cpu: &str, memory: &str) -> Value {
    let list = json!({"cpu": cpu, "memory": memory});
    json!({"requests": list, "limits": list})
}

/// Changes what the Pod's container is to have, as the subresource does.
fn resize(world: &World, name: &str, resources: &Value) {
    world.api.change(&path(name), |pod| {
        pod["spec"]["containers"][0]["resources"] = resources.clone();
        let generation = pod["metadata"]["generation"].as_i64().unwrap();
        pod["metadata"]["generation"] = json!(generation + 1);
    });
}

async fn running(world: &World, name: &str, resources: &Value, more: Value) -> Value {
    let mut container = more;
    container["resources"] = resources.clone();
    world.pod(name, container, json!({}));
    world.api.object(&path(name), "it is ready", is_ready).await
}

/// The Pod once its container has that.
async fn has(world: &World, name: &str, resources: &Value) -> Value {
    let of = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["resources"] == *resources && !status["state"]["running"].is_null()
    };
    world.api.object(&path(name), "it has them", of).await
}

fn limits(world: &World, name: &str) -> Resources {
    let containers = world.runtime.list();
    let found = containers.iter().find(|of| of.pod.name == name);
    found.unwrap().config.resources.clone()
}

#[tokio::test]
async fn limits_of_a_running_container_change_and_are_reported() {
    let world = World::new();
    let kubelet = world.start();
    let before = resources("500m", "64Mi");
    let pod = running(&world, "a", &before, json!({})).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["resources"], before);
    assert_eq!(status["allocatedResources"], before["requests"]);

    let after = resources("1", "128Mi");
    resize(&world, "a", &after);
    let pod = has(&world, "a", &after).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["allocatedResources"], after["requests"]);
    assert_eq!(status["restartCount"], 0);
    assert_eq!(pod["status"]["observedGeneration"], 2);
    for type_ in ["PodResizePending", "PodResizeInProgress"] {
        assert_eq!(condition(&pod, type_), "", "{type_}");
    }
    let memory = limits(&world, "a").memory_limit_bytes;
    assert_eq!(memory, Some(128 << 20));
    let of_pod = world.runtime.sandboxes()[0].config.resources.clone();
    assert_eq!(of_pod.memory_limit_bytes, Some(128 << 20));
    for told in [
        "ResizeStarted: Pod resize started: ",
        "ResizeCompleted: Pod resize completed: ",
    ] {
        let said = |api: &FakeApi| api.events().iter().any(|event| event.starts_with(told));
        world.api.until(told, said).await;
    }
    // The Pod's limits grow before its container's, and there is nothing left to lower.
    let verbs = |world: &World| -> Vec<Verb> {
        let calls = world.runtime.calls().into_iter();
        let updates = [Verb::UpdateContainer, Verb::UpdatePodSandbox];
        calls
            .map(|(verb, _)| verb)
            .filter(|verb| updates.contains(verb))
            .collect()
    };
    assert_eq!(
        verbs(&world),
        [Verb::UpdatePodSandbox, Verb::UpdateContainer]
    );
    resize(&world, "a", &before);
    has(&world, "a", &before).await;
    let lowered = [Verb::UpdateContainer, Verb::UpdatePodSandbox];
    assert_eq!(verbs(&world)[2..], lowered);

    // Nothing is forgotten, and nothing done twice.
    kubelet.stop().await;
    let kubelet = world.start();
    resize(&world, "a", &after);
    has(&world, "a", &after).await;
    assert_eq!(verbs(&world).len(), 6);
    assert_eq!(world.runtime.count(Verb::StartContainer), 1);
    kubelet.stop().await;
}

#[tokio::test]
async fn what_a_pod_has_as_a_whole_is_reported() {
    let world = World::new();
    let kubelet = world.start();
    let (before, after) = (resources("500m", "64Mi"), resources("1", "128Mi"));
    world.pod("a", json!({}), json!({"resources": before}));
    let pod = world.api.object(&path("a"), "it is ready", is_ready).await;
    assert_eq!(pod["status"]["resources"], before);
    assert_eq!(pod["status"]["allocatedResources"], before["requests"]);

    world.api.change(&path("a"), |pod| {
        pod["spec"]["resources"] = after.clone();
        pod["metadata"]["generation"] = json!(2);
    });
    let has = |pod: &Value| pod["status"]["resources"] == after;
    let pod = world.api.object(&path("a"), "it has them", has).await;
    assert_eq!(pod["status"]["allocatedResources"], after["requests"]);

    // What there is no room for is neither allocated nor had.
    let too_much = resources("4", "128Mi");
    world.api.change(&path("a"), |pod| {
        pod["spec"]["resources"] = too_much.clone();
        pod["metadata"]["generation"] = json!(3);
    });
    let refused = |pod: &Value| condition(pod, "PodResizePending") == "True";
    let pod = world.api.object(&path("a"), "it is refused", refused).await;
    assert_eq!(pod["status"]["resources"], after);
    assert_eq!(pod["status"]["allocatedResources"], after["requests"]);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_policy_may_want_a_restart() {
    let world = World::new();
    let kubelet = world.start();
    let policy = json!({"resizePolicy": [
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
    ]});
    running(&world, "a", &resources("500m", "64Mi"), policy).await;
    let after = resources("1", "64Mi");
    resize(&world, "a", &after);
    let pod = has(&world, "a", &after).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    for (count, memory) in [(1, "128Mi"), (2, "64Mi")] {
        let after = resources("1", memory);
        resize(&world, "a", &after);
        let pod = has(&world, "a", &after).await;
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(
            status["restartCount"], count,
            "at once, and without a back-off"
        );
    }
    let memory = limits(&world, "a").memory_limit_bytes;
    assert!(memory.is_some());
    let told = |api: &FakeApi| {
        let events = api.events();
        let wanted = "Killing: Container main resize requires restart";
        events.iter().any(|event| event == wanted)
    };
    world.api.until("it is told", told).await;
    kubelet.stop().await;
}

#[tokio::test]
async fn what_the_node_has_not_is_put_off_or_refused() {
    let world = World::new();
    let kubelet = world.start();
    let one = resources("1", "64Mi");
    running(&world, "a", &one, json!({})).await;
    running(&world, "b", &one, json!({})).await;
    let pending = async |reason: &'static str, part: &str| {
        let of = |pod: &Value| {
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|of| of["type"] == "PodResizePending" && of["reason"] == reason)
        };
        let pod = world.api.object(&path("a"), reason, of).await;
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let found = conditions
            .iter()
            .find(|of| of["type"] == "PodResizePending");
        let found = found.unwrap();
        assert_eq!(found["status"], "True");
        assert_eq!(found["observedGeneration"], pod["metadata"]["generation"]);
        let message = found["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
        assert_eq!(pod["status"]["containerStatuses"][0]["resources"], one);
        assert!(is_ready(&pod), "{pod}");
    };
    resize(&world, "a", &resources("3", "64Mi"));
    let message = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000";
    pending("Infeasible", message).await;
    let more = resources("1500m", "64Mi");
    resize(&world, "a", &more);
    let message = "cpu, requested: 1500, used: 1000, capacity: 2000";
    pending("Deferred", message).await;
    for told in [
        "ResizeInfeasible: Pod resize Infeasible: ",
        "ResizeDeferred: Pod resize Deferred: ",
    ] {
        let said = |api: &FakeApi| api.events().iter().any(|event| event.starts_with(told));
        world.api.until(told, said).await;
    }

    // Another agent waits as well, and knows what the containers have.
    kubelet.stop().await;
    let kubelet = world.start();
    pending("Deferred", message).await;
    assert_eq!(limits(&world, "a").cpu_limit_millis, Some(1000));

    // Room that is left is taken.
    world.api.delete_gracefully(&path("b"), 1);
    let pod = has(&world, "a", &more).await;
    assert_eq!(condition(&pod, "PodResizePending"), "");
    kubelet.stop().await;
}

#[tokio::test]
async fn what_fails_is_told_and_tried_again() {
    let world = World::new();
    let kubelet = world.start();
    let before = resources("500m", "64Mi");
    running(&world, "a", &before, json!({})).await;
    // Its report wakes the worker, and so it is tried once more at once.
    for _ in 0..3 {
        let broken = coracle_runtime::Error::State("no luck".to_owned());
        world.runtime.fail_next(Verb::UpdateContainer, broken);
    }
    let after = resources("1", "128Mi");
    resize(&world, "a", &after);
    let failed = |pod: &Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|of| {
            let message = of["message"].as_str().unwrap_or_default();
            of["type"] == "PodResizeInProgress"
                && of["reason"] == "Error"
                && message.contains("no luck")
        })
    };
    let pod = world.api.object(&path("a"), "it failed", failed).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["resources"], before);
    assert_eq!(status["allocatedResources"], after["requests"]);
    // It is done by the next agent, which finds it written down.
    kubelet.stop().await;
    let kubelet = world.start();
    let pod = has(&world, "a", &after).await;
    assert_eq!(condition(&pod, "PodResizeInProgress"), "");

    // Of a limit that is below what is used nothing is tried.
    let updates = world.runtime.count(Verb::UpdateContainer);
    let used = world.runtime.stats().await.unwrap()[0].memory_bytes;
    let less = resources("1", &(used - 1).to_string());
    resize(&world, "a", &less);
    let below = |pod: &Value| {
        pod["status"]["conditions"]
            .to_string()
            .contains("below current usage")
    };
    world.api.object(&path("a"), "it is refused", below).await;
    assert_eq!(world.runtime.count(Verb::UpdateContainer), updates);
    // Another wish replaces it.
    resize(&world, "a", &before);
    let pod = has(&world, "a", &before).await;
    assert_eq!(condition(&pod, "PodResizeInProgress"), "");
    kubelet.stop().await;
}
