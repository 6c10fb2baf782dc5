use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_store::{
    Disk, Error, File, OsDisk, Precondition, RaftConfig, RaftStore, Read, Store, suite,
};
use tokio::time::Instant;

/// A disk that has so much room.
struct SmallDisk {
    disk: OsDisk,
    room: Arc<AtomicU64>,
}

struct SmallFile {
    file: Box<dyn File>,
    room: Arc<AtomicU64>,
}

impl SmallDisk {
    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        let room = self.room.clone();
        Box::new(SmallFile { file, room })
    }
}

impl Disk for SmallDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(self.disk.create(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let freed = self.disk.open(name)?.size()?;
        self.disk.remove(name)?;
        self.room.fetch_add(freed, Ordering::Relaxed);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl File for SmallFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let grown = (offset + bytes.len() as u64).saturating_sub(self.file.size()?);
        let taken = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| {
                room.checked_sub(grown)
            });
        taken.map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn config(dir: &Path, room: &Arc<AtomicU64>) -> RaftConfig {
    let disk = SmallDisk {
        disk: OsDisk::new(&dir.join("wal")).unwrap(),
        room: room.clone(),
    };
    RaftConfig {
        disk: Some(Arc::new(disk)),
        segment_bytes: 9 << 20,
        reserve_bytes: 1 << 20,
        ..RaftConfig::single(dir, 1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_writes_while_reads_and_deletes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(AtomicU64::new(30 << 20));
    let store = RaftStore::open(config(dir.path(), &room)).await.unwrap();
    let text = "x".repeat(100 << 10);
    let mut written = Vec::new();
    let refused = loop {
        match store
            .create(&format!("{:04}", written.len()), suite::value(&text))
            .await
        {
            Ok(record) => written.push(record),
            Err(error) => break error,
        }
        // What others do with the disk meanwhile: what the log frees, they take.
        room.store(0, Ordering::Relaxed);
        assert!(written.len() < 1000, "the disk does not get full");
    };
    assert!(matches!(refused, Error::Full(_)), "{refused}");
    assert!(refused.to_string().contains("no space"), "{refused}");
    let deleted = written.pop().unwrap();
    store
        .delete(deleted.key(), Precondition::default())
        .await
        .unwrap();
    for record in &written {
        let found = store.get(record.key(), Read::Latest).await.unwrap();
        assert_eq!(found.as_ref(), Some(record));
    }
    // Space is made.
    room.store(1 << 30, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match store.create("again", suite::value("1")).await {
            Ok(record) => break written.push(record),
            Err(error) => assert!(matches!(error, Error::Full(_)), "{error}"),
        }
        assert!(Instant::now() < deadline, "still full");
        tokio::task::yield_now().await;
    }
    store.shutdown().await;
    drop(store);
    let store = RaftStore::open(config(dir.path(), &room)).await.unwrap();
    assert_eq!(suite::all(&*store, "").await, written);
    store.shutdown().await;
}
