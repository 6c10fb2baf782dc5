//! HTTP guests: one process per namespace.

use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;

use coracle_runtime::{
    ContainerConfig, ContainerState, ContainerStats, Mount, Port, Protocol, RuntimeService,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::network::Snapshot;
use crate::node::{DEADLINE, IMPATIENCE, Node, Pod, end_of, kill};
use crate::programs::{GROWS, SILENT, SLEEP, SPINS, TRAPS, handler};

pub(crate) const HOST: &str = "state/hosts/tests/process.json";

async fn request(method: &str, address: SocketAddr, path: &str) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .body(Empty::new())
        .unwrap();
    let response = tokio::time::timeout(DEADLINE, client.request(request));
    let response = response.await.unwrap().unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request("GET", address, path).await
}

pub(crate) async fn hello(node: &Node, name: &str) -> Pod {
    let image = node.sample("hello-http/hello-http.wasm");
    let edit = |config: &mut ContainerConfig| config.env = vec![("POD_NAME".into(), name.into())];
    node.start(&image, edit).await
}

pub(crate) async fn a_component_is_served() {
    let node = Node::new().await;
    let image = node.sample("hello-http/hello-http.wasm");
    let pod = node
        .start(&image, |config| {
            config.env = vec![("POD_NAME".into(), "web".into())];
            config.ports = vec![Port {
                name: "http".into(),
                port: 80,
                protocol: Protocol::Tcp,
            }];
        })
        .await;
    let (address, actual) = node.listener(&pod).await;
    assert_eq!(address, "10.42.0.1:80".parse().unwrap());
    for path in ["/", "/again"] {
        let expected = format!("Hello from web, you asked for {path}\n");
        assert_eq!(get(actual, path).await, (200, expected));
    }
    let (sender, connection) = {
        let stream = tokio::net::TcpStream::connect(actual).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap()
    };
    tokio::spawn(connection);
    let requests = (0..10).map(|_| {
        let mut sender = sender.clone();
        let request = http::Request::get("http://pod/h2").body(Empty::<bytes::Bytes>::new());
        async move {
            sender
                .send_request(request.unwrap())
                .await
                .unwrap()
                .status()
        }
    });
    for status in futures::future::join_all(requests).await {
        assert_eq!(status, 200, "HTTP/2 without TLS, ten streams");
    }
    node.runtime
        .stop_container(&pod.container, Duration::from_secs(5))
        .await
        .unwrap();
    let exit = node.exit(&pod).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
    assert!(tokio::net::TcpStream::connect(actual).await.is_err());
}

pub(crate) async fn one_host_serves_a_namespace() {
    let node = Node::new().await;
    let (one, two) = tokio::join!(hello(&node, "one"), hello(&node, "two"));
    for (pod, name) in [(&one, "one"), (&two, "two")] {
        let (_, actual) = node.listener(pod).await;
        let (status, body) = get(actual, "/").await;
        assert_eq!(status, 200);
        assert!(body.contains(name), "{body}");
    }
    let hosts = std::fs::read_dir(node.folder.path().join("state/hosts")).unwrap();
    assert_eq!(hosts.count(), 1);
    node.runtime.remove_pod_sandbox(&one.sandbox).await.unwrap();
    let (_, actual) = node.listener(&two).await;
    assert_eq!(
        get(actual, "/").await.0,
        200,
        "the other one is not touched"
    );
}

pub(crate) async fn the_next_agent_finds_guests_served() {
    let mut node = Node::new().await;
    let pod = hello(&node, "lasting").await;
    let before = (node.state(&pod).await, node.listener(&pod).await);
    node.restart().await;
    let after = (node.state(&pod).await, node.listener(&pod).await);
    assert_eq!(before, after);
    assert_eq!(get(after.1.1, "/").await.0, 200);
    let second = hello(&node, "second").await;
    let (_, actual) = node.listener(&second).await;
    assert_eq!(
        get(actual, "/").await.0,
        200,
        "the adopted host takes guests"
    );
}

pub(crate) async fn a_start_that_is_given_up_leaves_nothing() {
    let node = Node::new().await;
    let warm = hello(&node, "warm").await;
    let image = node.sample("hello-http/hello-http.wasm");
    let pod = node.create(&image, |_| ()).await;
    let start = node.runtime.start_container(&pod.container);
    assert!(start.now_or_never().is_none(), "a start takes a while");
    for pod in [&pod, &warm] {
        node.runtime.remove_container(&pod.container).await.unwrap();
    }
    // A host that still serves somebody would stay.
    node.runtime.detach().await;
    assert!(!node.folder.path().join(HOST).exists());
}

