//! Durable writes through the API, beside etcd's raw puts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::cluster::Cluster;
use crate::{Row, go};

const SECONDS: u64 = 5;

pub(crate) fn rows() {
    let connections = [1, 16, 100];
    let peers = etcd(&connections);
    let cluster = Cluster::up(&[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (connections, peer) in connections.into_iter().zip(peers) {
        let ours = runtime.block_on(creates(&cluster, connections));
        Row::new(
            format!("durable creates of 1 KB ConfigMaps over HTTPS, {connections} connections"),
            format!("{ours:.0}/s"),
            "≥ 0.5 of etcd's puts",
        )
        .beside("etcd 1 KB puts/s", ours, peer)
        .print();
    }
    restart(cluster, &runtime).print();
}

/// The start on what the rows above have written.
fn restart(cluster: Cluster, runtime: &tokio::runtime::Runtime) -> Row {
    let count = runtime.block_on(async {
        let maps: Api<ConfigMap> = Api::default_namespaced(super::pods::client(&cluster).await);
        let page = kube::api::ListParams::default().limit(1);
        let list = maps.list_metadata(&page).await.expect("a list");
        list.metadata.remaining_item_count.unwrap_or(0) + 1
    });
    let folder = cluster.kill();
    let started = Instant::now();
    let _cluster = Cluster::up_in(folder, &[]);
    Row::new(
        format!("`up` to a Ready node after a kill, {count} stored objects"),
        format!("{:.2} s", started.elapsed().as_secs_f64()),
        "≤ 1.5 s for 10,000",
    )
}

/// Creates per second with one client after another's answer on each connection.
async fn creates(cluster: &Cluster, connections: usize) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(SECONDS);
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..connections {
        let client = super::pods::client(cluster).await;
        tasks.spawn(async move {
            let maps: Api<ConfigMap> = Api::default_namespaced(client);
            let filler = "x".repeat(800);
            let mut count = 0_u64;
            while Instant::now() < deadline {
                let map: ConfigMap = serde_json::from_value(json!({
                    "metadata": {"name": format!("bench-{connections}-{connection}-{count}")},
                    "data": {"filler": filler},
                }))
                .expect("a ConfigMap");
                maps.create(&PostParams::default(), &map)
                    .await
                    .expect("created");
                count += 1;
            }
            count
        });
    }
    let total: u64 = tasks.join_all().await.into_iter().sum();
    total as f64 / started.elapsed().as_secs_f64()
}

struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts per second of etcd for each number of connections; none where it, or Go, is missing.
fn etcd(connections: &[usize]) -> Vec<Option<f64>> {
    let none = || connections.iter().map(|_| None).collect();
    let Ok(folder) = tempfile::tempdir() else {
        return none();
    };
    let Some(client) = go::built("etcd-put", folder.path()) else {
        return none();
    };
    let endpoint = "http://127.0.0.1:23790";
    let server = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args([
            "--listen-client-urls",
            endpoint,
            "--advertise-client-urls",
            endpoint,
        ])
        .args(["--listen-peer-urls", "http://127.0.0.1:23800"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(server) = server else {
        return none();
    };
    let _server = Etcd(server);
    connections
        .iter()
        .map(|connections| {
            let output = Command::new(&client)
                .args([endpoint, &connections.to_string(), &SECONDS.to_string()])
                .output()
                .ok()?;
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        })
        .collect()
}
