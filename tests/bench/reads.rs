//! Large lists, many watches, and what objects cost the server.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::client::ConfigExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::cluster::Cluster;
use crate::footprint::pss_kibibytes;
use crate::{Row, percentile};

const OBJECTS: usize = 100_000;
/// Objects beside them, to tell what one takes: what is bounded is full by then, which are the
/// changes of the last minutes and the caches.
const FURTHER: usize = 50_000;
/// A program at rest gives back what it has freed, and looks every ten seconds whether it is.
const REST: Duration = Duration::from_secs(25);
/// Watchers, and the HTTP/2 connections that they share.
const WATCHERS: usize = 1000;
const SHARED: usize = 10;
/// How often memory is looked at: a peak has no event.
const SAMPLE: Duration = Duration::from_millis(5);
/// Writes that all watchers are to see.
const WRITES: usize = 30;

pub(crate) fn rows() {
    raise_file_limit();
    let cluster = Cluster::up(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(watchers(&cluster));
    drop(cluster);
    // Another one: this one's heap has room from what it has done.
    let cluster = Cluster::up(&[]);
    let client = runtime.block_on(super::pods::client(&cluster));
    let server = cluster.process.id();
    let empty = pss_kibibytes(server);
    let size = runtime.block_on(fill(&client, 0..OBJECTS));
    lists(&cluster);
    let before = at_rest(server);
    runtime.block_on(fill(&client, OBJECTS..OBJECTS + FURTHER));
    let each = |objects: usize, since: u64, now: u64| {
        let bytes = now.saturating_sub(since) as f64 * 1024.0;
        format!("{:.0} B", bytes / objects as f64 - size as f64)
    };
    Row::new(
        format!("memory for each of {FURTHER} objects of {size} bytes beside {OBJECTS}, beside the bytes"),
        each(FURTHER, before, at_rest(server)),
        "≤ 300 B",
    )
    .print();
    Row::new(
        "the same for each of the first, with the history of changes and caches",
        each(OBJECTS, empty, before),
        "",
    )
    .print();
}

/// Memory of a process that has come to rest, KiB.
fn at_rest(process: i32) -> u64 {
    std::thread::sleep(REST);
    pss_kibibytes(process)
}

fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, limit);
}

fn map(name: &str, filler: usize) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "data": {"filler": "x".repeat(filler)},
    }))
    .expect("a ConfigMap")
}

/// Makes the objects; returns the size of one.
async fn fill(client: &kube::Client, numbers: std::ops::Range<usize>) -> usize {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    stream::iter(numbers)
        .for_each_concurrent(64, |number| {
            let maps = maps.clone();
            async move {
                let map = map(&format!("filler-{number:06}"), 720);
                maps.create(&PostParams::default(), &map)
                    .await
                    .expect("created");
            }
        })
        .await;
    let path = "/api/v1/namespaces/default/configmaps/filler-000000";
    let request = http::Request::get(path)
        .body(Vec::new())
        .expect("a request");
    client.request_text(request).await.expect("an object").len()
}

/// A `curl` that reads all ConfigMaps and throws them away.
fn curl(cluster: &Cluster) -> Command {
    let kubectl = cluster.kubectl();
    let view = |path: &str| {
        let path = format!("jsonpath={{{path}}}");
        kubectl.ok(&["config", "view", "--raw", "--minify", "-o", &path])
    };
    let server = view(".clusters[0].cluster.server");
    let file = |name: &str, path: &str| {
        use base64::Engine;
        let file = cluster.folder().join(name);
        let data = base64::engine::general_purpose::STANDARD.decode(view(path));
        std::fs::write(&file, data.expect("base64")).expect("written");
        file
    };
    let ca = file("ca", ".clusters[0].cluster.certificate-authority-data");
    let certificate = file("certificate", ".users[0].user.client-certificate-data");
    let key = file("key", ".users[0].user.client-key-data");
    let mut curl = Command::new("curl");
    // By its own name it is taken for somebody who reads, and answered in lines.
    curl.args(["--user-agent", "bench"]);
    curl.args(["-sSf", "--http1.1", "-o", "/dev/null", "-w"])
        .arg("%{size_download} %{time_total}")
        .arg("--cacert")
        .arg(ca)
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(key)
        .arg(format!("{server}/api/v1/namespaces/default/configmaps"))
        .stdout(Stdio::piped());
    curl
}

