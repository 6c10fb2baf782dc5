//! What Pods feel of each other, and what they cost.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::node::Node;
use crate::programs::{HELLO, SLEEP, SPINS, handler};
use crate::{figure, percentile};

const HELLO_HTTP: &str = "hello-http/hello-http.wasm";
const IDLE_PODS: usize = 10_000;
const SPINNING: usize = 4;
/// Requests to the quiet Pod, and how often one is sent.
const REQUESTS: usize = 1500;
const EVERY: Duration = Duration::from_millis(4);

async fn connect(address: SocketAddr) -> http1::SendRequest<Empty<bytes::Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get() -> http::Request<Empty<bytes::Bytes>> {
    let request = http::Request::get("/").header("host", "pod");
    request.body(Empty::new()).unwrap()
}

/// Times of requests at a low rate on one connection, sorted.
async fn quiet(address: SocketAddr) -> Vec<Duration> {
    let mut sender = connect(address).await;
    let mut times = Vec::with_capacity(REQUESTS);
    let mut tick = tokio::time::interval(EVERY);
    for _ in 0..REQUESTS {
        tick.tick().await;
        let before = Instant::now();
        sender.ready().await.unwrap();
        let response = sender.send_request(get()).await.unwrap();
        response.into_body().collect().await.unwrap();
        times.push(before.elapsed());
    }
    times.sort();
    times
}

pub(crate) async fn neighbours() {
    let node = Node::new().await;
    let pod = node.start(&node.sample(HELLO_HTTP), |_| ()).await;
    let (_, address) = node.listener(&pod).await;
    quiet(address).await;
    let alone = quiet(address).await;
    let spins = node.image(handler(SPINS).as_bytes());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..SPINNING {
        let pod = node.start(&spins, |_| ()).await;
        let (_, address) = node.listener(&pod).await;
        let mut sender = connect(address).await;
        clients.spawn(async move { sender.send_request(get()).await.map(drop) });
    }
    let beside = quiet(address).await;
    assert_eq!(clients.len(), SPINNING);
    assert!(clients.try_join_next().is_none(), "a guest does not spin");
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    for (name, times) in [("alone", &alone), ("beside 4 that spin", &beside)] {
        for of in [50, 99] {
            let time = percentile(times, of);
            figure(
                &format!("a quiet Pod {name}, p{of}"),
                milliseconds(time),
                "ms",
            );
        }
    }
    let ratio = percentile(&beside, 99).as_secs_f64() / percentile(&alone, 99).as_secs_f64();
    figure("a quiet Pod, p99 beside to p99 alone", ratio, "ratio");
}

/// Memory of a process, shared pages counted by their part, bytes.
fn proportional(record: &Path) -> u64 {
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let rollup = format!("/proc/{}/smaps_rollup", record["pid"]);
    let rollup = std::fs::read_to_string(rollup).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() << 10
}

pub(crate) async fn idle() {
    let node = Node::new().await;
    let image = node.sample(HELLO_HTTP);
    let first = node.start(&image, |_| ()).await;
    let record = node.folder.path().join("state/hosts/tests/process.json");
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    figure(
        "a host with 1 idle Pod",
        mebibytes(proportional(&record)),
        "MiB",
    );
    let before = Instant::now();
    let mut times: Vec<Duration> = futures::stream::iter(1..IDLE_PODS)
        .map(|_| async {
            let before = Instant::now();
            node.start(&image, |_| ()).await;
            before.elapsed()
        })
        .buffer_unordered(16)
        .collect()
        .await;
    let took = before.elapsed();
    times.sort();
    let name = |what: &str| format!("{IDLE_PODS} idle Pods{what}");
    figure(
        &name(", their host"),
        mebibytes(proportional(&record)),
        "MiB",
    );
    figure(&name(", started in"), took.as_secs_f64(), "s");
    let p99 = percentile(&times, 99).as_secs_f64() * 1e3;
    figure(&name(", start of one of 16 at a time, p99"), p99, "ms");
    let (_, address) = node.listener(&first).await;
    connect(address).await.send_request(get()).await.unwrap();
}

pub(crate) async fn commands() {
    let node = Node::new().await;
    let hello = node.image(HELLO.as_bytes());
    node.run(&hello, |_| ()).await;
    let mut times = Vec::new();
    for _ in 0..100 {
        let before = Instant::now();
        node.run(&hello, |_| ()).await;
        times.push(before.elapsed());
    }
    times.sort();
    for of in [50, 99] {
        let time = percentile(&times, of).as_secs_f64() * 1e3;
        figure(&format!("a command from start to exit, p{of}"), time, "ms");
    }
    let sleep = node.image(SLEEP.as_bytes());
    let pod = node.start(&sleep, |_| ()).await;
    let runner = format!("state/containers/{}/runner/process.json", pod.container.0);
    let bytes = proportional(&node.folder.path().join(runner));
    figure(
        "a command that waits",
        bytes as f64 / f64::from(1 << 20),
        "MiB",
    );
}
