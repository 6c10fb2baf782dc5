//! What keeps a container from starting, and what it is started with.

use coracle_runtime::ImageUser;
use coracle_runtime::fake::Verb;
use serde_json::json;

use super::world::{World, is_ready, path, waiting};

#[tokio::test]
async fn a_missing_image_is_named_and_backs_off() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("lost", json!({"image": "missing:v1"}), json!({}));
    let failed = |pod: &serde_json::Value| waiting(pod) == "ErrImagePull";
    let pod = world
        .api
        .object(&path("lost"), "the pull fails", failed)
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let settled = |pod: &serde_json::Value| waiting(pod) == "ImagePullBackOff";
    let pod = world
        .api
        .object(&path("lost"), "the pull backs off", settled)
        .await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let expected = "Back-off pulling image \"missing:v1\": ErrImagePull: not in the registry";
    assert_eq!(message, expected);
    assert_eq!(world.images.pulls.lock().len(), 1);
    // It ends without ever having run.
    world.api.delete_gracefully(&path("lost"), 30);
    world
        .api
        .until("the object is gone", |api| api.get(&path("lost")).is_none())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_status_says_as_whom_a_container_began() {
    let world = World::with_containers();
    let kubelet = world.start();
    let context = json!({
        "runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "supplementalGroupsPolicy": "Strict",
    });
    let image = json!({"image": "container:v1"});
    world.pod("box", image, json!({"securityContext": context}));
    let pod = world.api.object(&path("box"), "it runs", is_ready).await;
    let user = json!({"linux": {"uid": 7, "gid": 8, "supplementalGroups": [9]}});
    assert_eq!(pod["status"]["containerStatuses"][0]["user"], user);
    let containers = world.containers.as_ref().unwrap();
    let made = containers.container("main").unwrap();
    assert!(made.config.security.strict_groups);
    kubelet.stop().await;
}

#[tokio::test]
async fn an_image_that_may_run_as_root_is_not_run_where_nobody_may() {
    let world = World::with_containers();
    let containers = world.containers.as_ref().unwrap();
    containers.put_image_user("container-of-root:v1", ImageUser::Id(0));
    let named = ImageUser::Name("web".to_owned());
    containers.put_image_user("container-of-web:v1", named);
    let kubelet = world.start();
    let context = json!({"runAsNonRoot": true});
    for (name, image, why) in [
        (
            "root",
            "container-of-root:v1",
            "container has runAsNonRoot and image will run as root",
        ),
        (
            "named",
            "container-of-web:v1",
            "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is \
             non-root",
        ),
    ] {
        let spec = json!({"securityContext": context});
        world.pod(name, json!({"image": image}), spec);
        let held = |pod: &serde_json::Value| waiting(pod) == "CreateContainerConfigError";
        let pod = world.api.object(&path(name), "it waits", held).await;
        let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
        let expected = format!("{why} (pod: \"{name}_ns(uid-{name})\", container: main)");
        assert_eq!(message, &expected);
    }
    assert!(containers.list().is_empty());
    kubelet.stop().await;
}

