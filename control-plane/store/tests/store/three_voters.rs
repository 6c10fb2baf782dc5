use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_store::suite::{self, Switchboard};
use coracle_store::{Error, RaftConfig, RaftStore, Read, Store, Timing};
use tempfile::TempDir;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(30);

/// Three members in this process.
struct Cluster {
    board: Arc<Switchboard>,
    dirs: BTreeMap<u64, TempDir>,
    stores: BTreeMap<u64, Arc<RaftStore>>,
    /// Bytes of history that each retains.
    history: usize,
}

impl Cluster {
    async fn start(history: usize) -> Self {
        let dirs = (1..=3).map(|id| (id, tempfile::tempdir().unwrap()));
        let mut cluster = Self {
            board: Switchboard::new(),
            dirs: dirs.collect(),
            stores: BTreeMap::new(),
            history,
        };
        for id in 1..=3 {
            cluster.open(id).await;
        }
        cluster.leader().await;
        cluster
    }

    async fn open(&mut self, id: u64) {
        let config = RaftConfig {
            members: (1..=3).map(|id| (id, format!("member-{id}"))).collect(),
            transport: self.board.line(id),
            timing: Timing {
                heartbeat: Duration::from_millis(100),
                election_min: Duration::from_millis(600),
                election_max: Duration::from_millis(1200),
            },
            segment_bytes: 8 << 20,
            reserve_bytes: 1 << 20,
            history_kept_bytes: self.history,
            history_most_bytes: self.history,
            ..RaftConfig::single(self.dirs[&id].path(), id)
        };
        let store = RaftStore::open(config).await.unwrap();
        self.board.connect(id, &store);
        self.stores.insert(id, store);
    }

