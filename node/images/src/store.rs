//! The content store: blobs by digest, and the images that are made of them.
//!
//! One process owns a store's folder:
//!
//! ```text
//! blobs/sha256/<hex>    content; the name is the digest, verified while it was written
//! images/<hex>.json     one record per image, named by its manifest's digest
//! ingest/               files being written or removed; emptied when the store is opened
//! ```
//!
//! A file appears under its name only when it is complete and on the disk: it is written in
//! `ingest`, synced, renamed, and the folder is synced. Runtimes in other processes read blobs
//! by path and never write.
//!
//! Removing an image removes the blobs that no other image and no [`Lease`] of a pull under way
//! needs. Deliberately absent: deciding which image to remove (the kubelet's garbage
//! collection).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use crate::Digest;
use crate::access;
use crate::image::StoredImage;
use crate::room::{self, Disk, Reserve};

mod aside;
mod lease;
mod writer;

use aside::Aside;
pub use lease::Lease;
pub use writer::BlobWriter;
pub(crate) use writer::{Batch, persist};

/// Blobs by digest and images by manifest digest, in one folder.
#[derive(Debug)]
pub struct ContentStore {
    root: PathBuf,
    reserve: Reserve,
    /// Held by whoever writes or removes records, which takes the disk's time.
    changes: Mutex<()>,
    /// Locked for moments: images are looked up where nobody may block.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Images by manifest digest.
    images: BTreeMap<String, StoredImage>,
    /// Manifest digest by reference.
    references: BTreeMap<String, String>,
    /// Blobs that pulls under way rely on, and how many of them.
    leased: HashMap<Digest, usize>,
    /// One lock per blob that is being fetched: only one task fetches, others wait for it.
    flights: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
}

