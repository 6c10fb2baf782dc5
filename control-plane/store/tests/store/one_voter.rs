use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{OpenError, Precondition, RaftConfig, RaftStore, Read, Store, suite};

/// Small segments and a small reserve, so that a test passes many of them.
fn config(dir: &Path) -> RaftConfig {
    RaftConfig {
        reserve_bytes: 1 << 20,
        ..RaftConfig::single(dir, 1)
    }
}

async fn open(dir: &Path) -> Arc<RaftStore> {
    RaftStore::open(config(dir)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    suite::run(store.clone()).await;
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..2 {
        let began = Instant::now();
        let store = open(dir.path()).await;
        assert!(store.is_leader());
        // An election timeout is a second at least.
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "start {start}: {:?}",
            began.elapsed()
        );
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_directory_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let second = RaftStore::open(config(dir.path())).await.err().unwrap();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    store.shutdown().await;
    drop(store);
    open(dir.path()).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_objects_and_history_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let first = store.create("a", suite::value("1")).await.unwrap();
    let second = store
        .compare_and_swap("a", Precondition::default(), suite::value("2"))
        .await;
    let second = second.unwrap();
    store.shutdown().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.revision(), second.revision);
    assert_eq!(store.get("a", Read::Latest).await.unwrap(), Some(second));
    let then = store.get("a", Read::Exact(first.revision)).await.unwrap();
    assert_eq!(then, Some(first));
    store.shutdown().await;
}
