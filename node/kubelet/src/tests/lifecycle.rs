//! Pods from their binding to their end.

use coracle_runtime::fake::{Behaviour, Verb};
use serde_json::json;

use super::world::{World, condition, is_ready, path, waiting};

#[tokio::test]
async fn a_pod_runs_is_reported_and_is_deleted() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("web", json!({}), json!({}));
    let pod = world
        .api
        .object(&path("web"), "web is ready", is_ready)
        .await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.42.0.1");
    assert_eq!(status["hostIP"], "192.0.2.1");
    for type_ in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&pod, type_), "True", "{type_}");
    }
    let container = &status["containerStatuses"][0];
    let id = container["containerID"].as_str().unwrap();
    assert!(id.starts_with("wasm://") && id.len() == 71, "{id}");
    assert_eq!(container["imageID"], "registry/app:v1@sha256:00");
    assert_eq!(
        (&container["restartCount"], &container["started"]),
        (&json!(0), &json!(true))
    );
    let patches = world.api.status_patches(&path("web"));
    assert_eq!(patches, 1, "a quick start is reported once");

    world.api.delete_gracefully(&path("web"), 30);
    world
        .api
        .until("the object is gone", |api| api.get(&path("web")).is_none())
        .await;
    assert_eq!(world.runtime.sandboxes().len(), 0);
    assert_eq!(world.network.given(), 0);
    let left = std::fs::read_dir(world.root.path().join("logs"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "its logs are gone");
    world
        .api
        .until("events", |api| api.events().len() >= 6)
        .await;
    let events = world.api.events();
    for expected in [
        "Pulling: Pulling image \"app:v1\"",
        "Created: Created container: main",
        "Started: Started container main",
        "Killing: Stopping container main",
    ] {
        assert!(
            events.iter().any(|event| event == expected),
            "{expected}: {events:?}"
        );
    }
    kubelet.stop().await;
}

