//! Blobs on their way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::DerefMut;
use std::path::{Path, PathBuf};

use crate::room::{Disk, Reserve, Watch};
use crate::{Digest, Hasher};

/// Bytes that are collected before they are written: what another thread for it costs is little beside
/// that.
const BATCH: usize = 256 << 10;

/// A blob that is being written. Dropped without [`BlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    written: u64,
    limit: u64,
    /// A write has failed: the file may have some of it, or none.
    broken: bool,
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
            broken: false,
            watch: Watch::new(reserve),
            blobs: root.join("blobs/sha256"),
        })
    }

    /// Takes more bytes; past the limit it is an error, and so it is where what is left to come does
    /// not fit on the disk. After a write that the disk has refused it takes nothing more. Blocks on
    /// the disk.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {} bytes", self.limit),
            ));
        }
        self.hasher.update(bytes);
        self.broken = true;
        self.file.write_all(bytes)?;
        self.broken = false;
        let (file, left) = (self.file.as_file(), self.limit - self.written);
        self.watch.take(bytes.len() as u64, left, || Disk::of(file))
    }

    /// What is in the file must be what was digested.
    fn check(&self) -> io::Result<()> {
        match self.broken {
            true => Err(io::Error::other("an earlier part could not be written")),
            false => Ok(()),
        }
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the blob under its name if its digest is the expected one. Blocks on the disk.
    pub fn commit(self, expected: &Digest) -> io::Result<()> {
        self.check()?;
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

/// Bytes of a blob that are still to be written, for whoever may not block. They are copied together:
/// small pieces of a connection may each keep the whole buffer into which they were read.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<u8>);

impl Batch {
    /// Takes bytes that come next.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Whether it is time to write them: they are many, or more than belong to the blob.
    pub(crate) fn is_full(&self, writer: &BlobWriter) -> bool {
        self.0.len() >= BATCH || writer.written + self.0.len() as u64 > writer.limit
    }

    /// Digests and writes them where that holds nobody up, and gives the writer back. Whoever does not
    /// wait for it loses the writer that it was given, but none that it has locked.
    pub(crate) async fn write<W>(&mut self, mut writer: W) -> io::Result<W>
    where
        W: DerefMut<Target = BlobWriter> + Send + 'static,
    {
        let bytes = std::mem::take(&mut self.0);
        let written = tokio::task::spawn_blocking(move || {
            writer.write(&bytes)?;
            Ok::<_, io::Error>(writer)
        });
        written.await.map_err(io::Error::other).flatten()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    #[test]
    fn what_was_not_written_whole_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ingest", "blobs/sha256"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let begin = || BlobWriter::new(folder.path(), 9, Reserve::default()).unwrap();
        let whole = Digest::of(b"onetwo");
        let blob = folder.path().join("blobs/sha256").join(whole.hex());
        let mut writer = begin();
        writer.write(b"one").unwrap();
        let (file, path) = writer.file.into_parts();
        // One that cannot be written.
        writer.file = NamedTempFile::from_parts(File::open(&path).unwrap(), path);
        writer.write(b"two").unwrap_err();
        let (_, path) = writer.file.into_parts();
        writer.file = NamedTempFile::from_parts(file, path);
        writer.write(b"two").unwrap_err();
        writer.commit(&whole).unwrap_err();
        assert!(!blob.exists());
        let mut writer = begin();
        for part in [b"one", b"two"] {
            writer.write(part).unwrap();
        }
        writer.commit(&whole).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), b"onetwo");
    }
}
