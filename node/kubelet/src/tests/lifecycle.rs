//! Pods from their binding to their end.

use std::time::{Duration, Instant};

use coracle_runtime::fake::{Behaviour, Verb};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        "Created: Container created",
        "Started: Container started",
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
async fn a_hook_may_sleep_as_long_as_its_pod_has_time() {
    let world = World::new();
    let kubelet = world.start();
    let sleeps = |seconds: i64| json!({"sleep": {"seconds": seconds}});
    let hooks = json!({"lifecycle": {"postStart": sleeps(0), "preStop": sleeps(3600)}});
    world.pod("web", hooks, json!({}));
    world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    world.api.delete_gracefully(&path("web"), 3600);
    let killing = |event: &String| event == "Killing: Stopping container main";
    world
        .api
        .until("it ends", |api| api.events().iter().any(killing))
        .await;
    assert_eq!(world.runtime.count(Verb::StopContainer), 0);
    world.api.delete_gracefully(&path("web"), 1);
    world
        .api
        .until("the object is gone", |api| api.get(&path("web")).is_none())
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_container_whose_start_fails_by_a_hook_hears_of_its_end() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let kubelet = world.start();
    let hooks = json!({"lifecycle": {
        "postStart": {"exec": {"command": ["/secret.wasm", "3"]}},
        "preStop": {"tcpSocket": {"host": "127.0.0.1", "port": port}},
    }});
    world.pod("web", hooks, json!({"restartPolicy": "Never"}));
    let told = tokio::time::timeout(Duration::from_secs(10), socket.accept()).await;
    told.expect("the other hook ran").unwrap();
    let ended = |pod: &serde_json::Value| pod["status"]["phase"] == "Succeeded";
    world.api.object(&path("web"), "it has ended", ended).await;
    let said = |event: &String| event == "FailedPostStartHook: PostStartHook failed";
    world
        .api
        .until("the event", |api| api.events().iter().any(said))
        .await;
    let events = world.api.events();
    assert!(
        !events.iter().any(|event| event.contains("secret")),
        "{events:?}"
    );
    kubelet.stop().await;
}

/// The API has not heard of its address by then.
#[tokio::test]
async fn a_container_whose_start_fails_by_a_hook_is_found_by_the_other() {
    let deadline = Duration::from_secs(20);
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    world.runtime.behave("main", listens);
    let kubelet = world.start();
    let hooks = json!({"lifecycle": {
        "postStart": {"httpGet": {"host": "127.0.0.1", "port": port, "path": "/begun"}},
        "preStop": {"httpGet": {"port": port, "path": "/ends"}},
    }});
    world.pod("web", hooks, json!({"restartPolicy": "Never"}));
    let told = tokio::time::timeout(deadline, socket.accept()).await;
    let (begun, _) = told.expect("the first hook ran").unwrap();
    let known = async {
        while world.network.listeners.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let known = tokio::time::timeout(deadline, known).await;
    known.expect("the network knows where it listens");
    // No answer is a failure.
    drop(begun);
    let told = tokio::time::timeout(deadline, socket.accept()).await;
    told.expect("the other hook ran").unwrap();
    kubelet.stop().await;
}

#[tokio::test]
async fn a_hook_over_https_that_is_served_without_is_told_so() {
    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut secure, _) = socket.accept().await.unwrap();
        let mut hello = [0; 1 << 12];
        let length = secure.read(&mut hello).await.unwrap();
        assert!(length > 0);
        let refused = b"HTTP/1.0 400 Bad Request\r\n\r\n";
        secure.write_all(refused).await.unwrap();
        let (mut plain, _) = socket.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(plain.read_u8().await.unwrap());
        }
        let done = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        plain.write_all(done).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    let kubelet = world.start();
    let headers = ["Authorization", "X-Other"].map(|name| json!({"name": name, "value": "v"}));
    let hook = json!({"postStart": {"httpGet": {
        "scheme": "HTTPS", "host": "127.0.0.1", "port": port, "path": "/begun",
        "httpHeaders": headers,
    }}});
    world.pod("web", json!({"lifecycle": hook}), json!({}));
    world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    let asked = server.await.unwrap().to_lowercase();
    assert!(asked.starts_with("get /begun "), "{asked}");
    assert!(asked.contains("x-other: v"), "{asked}");
    assert!(!asked.contains("authorization"), "{asked}");
    let said = format!(
        "LifecycleHTTPFallback: request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, \
         retry with HTTP succeeded"
    );
    world
        .api
        .until("an event says so", |api| api.events().contains(&said))
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_container_whose_hook_fails_backs_off() {
    let world = World::new();
    let kubelet = world.start();
    let hook = json!({"postStart": {"exec": {"command": ["/hook.wasm", "3"]}}});
    world.pod("web", json!({"lifecycle": hook}), json!({}));
    let looping = |pod: &serde_json::Value| waiting(pod) == "CrashLoopBackOff";
    let pod = world
        .api
        .object(&path("web"), "it backs off", looping)
        .await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1, "the first restart is at once");
    assert_eq!(pod["status"]["phase"], "Running");
    kubelet.stop().await;
}

#[tokio::test]
async fn servers_can_tell_hooks_from_probes() {
    use tokio::io::AsyncReadExt;

    let world = World::new();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let kubelet = world.start();
    let get = json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": "/begun"}});
    world.pod("web", json!({"lifecycle": {"postStart": get}}), json!({}));
    let told = tokio::time::timeout(Duration::from_secs(10), socket.accept()).await;
    let (mut stream, _) = told.expect("the hook ran").unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    drop(stream);
    let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /begun "), "{request}");
    assert!(request.contains("kube-lifecycle/1.37"), "{request}");
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
async fn a_pod_with_init_containers_initializes_until_the_others_are_there() {
    let world = World::new();
    let once = Behaviour {
        exits: Some(0),
        ..Behaviour::default()
    };
    world.runtime.behave("first", once);
    let kubelet = world.start();
    let inits = json!([{"name": "first", "image": "app:v1"}]);
    // With the machine's network it need not be known first what all images hold.
    let spec = json!({"initContainers": inits, "hostNetwork": true});
    world.pod("web", json!({"image": "slow:v1"}), spec);
    let initialized = |pod: &serde_json::Value| condition(pod, "Initialized") == "True";
    let pod = world
        .api
        .object(&path("web"), "it is initialized", initialized)
        .await;
    assert_eq!(waiting(&pod), "PodInitializing");
    world.images.released.notify_one();
    world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn statuses_of_containers_are_in_the_order_of_their_names() {
    let world = World::new();
    let kubelet = world.start();
    let named = |name: &str| json!({"name": name, "image": "app:v1"});
    let sidecar = |name: &str| json!({"name": name, "image": "app:v1", "restartPolicy": "Always"});
    let spec = json!({
        "initContainers": [sidecar("z"), sidecar("y")],
        "containers": [named("c"), named("a"), named("b")],
    });
    world.pod("web", json!({}), spec);
    let pod = world
        .api
        .object(&path("web"), "web is ready", is_ready)
        .await;
    let names = |list: &str| -> Vec<&str> {
        let list = pod["status"][list].as_array().unwrap().iter();
        list.map(|of| of["name"].as_str().unwrap()).collect()
    };
    assert_eq!(names("containerStatuses"), ["a", "b", "c"]);
    assert_eq!(names("initContainerStatuses"), ["z", "y"], "of the spec");
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
    let asked = Instant::now();
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
    let least = Duration::from_secs(2);
    assert!(asked.elapsed() >= least, "what all containers get to end");
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