impl ContentStore {
    /// Opens or makes a store. What a crash left half written is removed; a record that cannot
    /// be read is dropped with a warning, as the image can be pulled again.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Arc<Self>> {
        Self::open_keeping(root, Reserve::default())
    }

    /// The same; that much of a disk stays free of what is fetched into the store, and of what is
    /// unpacked from it.
    pub fn open_keeping(root: impl Into<PathBuf>, reserve: Reserve) -> io::Result<Arc<Self>> {
        let root = root.into();
        fs::create_dir_all(root.join("blobs/sha256"))?;
        fs::create_dir_all(root.join("images"))?;
        let ingest = root.join("ingest");
        match fs::remove_dir_all(&ingest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&ingest)?,
        }
        let store = Self {
            root,
            reserve,
            changes: Mutex::default(),
            state: Mutex::default(),
        };
        store.load()?;
        Ok(Arc::new(store))
    }

    fn load(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        for entry in fs::read_dir(self.root.join("images"))? {
            let path = entry?.path();
            let read = fs::read(&path)
                .and_then(|bytes| Ok(serde_json::from_slice::<StoredImage>(&bytes)?))
                .and_then(
                    |image| match image.blobs.iter().find(|blob| !self.has(blob)) {
                        Some(blob) => Err(io::Error::other(format!("blob {blob} is missing"))),
                        None => Ok(image),
                    },
                );
            match read {
                Ok(image) => state.insert(image),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "dropping an image record");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What stays free of a disk to which this store's content goes.
    pub(crate) fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// Makes sure that so many bytes more fit into the store.
    pub(crate) fn check_room(&self, bytes: u64) -> io::Result<()> {
        room::check(Disk::at(&self.root)?, self.reserve, bytes)
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Size of a blob in bytes, if it is there.
    pub fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match fs::metadata(self.blob_path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts to write a blob of at most `limit` bytes.
    pub fn writer(&self, limit: u64) -> io::Result<BlobWriter> {
        BlobWriter::new(&self.root, limit, self.reserve)
    }

    /// Writes a blob that is in memory, and returns its digest. Blocks on the disk.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let mut writer = self.writer(bytes.len() as u64)?;
            writer.write(bytes)?;
            writer.commit(&digest)?;
        }
        Ok(digest)
    }

    /// Makes sure that a blob is there: if it is not, `open` is asked for its bytes. Of several
    /// callers that want the same blob one fetches and the others wait; if it fails, the next
    /// one tries. `size` is what the manifest says; more or fewer bytes are an error, and so is
    /// another digest.
    pub async fn fetch<E, S, F>(
        &self,
        digest: &Digest,
        size: u64,
        open: impl FnOnce() -> F,
    ) -> Result<(), E>
    where
        E: From<io::Error>,
        S: Stream<Item = Result<bytes::Bytes, E>>,
        F: Future<Output = Result<S, E>>,
    {
        let flight = self.flight(digest);
        let _flight = flight.lock().await;
        match self.size(digest)? {
            Some(present) if present == size => return Ok(()),
            Some(present) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("blob {digest} has {present} bytes where {size} are announced"),
                )
                .into());
            }
            None => {}
        }
        let mut writer = Box::new(self.writer(size)?);
        let stream = open().await?;
        let mut stream = std::pin::pin!(stream);
        let mut batch = Batch::default();
        while let Some(chunk) = stream.next().await {
            batch.add(&chunk?);
            if batch.is_full(&writer) {
                writer = batch.write(writer).await?;
            }
        }
        let writer = batch.write(writer).await?;
        if writer.written() != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "blob {digest} ended after {} of {size} bytes",
                    writer.written()
                ),
            )
            .into());
        }
        let digest = digest.clone();
        tokio::task::spawn_blocking(move || writer.commit(&digest))
            .await
            .map_err(io::Error::other)??;
        Ok(())
    }

    /// Whether somebody fetches the blob now, or waits for whoever does.
    pub(crate) fn is_coming(&self, digest: &Digest) -> bool {
        let state = self.state.lock();
        let flight = state.flights.get(digest);
        flight.is_some_and(|flight| flight.strong_count() > 0)
    }

    fn flight(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state.lock();
        if let Some(flight) = state.flights.get(digest).and_then(Weak::upgrade) {
            return flight;
        }
        state.flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::default();
        state
            .flights
            .insert(digest.clone(), Arc::downgrade(&flight));
        flight
    }

    /// Protects blobs from removal while the lease lives, whether they are there yet or not.
    pub fn lease(self: &Arc<Self>) -> Lease {
        Lease {
            store: Arc::clone(self),
            digests: BTreeSet::new(),
        }
    }

    /// The image of a manifest digest.
    pub fn image(&self, digest: &str) -> Option<StoredImage> {
        self.state.lock().images.get(digest).cloned()
    }

    /// The image to which a full reference (as in [`StoredImage::references`]) leads.
    pub fn image_by_reference(&self, reference: &str) -> Option<StoredImage> {
        let state = self.state.lock();
        let digest = state.references.get(reference)?;
        state.images.get(digest).cloned()
    }

    /// All images, by digest.
    pub fn images(&self) -> Vec<StoredImage> {
        self.state.lock().images.values().cloned().collect()
    }

    /// Records an image whose blobs are there. References that led elsewhere lead to it now, those that
    /// it already has stay, and so does who has had access to it. Blocks on the disk.
    pub fn record(&self, mut image: StoredImage) -> io::Result<StoredImage> {
        let _changes = self.changes.lock();
        // Asked within: whoever had no lease has waited here for the image to be removed.
        if let Some(missing) = image.blobs.iter().find(|blob| !self.has(blob)) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("blob {missing} of image {} is missing", image.digest),
            ));
        }
        let known = self.image(&image.digest);
        let own = known.iter().flat_map(|image| image.references.clone());
        image.references.extend(own);
        image.references.sort();
        image.references.dedup();
        if let Some(known) = &known {
            image.pulled = access::merged(&known.pulled, image.pulled);
        }
        if known.as_ref() == Some(&image) {
            return Ok(image);
        }
        self.write_record(&image)?;
        let others = self.state.lock().others(&image);
        for mut other in others {
            other.references.retain(|r| !image.references.contains(r));
            self.write_record(&other)?;
            let mut state = self.state.lock();
            state.images.insert(other.digest.clone(), other);
        }
        self.state.lock().insert(image.clone());
        Ok(image)
    }

    /// Forgets an image and removes the blobs that nothing else needs. Removing what is not
    /// there succeeds; returns the bytes freed. Blocks on the disk.
    pub fn remove_image(&self, digest: &str) -> io::Result<u64> {
        let _changes = self.changes.lock();
        let Some(image) = self.image(digest) else {
            return Ok(0);
        };
        fs::remove_file(self.record_path(&image.digest))?;
        let aside = {
            let mut state = self.state.lock();
            state.images.remove(digest);
            state.references.retain(|_, target| target != digest);
            let needed = state.needed();
            let unneeded = image.blobs.iter().filter(|blob| !needed.contains(blob));
            Aside::of(self, unneeded)
        };
        aside.remove()
    }

    /// Removes blobs that no image and no lease needs: what pulls that failed or were cut off
    /// left behind. Returns the bytes freed. Blocks on the disk.
    pub fn remove_unused_blobs(&self) -> io::Result<u64> {
        let aside = {
            let state = self.state.lock();
            Aside::of(self, self.unused(&state)?.iter())
        };
        aside.remove()
    }

    /// The same but for blobs younger than that: of a pull under way some are written before they
    /// are leased.
    pub fn remove_left_over(&self, age: Duration) -> io::Result<u64> {
        let now = SystemTime::now();
        let old = |blob: &&Digest| {
            let written = fs::metadata(self.blob_path(blob)).and_then(|of| of.modified());
            written.is_ok_and(|at| now.duration_since(at).is_ok_and(|since| since >= age))
        };
        let aside = {
            let state = self.state.lock();
            Aside::of(self, self.unused(&state)?.iter().filter(old))
        };
        aside.remove()
    }

    /// The blobs that [`Self::remove_unused_blobs`] would remove.
    pub(crate) fn unused_blobs(&self) -> io::Result<Vec<Digest>> {
        self.unused(&self.state.lock())
    }

    fn unused(&self, state: &State) -> io::Result<Vec<Digest>> {
        let needed = state.needed();
        let mut unused = Vec::new();
        for entry in fs::read_dir(self.root.join("blobs/sha256"))? {
            let name = entry?.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>();
            unused.extend(digest.ok().filter(|digest| !needed.contains(digest)));
        }
        Ok(unused)
    }

    fn record_path(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.root.join("images").join(format!("{hex}.json"))
    }

    fn write_record(&self, image: &StoredImage) -> io::Result<()> {
        let digest: Digest = image
            .digest
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut file = tempfile::Builder::new()
            .prefix("image-")
            .tempfile_in(self.root.join("ingest"))?;
        file.write_all(&serde_json::to_vec(image)?)?;
        persist(file, &self.record_path(&digest.to_string()))
    }
}

impl State {
    fn needed(&self) -> BTreeSet<&Digest> {
        let images = self.images.values().flat_map(|image| &image.blobs);
        images.chain(self.leased.keys()).collect()
    }

    /// The images to which references lead that are another's now.
    fn others(&self, image: &StoredImage) -> Vec<StoredImage> {
        let led = image
            .references
            .iter()
            .filter_map(|r| self.references.get(r));
        let led: BTreeSet<&String> = led.filter(|digest| **digest != image.digest).collect();
        let others = led.into_iter().filter_map(|of| self.images.get(of));
        others.cloned().collect()
    }

    fn insert(&mut self, image: StoredImage) {
        for reference in &image.references {
            self.references
                .insert(reference.clone(), image.digest.clone());
        }
        self.images.insert(image.digest.clone(), image);
    }
}

#[cfg(test)]
mod tests;
