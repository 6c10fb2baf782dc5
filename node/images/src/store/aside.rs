//! Blobs on their way out of the store.
//!
//! To remove a large file may take a disk seconds. So a blob loses its name while it is certain that
//! nobody needs it, and its content when nobody waits for the store.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::ContentStore;
use crate::Digest;

/// Blobs that have no name any more. Their files are among those that are being written, and go with
/// these when the store is opened if nobody removes them.
pub(super) struct Aside {
    files: Vec<(PathBuf, u64)>,
    /// Why there are no more.
    failed: io::Result<()>,
}

impl Aside {
    /// Takes blobs their names, as many as are there. For whoever keeps others from beginning to need
    /// them.
    pub(super) fn of<'a>(store: &ContentStore, blobs: impl Iterator<Item = &'a Digest>) -> Self {
        let mut aside = Self {
            files: Vec::new(),
            failed: Ok(()),
        };
        for blob in blobs {
            let to = store
                .root
                .join("ingest")
                .join(format!("gone-{}", blob.hex()));
            let size = store.size(blob).map(Option::unwrap_or_default);
            match fs::rename(store.blob_path(blob), &to).and(size) {
                Ok(size) => aside.files.push((to, size)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    aside.failed = Err(error);
                    break;
                }
            }
        }
        aside
    }

    /// Removes what they hold; the bytes freed. Blocks on the disk.
    pub(super) fn remove(self) -> io::Result<u64> {
        let mut freed = 0;
        for (file, size) in self.files {
            match fs::remove_file(file) {
                Ok(()) => freed += size,
                // The same blob has come and gone again since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.failed.map(|()| freed)
    }
}