pub(crate) async fn the_death_of_a_host_ends_its_containers() {
    let node = Node::new().await;
    let pod = hello(&node, "first").await;
    assert!(kill(&node.folder.path().join(HOST)));
    let exit = node.exit(&pod).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
    let next = hello(&node, "next").await;
    let (_, actual) = node.listener(&next).await;
    assert_eq!(
        get(actual, "/").await.0,
        200,
        "the next guest has a new host"
    );
}

pub(crate) async fn guests_reach_each_other_and_their_volumes() {
    let node = Node::new().await;
    let volume = node.folder.path().join("data");
    std::fs::create_dir(&volume).unwrap();
    let store = node
        .start(&node.sample("kv-counter/kv-store.wasm"), |config| {
            config.mounts = vec![Mount {
                host_path: volume.clone(),
                container_path: "/data".into(),
                read_only: false,
                ..Mount::default()
            }];
        })
        .await;
    let web = node
        .start(&node.sample("kv-counter/kv-web.wasm"), |_| ())
        .await;
    let (_, web) = node.listener(&web).await;
    let (status, body) = get(web, "/").await;
    assert_eq!(status, 502, "the name does not resolve yet: {body}");

    let (_, store) = node.listener(&store).await;
    let service: SocketAddr = "10.43.0.9:8080".parse().unwrap();
    node.publish(&Snapshot {
        names: [("kv-store".to_owned(), vec![service.ip()])].into(),
        routes: [(service, store)].into(),
        ..Snapshot::default()
    });
    for visit in 1..=3 {
        assert_eq!(get(web, "/").await, (200, format!("visit {visit}\n")));
    }
}

pub(crate) async fn many_requests_are_served_at_once() {
    let node = Node::new().await;
    let pod = hello(&node, "busy").await;
    let (_, actual) = node.listener(&pod).await;
    let requests = (0..200).map(|number| async move {
        let path = format!("/{number}");
        let (status, body) = get(actual, &path).await;
        assert_eq!(status, 200);
        assert!(body.ends_with(&format!("{path}\n")), "{body}");
    });
    futures::future::join_all(requests).await;
}

pub(crate) async fn a_trap_is_an_answer_and_nothing_more() {
    let node = Node::new().await;
    for (body, part) in [
        (TRAPS, "unreachable"),
        (GROWS, "memory limit of 16777216 bytes"),
        (SILENT, ""),
    ] {
        let image = node.image(handler(body).as_bytes());
        let pod = node
            .start(&image, |config| {
                config.resources.memory_limit_bytes = Some(16 << 20);
            })
            .await;
        let (_, actual) = node.listener(&pod).await;
        for _ in 0..2 {
            assert_eq!(get(actual, "/").await.0, 500, "{body}");
        }
        let state = node.state(&pod).await;
        assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
        let log = std::fs::read_to_string(&pod.log).unwrap();
        assert!(log.contains(part), "{log}");
    }
}

pub(crate) async fn a_guest_that_cannot_be_served_leaves_nothing() {
    let node = Node::new().await;
    let file = node.folder.path().join("file");
    std::fs::write(&file, "file").unwrap();
    let traps = "(memory 1) (func $begin unreachable) (start $begin)";
    let image = node.image(handler(SILENT).replace("(memory 1)", traps).as_bytes());
    let pod = node
        .create(&image, |config| {
            config.mounts = vec![Mount {
                host_path: file,
                container_path: "/data/file".into(),
                read_only: false,
                ..Mount::default()
            }];
        })
        .await;
    let started = node.runtime.start_container(&pod.container).await;
    assert!(started.unwrap_err().to_string().contains("unreachable"));
    let volumes = node.folder.path().join("state/hosts/tests/volumes");
    assert_eq!(std::fs::read_dir(volumes).unwrap().count(), 0);
}

