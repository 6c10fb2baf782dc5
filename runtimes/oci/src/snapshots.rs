//! Unpacked layers, shared by all images and containers that are made of them.
//!
//! ```text
//! <chain>/fs        what a layer changes over those below it, as an overlay file system keeps it
//! <chain>/passwd    the users and groups of all layers up to this one
//! <chain>/group
//! empty/            what an image without layers is made of; with empty-too/ what is below one that
//!                   is mounted to be read
//! ingest/           layers that are being unpacked, or removed; emptied when the store is opened
//! ```
//!
//! A layer is named by its chain ID (OCI image configuration): the digest of its archive and of
//! all below it. It appears under its name when it is whole and on the disk.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_images::layer::{Budget, LayerError};
use coracle_images::unpack::{self, Keeps, Root};
use coracle_images::{ContentStore, Digest, ImageLayer};
use coracle_runtime::disk;
use coracle_runtime::ledger::names;
use rustix::mount::MountFlags;

use crate::overlay::{self, Upper};

/// Bytes that a file of users or groups may have.
const USERS: u64 = 4 << 20;

/// Folders that are no layers: where they are unpacked, and those without files.
const OWN: [&str; 3] = ["ingest", "empty", "empty-too"];

/// The store of unpacked layers. One runtime owns its folder.
#[derive(Clone)]
pub(crate) struct Snapshots {
    root: PathBuf,
    limits: Budget,
    /// One image is unpacked at a time: it takes a core and the disk as it is.
    unpacking: Arc<tokio::sync::Mutex<()>>,
}

