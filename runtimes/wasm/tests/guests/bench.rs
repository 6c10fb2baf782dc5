//! Figures for people, printed by `--bench`; no test asserts them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coracle_runtime::RuntimeService;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::http::{SPINS, wat};
use crate::node::Node;

const IDLE_PODS: usize = 2_000;
const LOAD: Duration = Duration::from_secs(5);

pub(crate) async fn run() {
    commands().await;
    requests().await;
    neighbours().await;
    idle().await;
}

/// Requests one after the other on one connection, for a while; the time of each.
async fn load(address: SocketAddr, until: Instant) -> Vec<Duration> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut times = Vec::new();
    while Instant::now() < until {
        let before = Instant::now();
        let request = http::Request::get("/")
            .header("host", "pod")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        times.push(before.elapsed());
    }
    connection.abort();
    times
}

async fn many(address: SocketAddr, connections: usize) -> Vec<Duration> {
    let until = Instant::now() + LOAD;
    let loads = (0..connections).map(|_| tokio::spawn(load(address, until)));
    let times = futures::future::join_all(loads).await;
    let mut times: Vec<Duration> = times.into_iter().flat_map(Result::unwrap).collect();
    times.sort();
    times
}

fn percentile(times: &[Duration], of: usize) -> Duration {
    times[(times.len() - 1) * of / 100]
}

async fn requests() {
    let node = Node::new().await;
    let image = node.sample("hello-http/hello-http.wasm");
    let pod = node.start(&image, |_| ()).await;
    let (_, actual) = node.listener(&pod).await;
    for connections in [1, 16, 64] {
        let times = many(actual, connections).await;
        println!(
            "hello-http, {connections:>3} connections: {:>6.0} requests/s, p50 {:?}, p99 {:?}",
            times.len() as f64 / LOAD.as_secs_f64(),
            percentile(&times, 50),
            percentile(&times, 99),
        );
    }
}

async fn neighbours() {
    let node = Node::new().await;
    let image = node.sample("hello-http/hello-http.wasm");
    let quiet = node.start(&image, |_| ()).await;
    let (_, quiet) = node.listener(&quiet).await;
    let alone = many(quiet, 1).await;
    let spins = node.image(wat(SPINS).as_bytes());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let pod = node.start(&spins, |_| ()).await;
        let (_, actual) = node.listener(&pod).await;
        clients.spawn(async move {
            let stream = tokio::net::TcpStream::connect(actual).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::get("/")
                .header("host", "pod")
                .body(Empty::<bytes::Bytes>::new())
                .unwrap();
            let _ = sender.send_request(request).await;
        });
    }
    let beside = many(quiet, 1).await;
    for (name, times) in [("alone", alone), ("beside 4 that spin", beside)] {
        println!(
            "a quiet Pod {name}: p50 {:?}, p99 {:?}",
            percentile(&times, 50),
            percentile(&times, 99)
        );
    }
}

fn resident(pid: i64) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
    kib.unwrap()
}

async fn commands() {
    let node = Node::new().await;
    let hello = node.image(crate::commands::HELLO.as_bytes());
    node.run(&hello, |_| ()).await;
    let mut times = Vec::new();
    for _ in 0..50 {
        let before = Instant::now();
        node.run(&hello, |_| ()).await;
        times.push(before.elapsed());
    }
    times.sort();
    let sleep = node.image(crate::commands::SLEEP.as_bytes());
    let pod = node.start(&sleep, |_| ()).await;
    let runner = format!("state/containers/{}/runner/process.json", pod.container.0);
    let record = std::fs::read(node.folder.path().join(runner)).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    println!(
        "a command from start to exit: p50 {:?}, p99 {:?}; one that waits: {} KiB",
        percentile(&times, 50),
        percentile(&times, 99),
        resident(record["pid"].as_i64().unwrap())
    );
}

async fn idle() {
    let node = Node::new().await;
    let image = node.sample("hello-http/hello-http.wasm");
    let first = node.start(&image, |_| ()).await;
    let record = node.folder.path().join("state/hosts/tests/process.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let pid = record["pid"].as_i64().unwrap();
    let before = resident(pid);
    let start = Instant::now();
    let times: Vec<Duration> = futures::stream::iter(0..IDLE_PODS)
        .map(|_| async {
            let before = Instant::now();
            node.start(&image, |_| ()).await;
            before.elapsed()
        })
        .buffer_unordered(16)
        .collect()
        .await;
    let took = start.elapsed();
    let mut times = times;
    times.sort();
    let after = resident(pid);
    println!(
        "{IDLE_PODS} idle Pods: host {before} KiB with one, {after} KiB with all, {:.2} KiB each; \
         started in {took:?}, p50 {:?}, p99 {:?}",
        (after - before) as f64 / IDLE_PODS as f64,
        percentile(&times, 50),
        percentile(&times, 99)
    );
    node.runtime
        .remove_pod_sandbox(&first.sandbox)
        .await
        .unwrap();
}