#[tokio::test]
async fn a_pod_that_completes_succeeds_and_stays() {
    let world = World::new();
    let once = Behaviour {
        exits: Some(0),
        ..Behaviour::default()
    };
    world.runtime.behave("main", once);
    let kubelet = world.start();
    world.pod("job", json!({}), json!({"restartPolicy": "Never"}));
    let done = |pod: &serde_json::Value| pod["status"]["phase"] == "Succeeded";
    let pod = world.api.object(&path("job"), "job succeeds", done).await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(0), &json!("Completed"))
    );
    let reason = &pod["status"]["conditions"];
    assert!(reason.to_string().contains("PodCompleted"), "{reason}");
    assert_eq!(world.runtime.count(Verb::StartContainer), 1);
    world.api.delete_gracefully(&path("job"), 30);
    world
        .api
        .until("the object is gone", |api| api.get(&path("job")).is_none())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_failing_pod_fails_with_its_code() {
    let world = World::new();
    let fails = Behaviour {
        exits: Some(3),
        ..Behaviour::default()
    };
    world.runtime.behave("main", fails);
    let kubelet = world.start();
    world.pod("bad", json!({}), json!({"restartPolicy": "Never"}));
    let done = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
    let pod = world.api.object(&path("bad"), "bad fails", done).await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 3);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_crashing_container_is_restarted_then_backs_off() {
    let world = World::new();
    let crashes = Behaviour {
        exits: Some(1),
        ..Behaviour::default()
    };
    world.runtime.behave("main", crashes);
    let kubelet = world.start();
    world.pod("crash", json!({}), json!({}));
    let looping = |pod: &serde_json::Value| waiting(pod) == "CrashLoopBackOff";
    let pod = world
        .api
        .object(&path("crash"), "crash backs off", looping)
        .await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1, "the first restart is at once");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    let message = container["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "back-off 10s restarting failed container=main pod=crash_ns(uid-crash)"
    );
    assert_eq!(pod["status"]["phase"], "Running");
    kubelet.stop().await;
}

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
async fn init_containers_run_before_the_others() {
    let world = World::new();
    let once = Behaviour {
        exits: Some(0),
        ..Behaviour::default()
    };
    world.runtime.behave("first", once.clone());
    world.runtime.behave("second", once);
    let kubelet = world.start();
    let inits = json!([
        {"name": "first", "image": "app:v1"},
        {"name": "second", "image": "app:v1"},
        {"name": "beside", "image": "app:v1", "restartPolicy": "Always"},
    ]);
    world.pod("init", json!({}), json!({"initContainers": inits}));
    let pod = world
        .api
        .object(&path("init"), "init is ready", is_ready)
        .await;
    let started: Vec<String> = world
        .runtime
        .calls()
        .into_iter()
        .filter(|(verb, _)| *verb == Verb::StartContainer)
        .map(|(_, name)| name)
        .collect();
    assert_eq!(started, ["first", "second", "beside", "main"]);
    let inits = &pod["status"]["initContainerStatuses"];
    assert_eq!(inits[0]["state"]["terminated"]["exitCode"], 0);
    assert_eq!(inits[2]["ready"], true);
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
async fn a_pod_past_its_deadline_fails() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("late", json!({}), json!({"activeDeadlineSeconds": 1}));
    let failed = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
    let pod = world.api.object(&path("late"), "late fails", failed).await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(world.runtime.running(), 0);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_grace_period_shrinks() {
    let world = World::new();
    let stubborn = Behaviour {
        ignores_stop: true,
        ..Behaviour::default()
    };
    world.runtime.behave("main", stubborn);
    let kubelet = world.start();
    world.pod("slow", json!({}), json!({}));
    world
        .api
        .object(&path("slow"), "slow is ready", is_ready)
        .await;
    world.api.delete_gracefully(&path("slow"), 3600);
    let stopping =
        |runtime: &coracle_runtime::fake::FakeRuntime| runtime.count(Verb::StopContainer) == 1;
    world
        .runtime
        .wait_until("it is being stopped", stopping)
        .await;
    world.api.delete_gracefully(&path("slow"), 0);
    world
        .api
        .until("the object is gone", |api| api.get(&path("slow")).is_none())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_forced_deletion_ends_containers_too() {
    let world = World::new();
    let kubelet = world.start();
    world.pod("gone", json!({}), json!({}));
    world
        .api
        .object(&path("gone"), "gone is ready", is_ready)
        .await;
    world.api.remove(&path("gone"));
    world
        .runtime
        .wait_until("nothing is left", |r| r.sandboxes().is_empty())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let world = World::new();
    let kubelet = world.start();
    let probe = json!({"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1});
    world.pod("sick", json!({"livenessProbe": probe}), json!({}));
    let restarted = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    };
    world
        .api
        .object(&path("sick"), "it is restarted", restarted)
        .await;
    let said = |event: &String| {
        event
            == "Unhealthy: Liveness probe failed: dial tcp 10.42.0.1:9: connect: connection refused"
    };
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    let killed = |event: &String| {
        event == "Killing: Container main failed liveness probe, will be restarted"
    };
    world
        .api
        .until("another too", |api| api.events().iter().any(killed))
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn readiness_follows_its_probe() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let app = axum::Router::new().route("/ok", axum::routing::get(|| async { "fine" }));
    let server = tokio::spawn(async move { axum::serve(socket, app).await });
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    world.runtime.behave("main", listens);
    let kubelet = world.start();
    let probe = |path: &str| json!({"httpGet": {"port": port, "path": path}, "periodSeconds": 1});
    world.pod("good", json!({"readinessProbe": probe("/ok")}), json!({}));
    world
        .api
        .object(&path("good"), "good is ready", is_ready)
        .await;
    world.pod("bad", json!({"readinessProbe": probe("/none")}), json!({}));
    let said = |event: &String| {
        event == "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 404"
    };
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    let pod = world.api.get(&path("bad")).unwrap();
    assert_ne!(condition(&pod, "Ready"), "True");
    kubelet.stop().await;
    server.abort();
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
async fn a_status_is_sent_once_the_api_takes_it() {
    let world = World::new();
    world.api.refuse(&path("late"), Some(503));
    let kubelet = world.start();
    world.pod("late", json!({}), json!({}));
    world
        .runtime
        .wait_until("it runs", |runtime| runtime.running() == 1)
        .await;
    world.api.refuse(&path("late"), None);
    world
        .api
        .object(&path("late"), "late is ready", is_ready)
        .await;
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
    world.pod(
        "vol",
        json!({"volumeMounts": mounts}),
        json!({"volumes": volumes}),
    );
    world
        .api
        .object(&path("vol"), "vol is ready", is_ready)
        .await;
    let container = world.runtime.container("main").unwrap();
    let labels = container.config.mounts[1].host_path.join("labels");
    assert!(container.config.mounts[0].host_path.is_dir());
    assert_eq!(std::fs::read_to_string(&labels).unwrap(), "");
    world.api.change(&path("vol"), |pod| {
        pod["metadata"]["labels"] = json!({"a": "b"});
        pod["metadata"]["generation"] = json!(2);
    });
    let seen = |pod: &serde_json::Value| pod["status"]["observedGeneration"] == 2;
    world
        .api
        .object(&path("vol"), "the change is seen", seen)
        .await;
    assert_eq!(std::fs::read_to_string(&labels).unwrap(), "a=\"b\"");
    kubelet.stop().await;
}

#[tokio::test]
async fn unsupported_volumes_and_probes_are_refused_by_name() {
    let world = World::new();
    let kubelet = world.start();
    let volumes = json!([{"name": "host", "hostPath": {"path": "/"}}]);
    world.pod("host", json!({}), json!({"volumes": volumes}));
    let said = |event: &String| event.starts_with("FailedMount") && event.contains("type hostPath");
    world
        .api
        .until("an event says so", |api| api.events().iter().any(said))
        .await;
    let probe = json!({"exec": {"command": ["true"]}});
    world.pod("exec", json!({"readinessProbe": probe}), json!({}));
    let held = |pod: &serde_json::Value| waiting(pod) == "CreateContainerConfigError";
    let pod = world.api.object(&path("exec"), "it waits", held).await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert!(
        message
            .as_str()
            .unwrap()
            .starts_with("readinessProbe: exec probes"),
        "{message}"
    );
    assert_eq!(world.runtime.count(Verb::StartContainer), 0);
    kubelet.stop().await;
}
