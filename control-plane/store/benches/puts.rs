//! Durable 1 KB puts into a cluster of one, in this process: `cargo bench --bench puts`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{RaftConfig, RaftStore, Store, suite};

const TIME: Duration = Duration::from_secs(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    println!(
        "{:>8} {:>12} {:>12} {:>12}",
        "clients", "puts/s", "p50", "p99"
    );
    for clients in [1, 16, 100] {
        let (rate, mut times) = runtime.block_on(run(clients));
        times.sort_unstable();
        let at = |part: usize| times[times.len() * part / 100];
        println!(
            "{clients:>8} {rate:>12.0} {:>12.0?} {:>12.0?}",
            at(50),
            at(99)
        );
    }
}

async fn run(clients: usize) -> (f64, Vec<Duration>) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let store = RaftStore::open(RaftConfig::single(dir.path(), 1))
        .await
        .unwrap();
    let value = suite::value(&"x".repeat(1024));
    let began = Instant::now();
    let client = async |store: Arc<RaftStore>, client: usize| {
        let mut times = Vec::new();
        while began.elapsed() < TIME {
            let key = format!("client/{client}/{}", times.len());
            let start = Instant::now();
            store.create(&key, value.clone()).await.unwrap();
            times.push(start.elapsed());
        }
        times
    };
    let times = futures::future::join_all((0..clients).map(|n| client(store.clone(), n))).await;
    let times: Vec<_> = times.into_iter().flatten().collect();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    store.shutdown().await;
    (rate, times)
}
