//! Ephemeral containers: added to a Pod that runs, started once, and of no consequence to it.

use coracle_runtime::fake::Verb;
use serde_json::{Value, json};

use super::world::{World, is_ready, path};

/// Puts ephemeral containers into the Pod `a`, as its subresource does.
fn debug(world: &World, containers: &Value) {
    world.api.change(&path("a"), |pod| {
        pod["spec"]["ephemeralContainers"] = containers.clone();
        let generation = pod["metadata"]["generation"].as_i64().unwrap();
        pod["metadata"]["generation"] = json!(generation + 1);
    });
}

/// The Pod once that holds of its first ephemeral container's state.
async fn state(world: &World, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let of = |pod: &Value| holds(&pod["status"]["ephemeralContainerStatuses"][0]["state"]);
    world.api.object(&path("a"), what, of).await
}

async fn running(image: &str) -> (World, super::world::Running) {
    let world = World::with_containers();
    let kubelet = world.start();
    world.pod("a", json!({"image": image}), json!({}));
    world.api.object(&path("a"), "it is ready", is_ready).await;
    (world, kubelet)
}

#[tokio::test]
async fn an_ephemeral_container_runs_beside_the_others_and_is_found_again() {
    let (world, kubelet) = running("container:v1").await;
    let oci = world.containers.clone().unwrap();
    let containers = json!([{
        "name": "debugger", "image": "container:v2", "targetContainerName": "main",
        "stdin": true, "tty": true,
    }]);
    debug(&world, &containers);
    let pod = state(&world, "it runs", |state| !state["running"].is_null()).await;
    assert!(is_ready(&pod), "{pod}");
    assert_eq!(pod["status"]["observedGeneration"], 2);
    let status = &pod["status"]["ephemeralContainerStatuses"][0];
    assert_eq!(status["name"], "debugger");
    assert_eq!(status["restartCount"], 0);
    assert_eq!(
        pod["status"]["containerStatuses"].as_array().unwrap().len(),
        1
    );
    let (main, debugger) = (oci.container("main"), oci.container("debugger"));
    let (main, debugger) = (main.unwrap(), debugger.unwrap());
    assert_eq!(main.sandbox, debugger.sandbox);
    assert_eq!(debugger.config.target, Some(main.id.clone()));
    assert!(debugger.config.stdio.stdin && debugger.config.stdio.terminal);
    kubelet.stop().await;

    // It ends while no agent is there, and is not begun again.
    oci.exit(&debugger.id, 3, "Error", "");
    let kubelet = world.start();
    let ended = |state: &Value| state["terminated"]["exitCode"] == 3;
    let pod = state(&world, "it has ended", ended).await;
    assert!(is_ready(&pod), "{pod}");
    assert_eq!(pod["status"]["phase"], "Running");
    // Another look at the Pod starts nothing either.
    world
        .api
        .change(&path("a"), |pod| pod["metadata"]["generation"] = json!(3));
    let seen = |pod: &Value| pod["status"]["observedGeneration"] == 3;
    world.api.object(&path("a"), "it was looked at", seen).await;
    assert_eq!(oci.count(Verb::StartContainer), 2);
    let events = world.api.events();
    let crash_loop = events.iter().any(|event| event.starts_with("BackOff"));
    assert!(!crash_loop, "{events:?}");
    kubelet.stop().await;
}

#[tokio::test]
async fn an_ephemeral_container_ends_with_its_pod() {
    let (world, kubelet) = running("app:v1").await;
    debug(&world, &json!([{"name": "debugger", "image": "app:v2"}]));
    state(&world, "it runs", |state| !state["running"].is_null()).await;
    let main = world.runtime.container("main").unwrap();
    let debugger = world.runtime.container("debugger").unwrap();
    assert_eq!(main.sandbox, debugger.sandbox);
    // The Pod does not end with it, and it does not keep the Pod from ending.
    world.api.delete_gracefully(&path("a"), 30);
    let gone = |api: &super::api::FakeApi| api.get(&path("a")).is_none();
    world.api.until("the object is gone", gone).await;
    assert_eq!(world.runtime.list().len(), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_pod_that_completes_ends_its_ephemeral_containers() {
    let world = World::with_containers();
    let kubelet = world.start();
    world.pod("a", json!({}), json!({"restartPolicy": "Never"}));
    world.api.object(&path("a"), "it is ready", is_ready).await;
    debug(&world, &json!([{"name": "debugger", "image": "app:v2"}]));
    state(&world, "it runs", |state| !state["running"].is_null()).await;
    let main = world.runtime.container("main").unwrap().id;
    world.runtime.exit(&main, 0, "Completed", "");
    let done = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    let pod = world.api.object(&path("a"), "it succeeds", done).await;
    let state = &pod["status"]["ephemeralContainerStatuses"][0]["state"];
    assert!(!state["terminated"].is_null(), "{pod}");
    assert_eq!(world.runtime.running(), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_container_has_no_place_among_guests() {
    let (world, kubelet) = running("app:v1").await;
    debug(
        &world,
        &json!([{"name": "debugger", "image": "container:v1"}]),
    );
    let refused = |state: &Value| state["waiting"]["reason"] == "CreateContainerConfigError";
    let pod = state(&world, "it is refused", refused).await;
    let waiting = &pod["status"]["ephemeralContainerStatuses"][0]["state"]["waiting"];
    let message = waiting["message"].as_str().unwrap();
    assert!(message.contains("kubectl debug --copy-to"), "{message}");
    assert!(is_ready(&pod), "{pod}");
    assert_eq!(world.containers.as_ref().unwrap().sandboxes().len(), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn one_whose_image_is_missing_waits_and_one_that_is_lost_stays_so() {
    let (world, kubelet) = running("app:v1").await;
    debug(
        &world,
        &json!([{"name": "debugger", "image": "missing:v1"}]),
    );
    let pulls = |state: &Value| state["waiting"]["reason"] == "ErrImagePull";
    let pod = state(&world, "it has no image", pulls).await;
    assert!(is_ready(&pod), "{pod}");
    kubelet.stop().await;

    // The API remembers one that no runtime knows.
    world.api.change(&path("a"), |pod| {
        let status = &mut pod["status"]["ephemeralContainerStatuses"][0];
        status["containerID"] = json!("wasm://gone");
        status["state"] = json!({"running": {"startedAt": "2026-01-02T03:04:05Z"}});
    });
    let kubelet = world.start();
    let lost = |state: &Value| state["terminated"]["reason"] == "ContainerStatusUnknown";
    state(&world, "it is lost", lost).await;
    let pulls = world.images.pulls.lock().clone();
    let asked = pulls.iter().filter(|(image, _)| image == "missing:v1");
    assert_eq!(asked.count(), 1, "{pulls:?}");
    kubelet.stop().await;
}