fn lists(cluster: &Cluster) {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let output = curl(cluster).output().expect("curl");
            let text = crate::cluster::succeeded(&output);
            let (bytes, seconds) = text.split_once(' ').expect("two figures");
            let bytes: f64 = bytes.parse().expect("bytes");
            assert!(bytes > OBJECTS as f64 * 700.0, "{text}");
            bytes / seconds.trim().parse::<f64>().expect("seconds") / 1e6
        })
        .collect();
    Row::new(
        format!("LIST of {OBJECTS} objects of 1 KB, JSON over HTTPS, one client"),
        format!("{:.0} MB/s", percentile(&mut rates, 50.0)),
        "≥ 500 MB/s",
    )
    .print();
    let server = cluster.process.id();
    let before = pss_kibibytes(server);
    let children: Vec<_> = (0..10)
        .map(|_| curl(cluster).spawn().expect("curl"))
        .collect();
    let mut peak = 0;
    let mut running = children;
    while !running.is_empty() {
        peak = peak.max(pss_kibibytes(server));
        running.retain_mut(|child| match child.try_wait().expect("curl") {
            None => true,
            Some(status) => {
                assert!(status.success(), "curl: {status}");
                false
            }
        });
        std::thread::sleep(SAMPLE);
    }
    Row::new(
        "the same, ten clients at once: memory beside that of before",
        format!("{:.1} MiB", peak.saturating_sub(before) as f64 / 1024.0),
        "≤ 32 MiB",
    )
    .print();
}

/// The time from a write to its arrival, at all of many watchers.
async fn watchers(cluster: &Cluster) {
    let file = kube::config::Kubeconfig::read_from(cluster.data().join("kubeconfig"))
        .expect("the kubeconfig reads");
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default())
        .await
        .expect("the kubeconfig fits");
    let maps: Api<ConfigMap> = Api::default_namespaced(super::pods::client(cluster).await);
    maps.create(&PostParams::default(), &map("watched", 700))
        .await
        .expect("created");
    for (connections, form) in [
        (SHARED, format!("over {SHARED} HTTP/2 connections")),
        (WATCHERS, "over a TLS connection each".to_owned()),
    ] {
        let mut times = watched(&config, &maps, connections).await;
        Row::new(
            format!("a write to {WATCHERS} watchers {form}, p50 / p99"),
            format!(
                "{:.1} / {:.1} ms",
                percentile(&mut times, 50.0),
                percentile(&mut times, 99.0)
            ),
            if connections == SHARED {
                "≤ 20 ms p99"
            } else {
                ""
            },
        )
        .print();
    }
}

async fn watched(config: &kube::Config, maps: &Api<ConfigMap>, connections: usize) -> Vec<f64> {
    let (seen, mut sightings) = mpsc::channel(WATCHERS * WRITES);
    let mut tasks = tokio::task::JoinSet::new();
    let current = maps.get("watched").await.expect("an object");
    let from = current.metadata.resource_version.unwrap_or_default();
    for _ in 0..connections {
        let mut bodies = watches(config, WATCHERS / connections, &from).await;
        for mut body in bodies.drain(..) {
            let seen = seen.clone();
            tasks.spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    let whole = frame.data_ref().is_some_and(|data| data.ends_with(b"\n"));
                    if whole && seen.send(Instant::now()).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
    let mut times = Vec::new();
    for number in 0..WRITES {
        let patch = Patch::Merge(json!({"data": {"turn": number.to_string()}}));
        let started = Instant::now();
        maps.patch("watched", &PatchParams::default(), &patch)
            .await
            .expect("written");
        for _ in 0..WATCHERS {
            let seen = sightings.recv().await.expect("a watcher");
            times.push(seen.duration_since(started).as_secs_f64() * 1e3);
        }
    }
    tasks.shutdown().await;
    times
}

/// Watches of one connection; their heads have been received.
async fn watches(config: &kube::Config, count: usize, from: &str) -> Vec<Incoming> {
    let mut tls = config.rustls_client_config().expect("the certificates fit");
    tls.alpn_protocols = vec![if count > 1 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    let authority = config.cluster_url.authority().expect("an authority");
    let stream = tokio::net::TcpStream::connect(authority.as_str()).await;
    let stream = stream.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let name = rustls_pki_types::ServerName::try_from(authority.host().to_owned());
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(name.expect("a name"), stream)
        .await
        .expect("a handshake");
    let stream = TokioIo::new(stream);
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dwatched&resourceVersion={from}"
    );
    let request = || {
        http::Request::get(format!("https://{authority}{path}"))
            .header("host", authority.as_str())
            .body(Empty::<Bytes>::new())
            .expect("a request")
    };
    if count == 1 {
        let made = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = made.expect("HTTP/1.1");
        tokio::spawn(connection);
        let answer = sender.send_request(request()).await.expect("an answer");
        return vec![answer.into_body()];
    }
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (sender, connection) = made.expect("HTTP/2");
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..count {
        let mut sender = sender.clone();
        sender.ready().await.expect("a stream");
        let answer = sender.send_request(request()).await.expect("an answer");
        bodies.push(answer.into_body());
    }
    bodies
}