    /// The member that leads, when the members that run agree on one of them.
    async fn leader(&self) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let leaders: Vec<_> = self.stores.values().map(|store| store.leader()).collect();
            if let Some(Some(leader)) = leaders.first()
                && self.stores.contains_key(leader)
                && leaders.iter().all(|other| *other == Some(*leader))
            {
                return *leader;
            }
            assert!(Instant::now() < deadline, "no leader: {leaders:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Ends a member without a word to the others.
    async fn kill(&mut self, id: u64) {
        self.board.cut(id);
        let store = self.stores.remove(&id).unwrap();
        store.shutdown().await;
    }

    fn followers(&self, leader: u64) -> Vec<Arc<RaftStore>> {
        let others = self.stores.iter().filter(|(id, _)| **id != leader);
        others.map(|(_, store)| store.clone()).collect()
    }

    async fn end(self) {
        for store in self.stores.values() {
            store.shutdown().await;
        }
    }
}

/// Every member has what the first has, exactly.
async fn agree(stores: impl IntoIterator<Item = &Arc<RaftStore>>) {
    let mut first = None;
    for store in stores {
        let records = suite::all(&**store, "").await;
        let first = first.get_or_insert(records.clone());
        assert_eq!(*first, records);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_passes_the_suite_while_the_leader_is_killed() {
    let mut cluster = Cluster::start(64 << 20).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers(leader).remove(0);
    let running = tokio::spawn(suite::run(follower.clone()));
    let deadline = Instant::now() + DEADLINE;
    while follower.revision() < 500 {
        assert!(Instant::now() < deadline, "the suite does not write");
        tokio::task::yield_now().await;
    }
    cluster.kill(leader).await;
    running.await.unwrap();
    cluster.open(leader).await;
    agree(cluster.stores.values()).await;
    cluster.end().await;
}

/// Writers on every member; each acknowledged write is there once, whoever led.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_when_leaders_die() {
    let mut cluster = Cluster::start(64 << 20).await;
    for round in 0..2 {
        let leader = cluster.leader().await;
        let mut writers = tokio::task::JoinSet::new();
        for (id, store) in cluster.stores.clone() {
            writers.spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0..300 {
                    let key = format!("round/{round}/{id}/{n:03}");
                    match store.create(&key, suite::value("1")).await {
                        Ok(record) => acknowledged.push(record),
                        Err(Error::Unavailable(_)) if id == leader => break,
                        // A create that is applied twice finds itself.
                        Err(error) => panic!("{key}: {error}"),
                    }
                }
                acknowledged
            });
        }
        let watched = cluster.followers(leader).remove(0);
        let from = watched.revision();
        let deadline = Instant::now() + DEADLINE;
        while watched.revision() < from + 200 {
            assert!(Instant::now() < deadline, "nobody writes");
            tokio::task::yield_now().await;
        }
        cluster.kill(leader).await;
        let acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
        assert!(acknowledged.len() >= 600);
        cluster.open(leader).await;
        for store in cluster.stores.values() {
            // Linearizable on each: the first read waits for all that was acknowledged.
            for record in &acknowledged {
                let found = store.get(record.key(), Read::Latest).await.unwrap();
                assert_eq!(found.as_ref(), Some(record));
            }
        }
        agree(cluster.stores.values()).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_linearizable_on_every_member() {
    let cluster = Cluster::start(64 << 20).await;
    let stores: Vec<_> = cluster.stores.values().cloned().collect();
    for n in 0..30 {
        let key = format!("read/{n}");
        let written = stores[n % 3].create(&key, suite::value("1")).await.unwrap();
        let reads = stores.iter().map(|store| store.get(&key, Read::Latest));
        for read in futures::future::join_all(reads).await {
            assert_eq!(read.unwrap().as_ref(), Some(&written));
        }
        let here = stores[n % 3]
            .get(&key, Read::AtLeast(written.revision()))
            .await;
        assert_eq!(here.unwrap(), Some(written));
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_too_long_catches_up_from_a_snapshot() {
    let mut cluster = Cluster::start(256 << 10).await;
    let leader = cluster.leader().await;
    let away = *cluster.stores.keys().find(|id| **id != leader).unwrap();
    let store = cluster.stores[&leader].clone();
    let text = "x".repeat(4 << 10);
    store.create("before", suite::value("1")).await.unwrap();
    cluster.kill(away).await;
    let oldest = store.revision();
    let deadline = Instant::now() + DEADLINE;
    let mut n = 0;
    // Until the leader has purged what the member lacks.
    while store.purged().is_none_or(|purged| purged < oldest + 200) {
        assert!(Instant::now() < deadline, "the log is not purged");
        let keys = (n..n + 50).map(|n| format!("key/{}", n % 400));
        let puts = keys.map(|key| {
            let (store, text) = (store.clone(), text.clone());
            async move {
                if store.create(&key, suite::value(&text)).await.is_err() {
                    store.delete(&key, Default::default()).await.unwrap();
                }
            }
        });
        futures::future::join_all(puts).await;
        n += 50;
    }
    cluster.open(away).await;
    agree(cluster.stores.values()).await;
    // What it got is durable, and it goes on from there.
    cluster.kill(away).await;
    store.create("after", suite::value("1")).await.unwrap();
    cluster.open(away).await;
    agree(cluster.stores.values()).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_and_reads_say_so() {
    let mut cluster = Cluster::start(64 << 20).await;
    let leader = cluster.leader().await;
    let kept = cluster.stores[&leader].clone();
    let written = kept.create("a", suite::value("1")).await.unwrap();
    for id in [1, 2, 3].into_iter().filter(|id| *id != leader) {
        cluster.kill(id).await;
    }
    let (write, read, stale) = tokio::join!(
        kept.create("b", suite::value("1")),
        kept.get("a", Read::Latest),
        kept.get("a", Read::AtLeast(written.revision())),
    );
    assert!(matches!(write, Err(Error::Unavailable(_))), "{write:?}");
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert_eq!(stale.unwrap(), Some(written), "what is here can be read");
    drop(kept);
    cluster.end().await;
}

/// A leader that is cut off, not killed: what was asked of it meanwhile happens once or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_comes_back_follows() {
    let cluster = Cluster::start(64 << 20).await;
    let leader = cluster.leader().await;
    let old = cluster.stores[&leader].clone();
    let other = cluster.followers(leader).remove(0);
    other.create("before", suite::value("1")).await.unwrap();
    cluster.board.cut(leader);
    let keys = (0..20).map(|n| format!("cut/{n}"));
    let writes = keys.clone().map(|key| {
        let old = old.clone();
        async move { old.create(&key, suite::value("old")).await }
    });
    let (written, ()) = tokio::join!(futures::future::join_all(writes), async {
        // The others have a leader of their own by now.
        other.create("meanwhile", suite::value("1")).await.unwrap();
        cluster.board.mend(leader);
    });
    cluster.leader().await;
    for (key, written) in keys.zip(written) {
        let found = other.get(&key, Read::Latest).await.unwrap();
        match written {
            Ok(written) => assert_eq!(found, Some(written)),
            Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("{key}: {error}"),
        }
    }
    old.create("after", suite::value("1")).await.unwrap();
    agree(cluster.stores.values()).await;
    cluster.end().await;
}