/// Sends a request whose answer nobody waits for, and waits until the guest runs.
async fn begin(node: &Node, pod: &Pod) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt;
    let (_, actual) = node.listener(pod).await;
    let mut stream = tokio::net::TcpStream::connect(actual).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: pod\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let start = std::time::Instant::now();
    loop {
        let stats = node.runtime.stats().await.unwrap();
        let of = stats.iter().find(|of| of.id == pod.container).unwrap();
        if of.cpu > Duration::from_millis(10) {
            return stream;
        }
        assert!(start.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn a_memory_limit_is_for_the_container() {
    let node = Node::new().await;
    // Grows to 6 MiB and stays: of several at once, two fit below 16 MiB.
    let body = "(drop (memory.grow (i32.const 95))) (loop $again (br $again))";
    let image = node.image(handler(body).as_bytes());
    let pod = node
        .start(&image, |config| {
            config.resources.memory_limit_bytes = Some(16 << 20);
        })
        .await;
    let (_, actual) = node.listener(&pod).await;
    let mut living = Vec::new();
    for number in 1..=2_u64 {
        living.push(begin(&node, &pod).await);
        stats_until(&node, &pod, |of| of.memory_bytes == number * (6 << 20)).await;
    }
    let (status, _) = get(actual, "/").await;
    assert_eq!(
        status, 500,
        "the one that would grow past the limit is ended"
    );
    let of = stats_until(&node, &pod, |of| of.traps > 0).await;
    assert_eq!(
        (of.traps, of.memory_bytes),
        (1, 12 << 20),
        "the others live on"
    );
    let log = std::fs::read_to_string(&pod.log).unwrap();
    assert!(log.contains("memory limit of 16777216 bytes"), "{log}");
    // A client that goes away takes its instance with it, and makes room.
    drop(living.pop());
    stats_until(&node, &pod, |of| of.memory_bytes == 6 << 20).await;
    let _third = begin(&node, &pod).await;
    let of = stats_until(&node, &pod, |of| of.memory_bytes == 12 << 20).await;
    assert_eq!(of.traps, 1);
}

pub(crate) async fn requests_wait_for_memory() {
    let node = Node::new().await;
    let image = node.sample("hello-http/hello-http.wasm");
    // Three instances fit, of more than a megabyte each.
    let pod = node
        .start(&image, |config| {
            config.resources.memory_limit_bytes = Some(4 << 20);
        })
        .await;
    let (_, actual) = node.listener(&pod).await;
    let all = futures::future::join_all((0..200).map(|_| get(actual, "/"))).await;
    for (status, body) in all {
        assert_eq!(status, 200, "{body}");
    }
    let of = stats_until(&node, &pod, |of| of.memory_bytes == 0).await;
    assert_eq!(of.traps, 0);
}

/// What a Pod uses, once it is so.
async fn stats_until(
    node: &Node,
    pod: &Pod,
    test: impl Fn(&ContainerStats) -> bool,
) -> ContainerStats {
    let wait = async {
        loop {
            let stats = node.runtime.stats().await.unwrap();
            let of = stats.into_iter().find(|of| of.id == pod.container).unwrap();
            if test(&of) {
                return of;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap()
}

pub(crate) async fn a_process_that_no_agent_comes_back_for_ends() {
    let mut node = Node::impatient().await;
    let web = hello(&node, "web").await;
    let sleep = node.image(SLEEP.as_bytes());
    let command = node.start(&sleep, |_| ()).await;
    let runner = format!(
        "state/containers/{}/runner/process.json",
        command.container.0
    );
    let mut ends: Vec<_> = [HOST, &runner]
        .iter()
        .map(|record| end_of(&node.folder.path().join(record)))
        .collect();
    // While an agent is there they live on, past the time for which they would wait.
    let early = tokio::time::timeout(IMPATIENCE * 2, &mut ends[0]).await;
    assert!(early.is_err());
    node.runtime.detach().await;
    for end in ends {
        assert!(end.await.unwrap(), "the process lives on");
    }
    node.restart().await;
    for pod in [&web, &command] {
        let exit = node.exit(pod).await;
        assert_eq!((exit.code, exit.reason.as_str()), (137, "Error"));
        assert!(
            exit.message.contains("no agent had come back"),
            "{}",
            exit.message
        );
    }
}

pub(crate) async fn a_stop_lets_requests_finish_and_cuts_the_rest() {
    let node = Node::new().await;
    let image = node.image(handler(SPINS).as_bytes());
    let pod = node.start(&image, |_| ()).await;
    let _stream = begin(&node, &pod).await;
    node.runtime
        .stop_container(&pod.container, Duration::from_millis(200))
        .await
        .unwrap();
    let exit = node.exit(&pod).await;
    assert_eq!(exit.code, 137);
    assert!(exit.message.contains("1 requests"), "{}", exit.message);
    // The host lives on for its other guests.
    let next = hello(&node, "next").await;
    let (_, actual) = node.listener(&next).await;
    assert_eq!(get(actual, "/").await.0, 200);
}

pub(crate) async fn a_spinning_neighbour_is_not_felt() {
    let node = Node::new().await;
    let spins = node.image(handler(SPINS).as_bytes());
    let mut spinning = Vec::new();
    for _ in 0..4 {
        let pod = node.start(&spins, |_| ()).await;
        spinning.push(begin(&node, &pod).await);
    }
    let quiet = hello(&node, "quiet").await;
    let (_, actual) = node.listener(&quiet).await;
    let served = async {
        for _ in 0..50 {
            assert_eq!(get(actual, "/").await.0, 200);
        }
    };
    tokio::time::timeout(DEADLINE, served).await.unwrap();
}
