//! Blobs on their way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::room::{Disk, Reserve, Watch};
use crate::{Digest, Hasher};

/// A blob that is being written. Dropped without [`BlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    written: u64,
    limit: u64,
    watch: Watch,
    blobs: PathBuf,
}

impl BlobWriter {
    /// Begins a blob of at most `limit` bytes in the folder of a store.
    pub(super) fn new(root: &Path, limit: u64, reserve: Reserve) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::Builder::new()
                .prefix("blob-")
                .tempfile_in(root.join("ingest"))?,
            hasher: Hasher::default(),
            written: 0,
            limit,
            watch: Watch::new(reserve),
            blobs: root.join("blobs/sha256"),
        })
    }

    /// Takes more bytes; past the limit it is an error, and so it is where what is left to come does
    /// not fit on the disk.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {} bytes", self.limit),
            ));
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        let (file, left) = (self.file.as_file(), self.limit - self.written);
        self.watch.take(bytes.len() as u64, left, || Disk::of(file))
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the blob under its name if its digest is the expected one. Blocks on the disk.
    pub fn commit(self, expected: &Digest) -> io::Result<()> {
        let actual = self.hasher.finish();
        if actual != *expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("content has digest {actual} where {expected} was expected"),
            ));
        }
        persist(self.file, &self.blobs.join(actual.hex()))
    }

    /// Puts the blob under the name that its content gives. Blocks on the disk.
    pub fn finish(self) -> io::Result<Digest> {
        let digest = self.hasher.clone().finish();
        self.commit(&digest)?;
        Ok(digest)
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// Syncs a temporary file, renames it, and syncs the folder that it is in now.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
