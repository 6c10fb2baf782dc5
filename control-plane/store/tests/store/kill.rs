//! kill -9 of a process that writes: what it had acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use coracle_store::{Precondition, RaftConfig, RaftStore, Store, suite};

const DIR: &str = "CORACLE_STORE_TEST_DIR";

fn config(dir: impl Into<std::path::PathBuf>) -> RaftConfig {
    RaftConfig {
        reserve_bytes: 1 << 20,
        // Little, so that sled and the purge are in it too.
        history_kept_bytes: 64 << 10,
        history_most_bytes: 128 << 10,
        segment_bytes: 9 << 20,
        ..RaftConfig::single(dir, 1)
    }
}

/// Does nothing by itself: it is the process that [`loses_nothing_when_killed`] starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = RaftStore::open(config(dir)).await.unwrap();
    let writer = async |store: Arc<RaftStore>, writer: usize| {
        for n in 0.. {
            let key = format!("{writer}/{:02}", n % 20);
            let text = format!("{n} {}", "x".repeat(n % 40 * 500));
            let value = suite::value(&text);
            let written = match store.create(&key, value.clone()).await {
                Ok(written) => written,
                Err(_) => {
                    let any = Precondition::default();
                    store.compare_and_swap(&key, any, value).await.unwrap()
                }
            };
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {key} {n} {}", written.revision()).unwrap();
        }
    };
    futures::future::join_all((0..8).map(|n| writer(store.clone(), n))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loses_nothing_when_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut newest = std::collections::BTreeMap::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines {
            let line = line.unwrap();
            let Some((_, acknowledged)) = line.split_once("acknowledged ") else {
                continue;
            };
            let mut words = acknowledged.split(' ');
            // The last line may be cut short.
            if let (Some(key), Some(n), Some(Ok(revision))) = (
                words.next(),
                words.next(),
                words.next().map(str::parse::<u64>),
            ) {
                newest.insert(key.to_owned(), (n.parse::<u64>().unwrap(), revision));
            }
            count += 1;
            if count == 1500 {
                child.kill().unwrap();
            }
        }
        assert!(count >= 1500, "the child ended by itself, round {round}");
        child.wait().unwrap();
        let store = RaftStore::open(config(dir.path())).await.unwrap();
        let found = suite::all(&*store, "").await;
        for (key, (n, revision)) in &newest {
            let record = found.iter().find(|record| record.key() == &**key);
            let record = record.unwrap_or_else(|| panic!("{key} is lost"));
            let written: u64 = suite::text(record)
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            // The write that was under way may have happened too.
            let exact = record.revision() == *revision && written == *n;
            assert!(exact || record.revision() > *revision, "{key}: {n} lost");
        }
        newest = found
            .iter()
            .map(|record| {
                let n = suite::text(record).split(' ').next().unwrap();
                (
                    record.key().to_owned(),
                    (n.parse().unwrap(), record.revision()),
                )
            })
            .collect();
        store.shutdown().await;
    }
}