/// The users and groups that an image has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserFiles {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Snapshots {
    /// Opens or makes the store. `limits` are for one image.
    pub(crate) fn open(root: PathBuf, limits: Budget) -> io::Result<Self> {
        disk::private_dir(&root)?;
        for fresh in OWN {
            disk::remove_dir(&root.join(fresh))?;
            disk::private_dir(&root.join(fresh))?;
        }
        // The root of a container of no layers, which everybody may enter.
        for empty in &OWN[1..] {
            disk::set_mode(&root.join(empty), 0o755)?;
        }
        Ok(Self {
            root,
            limits,
            unpacking: Arc::default(),
        })
    }

    /// Makes sure that all layers of an image are unpacked. Where the disk has no room for them, `full`
    /// is called, which may [`Self::retain`] what is needed: before another unpacks, who would find
    /// layers that go, or have those removed that it has just made.
    pub(crate) async fn ensure(
        &self,
        content: &Arc<ContentStore>,
        layers: &[ImageLayer],
        full: impl FnOnce() + Send + 'static,
    ) -> Result<(), LayerError> {
        if chains(layers).iter().all(|chain| self.has(chain)) {
            return Ok(());
        }
        let unpacking = self.unpacking.clone().lock_owned().await;
        let (store, content, layers) = (self.clone(), content.clone(), layers.to_vec());
        let unpacked = tokio::task::spawn_blocking(move || {
            let _unpacking = unpacking;
            // The thread gets a mount namespace of its own, so it is for nothing else.
            let unpacked = std::thread::scope(|scope| {
                let unpacked = scope.spawn(|| store.unpack(&content, &layers));
                let ended = io::Error::other("unpacking ended without a result");
                unpacked.join().unwrap_or(Err(ended.into()))
            });
            if unpacked.as_ref().is_err_and(LayerError::is_no_room) {
                full();
            }
            unpacked
        });
        unpacked.await.map_err(io::Error::other)?
    }

    fn unpack(&self, content: &ContentStore, layers: &[ImageLayer]) -> Result<(), LayerError> {
        if layers.len() > overlay::LAYERS {
            return Err(LayerError::Image(format!(
                "the image has {} layers where at most {} are allowed",
                layers.len(),
                overlay::LAYERS
            )));
        }
        let mut budget = self.limits;
        let mut own_namespace = false;
        let chains = chains(layers);
        for (above, (layer, chain)) in layers.iter().zip(&chains).enumerate() {
            if self.has(chain) {
                continue;
            }
            if above > 0 && !own_namespace {
                overlay::enter_own_namespace()?;
                own_namespace = true;
            }
            let ingest = tempfile::Builder::new()
                .prefix("layer-")
                .tempdir_in(self.root.join("ingest"))?;
            self.unpack_layer(content, layer, &chains[..above], ingest.path(), &mut budget)?;
            // A layer that a power cut has taken parts of must not appear under its name.
            rustix::fs::syncfs(fs::File::open(ingest.path())?).map_err(io::Error::from)?;
            let ready = ingest.keep();
            fs::rename(ready, self.folder(chain))?;
        }
        Ok(())
    }

    fn unpack_layer(
        &self,
        content: &ContentStore,
        layer: &ImageLayer,
        below: &[Digest],
        ingest: &Path,
        budget: &mut Budget,
    ) -> Result<(), LayerError> {
        let files = ingest.join("fs");
        fs::create_dir(&files)?;
        disk::set_mode(&files, 0o755)?;
        let work = ingest.join("work");
        let root = if below.is_empty() {
            files
        } else {
            let merged = ingest.join("merged");
            fs::create_dir(&work)?;
            fs::create_dir(&merged)?;
            let lowers: Vec<PathBuf> = below.iter().map(|chain| self.files(chain)).collect();
            let upper = Upper {
                files: &files,
                work: &work,
            };
            // What a layer has of devices is for nobody to open here.
            overlay::overlay(&lowers, Some(&upper), &merged, MountFlags::NODEV)?;
            merged
        };
        let tree = Root::open(&root)?;
        let applied =
            unpack::apply(content, layer, &tree, Keeps::Everything, budget).and_then(|()| {
                for name in ["passwd", "group"] {
                    if let Some(bytes) = tree.read(&Path::new("etc").join(name), USERS)? {
                        fs::write(ingest.join(name), bytes)?;
                    }
                }
                Ok(())
            });
        drop(tree);
        if !below.is_empty() {
            rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH)
                .map_err(io::Error::from)?;
            fs::remove_dir(&root)?;
            fs::remove_dir_all(&work)?;
        }
        applied
    }

    /// The folders of an image's layers, the lowest first.
    pub(crate) fn lowers(&self, layers: &[ImageLayer]) -> Vec<PathBuf> {
        let lowers: Vec<PathBuf> = chains(layers)
            .iter()
            .map(|chain| self.files(chain))
            .collect();
        match lowers.is_empty() {
            true => vec![self.root.join("empty")],
            false => lowers,
        }
    }

    /// The same for a mount that nobody writes to, which takes two folders at least.
    pub(crate) fn lowers_to_read(&self, layers: &[ImageLayer]) -> Vec<PathBuf> {
        let empty = ["empty", "empty-too"].map(|name| self.root.join(name));
        let missing = 2_usize.saturating_sub(layers.len());
        let layers = chains(layers);
        let files = layers.iter().map(|chain| self.files(chain));
        empty.into_iter().take(missing).chain(files).collect()
    }

    /// Users and groups of an image whose layers are unpacked.
    pub(crate) fn users(&self, layers: &[ImageLayer]) -> io::Result<UserFiles> {
        let Some(top) = chains(layers).pop() else {
            return Ok(UserFiles::default());
        };
        let read = |name: &str| match fs::read(self.folder(&top).join(name)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        };
        Ok(UserFiles {
            passwd: read("passwd")?,
            group: read("group")?,
        })
    }

    /// Waits until nothing is being unpacked, and holds off what would be.
    pub(crate) async fn quiet(&self) -> impl Send + use<> {
        self.unpacking.clone().lock_owned().await
    }

    /// Removes all layers but those of these images. Nothing may be unpacked meanwhile.
    ///
    /// Each goes whole: a part of it would be taken for all.
    pub(crate) fn retain<'a>(
        &self,
        images: impl Iterator<Item = &'a [ImageLayer]>,
    ) -> io::Result<()> {
        let mut needed: HashSet<String> = OWN.map(str::to_owned).into();
        needed.extend(images.flat_map(chains).map(|chain| chain.hex()));
        for name in names(&self.root)? {
            if !needed.contains(&name) {
                self.discard(&name)?;
            }
        }
        Ok(())
    }

    fn discard(&self, name: &str) -> io::Result<()> {
        // Nothing is made for it: the disk may be full.
        let going = self.root.join("ingest").join(name);
        disk::remove_dir(&going)?;
        fs::rename(self.root.join(name), &going)?;
        disk::remove_dir(&going)
    }

    fn has(&self, chain: &Digest) -> bool {
        self.folder(chain).is_dir()
    }

    fn folder(&self, chain: &Digest) -> PathBuf {
        self.root.join(chain.hex())
    }

    fn files(&self, chain: &Digest) -> PathBuf {
        self.folder(chain).join("fs")
    }
}

/// The chain IDs of layers, in their order.
fn chains(layers: &[ImageLayer]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        chains.push(match chains.last() {
            None => layer.diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
        });
    }
    chains
}

#[cfg(test)]
mod tests;
