//! The newest snapshot, mapped once for a process.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::snapshot::Snapshot;

/// The snapshot of a path. A process has one for all its Pods: ten thousand mappings of the same
/// file would cost more than the Pods.
pub(super) struct Reader {
    path: PathBuf,
    current: Mutex<Option<Current>>,
}

/// The readers of this process.
static READERS: Mutex<Vec<Weak<Reader>>> = Mutex::new(Vec::new());

impl Reader {
    pub(super) fn of(path: &Path) -> Arc<Self> {
        let mut readers = READERS.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        if let Some(reader) = readers
            .iter()
            .filter_map(Weak::upgrade)
            .find(|reader| reader.path == path)
        {
            return reader;
        }
        let reader = Arc::new(Self {
            path: path.to_owned(),
            current: Mutex::new(None),
        });
        readers.push(Arc::downgrade(&reader));
        reader
    }

    /// The newest snapshot; the last good one while there is none.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let mut current = self.current.lock();
        let newest = std::fs::metadata(&self.path)
            .ok()
            .map(|file| (file.ino(), file.mtime(), file.mtime_nsec()));
        if let Some(identity) = newest
            && current.as_ref().map(|c| c.identity) != Some(identity)
            && let Ok(snapshot) = File::open(&self.path).and_then(|file| Snapshot::open(&file))
        {
            *current = Some(Current {
                identity,
                snapshot: Arc::new(snapshot),
            });
        }
        current.as_ref().map(|current| current.snapshot.clone())
    }
}

/// The mapped snapshot with what tells it from the next one.
struct Current {
    identity: (u64, i64, i64),
    snapshot: Arc<Snapshot>,
}