#[tokio::test]
async fn a_container_image_without_its_runtime_says_so() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("box", json!({"image": "container:v1"}), json!({}));
    let failed = |pod: &serde_json::Value| waiting(pod) == "ErrImagePull";
    let pod = world
        .api
        .object(&path("box"), "it is refused", failed)
        .await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert!(
        message.as_str().unwrap().contains("runs WebAssembly only"),
        "{message}"
    );
    let said = |event: &String| event.starts_with("Failed: Failed to pull image");
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn an_unknown_handler_is_an_event_and_never_a_fallback() {
    let world = World::new();
    let class = json!({"metadata": {"name": "odd"}, "handler": "kata"});
    world
        .api
        .put("/apis/node.k8s.io/v1/runtimeclasses/odd", class);
    let kubelet = world.start();
    world.pod("odd", json!({}), json!({"runtimeClassName": "odd"}));
    let said = |event: &String| {
        event.starts_with("FailedCreatePodSandBox") && event.contains("handler \"kata\"")
    };
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    assert_eq!(world.runtime.count(Verb::RunPodSandbox), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_missing_config_map_holds_a_pod_until_it_comes() {
    let world = World::new();
    let kubelet = world.start();
    let env = json!([{"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "c"}}}]);
    world.pod("env", json!({"env": env}), json!({}));
    let held = |pod: &serde_json::Value| waiting(pod) == "CreateContainerConfigError";
    let pod = world.api.object(&path("env"), "it waits", held).await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"cm\" not found");
    let map = json!({"metadata": {"name": "cm", "namespace": "ns"}, "data": {"c": "red"}});
    world.api.put("/api/v1/namespaces/ns/configmaps/cm", map);
    world
        .api
        .object(&path("env"), "env is ready", is_ready)
        .await;
    let container = world.runtime.container("main").unwrap();
    assert!(
        container
            .config
            .env
            .contains(&("C".to_owned(), "red".to_owned()))
    );
    kubelet.stop().await;
}

#[tokio::test]
async fn a_pod_that_does_not_fit_is_refused() {
    let world = World::new();
    let kubelet = world.start();
    let resources = json!({"requests": {"cpu": "3"}});
    world.pod("big", json!({"resources": resources}), json!({}));
    let failed = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
    let pod = world
        .api
        .object(&path("big"), "it is refused", failed)
        .await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert_eq!(world.runtime.count(Verb::StartContainer), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_pod_that_chooses_other_nodes_is_refused() {
    let world = World::new();
    let kubelet = world.start();
    let refused = async |name: &str, spec: serde_json::Value, reason: &str| {
        world.pod(name, json!({}), spec);
        let failed = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
        let pod = world.api.object(&path(name), "it is refused", failed).await;
        assert_eq!(pod["status"]["reason"], reason);
    };
    let other = json!({"os": {"name": "windows"}});
    refused("other", other, "PodOSNotSupported").await;
    let fast = json!({"nodeSelector": {"disk": "fast", "kubernetes.io/os": "linux"}});
    refused("fast", fast.clone(), "NodeAffinity").await;
    // Users name nodes too.
    world.api.change("/api/v1/nodes/n1", |node| {
        node["metadata"]["labels"]["disk"] = json!("fast");
    });
    world.pod("again", json!({}), fast);
    world
        .api
        .object(&path("again"), "it is ready", is_ready)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_failed_start_is_tried_again() {
    let world = World::new();
    let broken = coracle_runtime::Error::Start("no luck".to_owned());
    world.runtime.fail_next(Verb::StartContainer, broken);
    let kubelet = world.start();
    world.pod("twice", json!({}), json!({}));
    let failed = |pod: &serde_json::Value| waiting(pod) == "RunContainerError";
    let pod = world
        .api
        .object(&path("twice"), "the start fails", failed)
        .await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "no luck");
    world
        .api
        .object(&path("twice"), "twice is ready", is_ready)
        .await;
    assert_eq!(
        world.runtime.list().len(),
        1,
        "the first attempt was removed"
    );
    kubelet.stop().await;
}

#[tokio::test]
async fn what_a_runtime_says_of_an_end_is_told_where_the_container_left_no_words() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("bad", json!({}), json!({"restartPolicy": "Never"}));
    world.api.object(&path("bad"), "it runs", is_ready).await;
    let id = world.runtime.container("main").unwrap().id;
    world.runtime.exit(&id, 1, "Error", "it broke");
    let failed = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
    let pod = world.api.object(&path("bad"), "it fails", failed).await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["message"], "it broke");
    kubelet.stop().await;
}

#[tokio::test]
async fn containers_know_services_by_their_environment() {
    let world = World::new();
    world.api.put(
        "/api/v1/namespaces/ns/services/db",
        json!({
            "metadata": {"name": "db", "namespace": "ns", "uid": "db"},
            "spec": {"clusterIP": "10.43.0.9", "ports": [{"port": 5432}]},
        }),
    );
    let kubelet = world.start();
    world.pod("env", json!({}), json!({}));
    world
        .api
        .object(&path("env"), "env is ready", is_ready)
        .await;
    let container = world.runtime.container("main").unwrap();
    let expected = ("DB_SERVICE_HOST".to_owned(), "10.43.0.9".to_owned());
    assert!(
        container.config.env.contains(&expected),
        "{:?}",
        container.config.env
    );
    kubelet.stop().await;
}
