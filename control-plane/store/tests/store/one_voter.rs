use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{OpenError, Precondition, RaftConfig, RaftStore, Read, Store, Timing, suite};

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
    for _ in 0..2 {
        // Were it to wait for an election, it would not open in time.
        let timing = Timing {
            heartbeat: Duration::from_secs(60),
            election_min: Duration::from_secs(3600),
            election_max: Duration::from_secs(7200),
        };
        let config = RaftConfig {
            timing,
            ..config(dir.path())
        };
        let store = RaftStore::open(config).await.unwrap();
        assert!(store.is_leader());
        store.create("a", suite::value("1")).await.ok();
        assert!(store.get("a", Read::Latest).await.unwrap().is_some());
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
    assert_eq!(store.revision(), second.revision());
    assert_eq!(store.get("a", Read::Latest).await.unwrap(), Some(second));
    let then = store.get("a", Read::Exact(first.revision())).await.unwrap();
    assert_eq!(then, Some(first));
    store.shutdown().await;
}

/// Little history, so that sled has most of it and the log is purged.
async fn open_with_little_history(dir: &Path) -> Result<Arc<RaftStore>, OpenError> {
    let config = RaftConfig {
        history_kept_bytes: 16 << 10,
        history_most_bytes: 64 << 10,
        ..config(dir)
    };
    RaftStore::open(config).await
}

/// A directory with a log that was purged; returns what must be in it.
async fn purged(dir: &Path) -> Vec<coracle_store::Record> {
    let store = open_with_little_history(dir).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while store.purged().is_none_or(|purged| purged < 200) {
        assert!(Instant::now() < deadline, "the log is not purged");
        // Some in many chunks, some in one, all written over and over, some removed.
        let text = format!("{n} {}", "x".repeat(n % 7 * 6000));
        let key = format!("key/{}", n % 50);
        if store.create(&key, suite::value(&text)).await.is_err() {
            let any = Precondition::default();
            if n % 11 == 0 {
                store.delete(&key, any).await.unwrap();
            } else {
                let value = suite::value(&text);
                store.compare_and_swap(&key, any, value).await.unwrap();
            }
        }
        n += 1;
    }
    let all = suite::all(&*store, "").await;
    store.shutdown().await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_in_sled_what_left_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let written = purged(dir.path()).await;
    for _ in 0..2 {
        let store = open_with_little_history(dir.path()).await.unwrap();
        assert_eq!(suite::all(&*store, "").await, written);
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_lost_a_part_is_never_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    purged(dir.path()).await;
    for part in ["wal", "applied"] {
        let (there, away) = (dir.path().join(part), dir.path().join("away"));
        std::fs::rename(&there, &away).unwrap();
        let error = open_with_little_history(dir.path()).await.err().unwrap();
        assert!(matches!(&error, OpenError::Data(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains(part) && error.contains("corrupt"), "{error}");
        std::fs::remove_dir_all(&there).unwrap();
        std::fs::rename(&away, &there).unwrap();
    }
    open_with_little_history(dir.path())
        .await
        .unwrap()
        .shutdown()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_applied_state_is_told_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let written = purged(dir.path()).await;
    let whole = std::fs::read(dir.path().join("applied/db")).unwrap();
    let mut told = 0;
    for part in 0..24 {
        let mut damaged = whole.clone();
        let at = whole.len() * part / 24 + 1000;
        let end = (at + 64).min(damaged.len());
        damaged[at.min(end)..end].fill(0xa5);
        // Elsewhere each time: where sled panicked it keeps its file locked.
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        std::fs::write(copy.path().join("applied/db"), damaged).unwrap();
        match open_with_little_history(copy.path()).await {
            Ok(store) => {
                assert_eq!(suite::all(&*store, "").await, written, "damage at {at}");
                store.shutdown().await;
            }
            Err(error) => {
                assert!(matches!(error, OpenError::Data(_)), "{error}");
                told += 1;
            }
        }
    }
    assert!(told > 0, "no damage was met");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
