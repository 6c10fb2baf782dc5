//! Images that are volumes of guests: their files, unpacked to be read.
//!
//! ```text
//! <digest>/      the files of an image, by the digest of its manifest
//! ingest/        those of one that is being unpacked; emptied when the store is opened
//! ```
//!
//! Containers have an image mounted, each in a namespace of its own. Guests have no mounts: those of
//! many Pods share a process, which may not mount either. For them an image is a tree of files,
//! which takes no root to make. It has what of an image can be read ([`Keeps::Files`]), appears under
//! its name when it is whole and on the disk, and is not changed afterwards: guests find it, or what
//! of it their Pods ask for, as a preopened directory that they do not write to. Guests with users
//! of their own read what everybody may, as in folders of the machine.
//!
//! Deliberately absent: layers that trees share, with each other or with containers; an image that
//! is a volume of both lies on the disk twice.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_images::layer::LayerError;
use coracle_images::unpack::{self, Keeps, LIMITS, Root};
use coracle_images::{ContentStore, Digest, ImageKind, ImageLayer};
use coracle_runtime::disk::{self, Access};
use coracle_runtime::ledger::{ContainerRecord, names};
use coracle_runtime::{Error, Image, Mount, Result};

use super::Inner;

/// The folder in which images are unpacked.
const INGEST: &str = "ingest";

/// The store of images that are volumes. One runtime owns its folder.
#[derive(Clone)]
pub(super) struct ImageVolumes {
    root: PathBuf,
    /// One image is unpacked, or removed, at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl ImageVolumes {
    /// Opens or makes the store. `users`: guests with users of their own pass through it.
    pub(super) fn open(root: PathBuf, users: bool) -> io::Result<Self> {
        match users {
            true => disk::folder(&root, Access::Passage)?,
            false => disk::private_dir(&root)?,
        }
        let ingest = root.join(INGEST);
        disk::remove_dir(&ingest)?;
        disk::private_dir(&ingest)?;
        Ok(Self {
            root,
            changing: Arc::default(),
        })
    }

    /// Makes sure that the files of an image of these layers are there.
    async fn ensure(
        &self,
        content: &Arc<ContentStore>,
        digest: &str,
        layers: Vec<ImageLayer>,
    ) -> std::result::Result<(), LayerError> {
        let folder = self.folder(digest)?;
        if folder.is_dir() {
            return Ok(());
        }
        let changing = self.changing.clone().lock_owned().await;
        let (store, content) = (self.clone(), content.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let _changing = changing;
            match folder.is_dir() {
                true => Ok(()),
                false => store.unpack(&content, &layers, &folder),
            }
        });
        unpacked.await.map_err(io::Error::other)?
    }

    fn unpack(
        &self,
        content: &ContentStore,
        layers: &[ImageLayer],
        folder: &Path,
    ) -> std::result::Result<(), LayerError> {
        let ingest = tempfile::Builder::new()
            .prefix("image-")
            .tempdir_in(self.root.join(INGEST))?;
        let files = ingest.path().join("files");
        fs::create_dir(&files)?;
        disk::set_mode(&files, 0o755)?;
        let tree = Root::open(&files)?;
        let mut budget = LIMITS;
        for layer in layers {
            unpack::apply(content, layer, &tree, Keeps::Files, &mut budget)?;
        }
        // One that a power cut has taken parts of must not appear under its name.
        rustix::fs::syncfs(File::open(&files)?).map_err(io::Error::from)?;
        Ok(fs::rename(&files, folder)?)
    }

    /// Removes the files of an image, if they are there.
    pub(super) async fn remove(&self, digest: &str) -> io::Result<()> {
        let Ok(folder) = self.folder(digest) else {
            return Ok(());
        };
        let changing = self.changing.clone().lock_owned().await;
        let store = self.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let _changing = changing;
            store.discard(&folder)
        });
        removed.await.map_err(io::Error::other)?
    }

    /// Removes a folder of the store. It goes whole: a part of it would be taken for all.
    fn discard(&self, folder: &Path) -> io::Result<()> {
        let going = tempfile::Builder::new()
            .prefix("gone-")
            .tempdir_in(self.root.join(INGEST))?
            .keep();
        match fs::rename(folder, going.join("files")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => disk::remove_dir(&going),
        }
    }

    /// Removes the files of all images but these. Nothing may be unpacked meanwhile.
    fn retain(&self, digests: impl Iterator<Item = String>) -> io::Result<()> {
        let needed = digests.filter_map(|digest| digest.parse::<Digest>().ok());
        let mut needed: HashSet<String> = needed.map(|digest| digest.hex()).collect();
        needed.insert(INGEST.to_owned());
        for name in names(&self.root)? {
            if !needed.contains(&name) {
                self.discard(&self.root.join(name))?;
            }
        }
        Ok(())
    }

    /// Volumes with a path on the host in place of an image, which nobody writes to. Others are as
    /// they were.
    fn resolve(&self, mounts: &[Mount]) -> io::Result<Vec<Mount>> {
        let resolve = |mount: &Mount| {
            let Some(digest) = &mount.image else {
                return Ok(mount.clone());
            };
            let host_path = self.find(digest, &mount.host_path).map_err(|error| {
                let (of, at) = (mount.host_path.display(), mount.container_path.display());
                let message = format!("volume {at}: \"{of}\" of its image: {error}");
                io::Error::new(error.kind(), message)
            })?;
            Ok(Mount {
                host_path,
                image: None,
                read_only: true,
                ..mount.clone()
            })
        };
        mounts.iter().map(resolve).collect()
    }

    /// Where a path of an image lies. Links in it lead within the image.
    fn find(&self, digest: &str, path: &Path) -> io::Result<PathBuf> {
        let folder = self.folder(digest)?;
        let root = Root::open(&folder)?;
        let place = |of: OwnedFd| fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd()));
        let (whole, found) = (place(root.any(Path::new(""))?)?, place(root.any(path)?)?);
        // Below the folder as it was given: guests' processes know it relative to that.
        match found.strip_prefix(&whole) {
            Ok(below) if below.as_os_str().is_empty() => Ok(folder),
            Ok(below) => Ok(folder.join(below)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn folder(&self, digest: &str) -> io::Result<PathBuf> {
        let digest: Digest = digest.parse().map_err(io::Error::other)?;
        Ok(self.root.join(digest.hex()))
    }
}

impl Inner {
    /// Makes the files of an image ready for guests to read.
    pub(super) async fn ensure_volume(&self, image: &Image) -> Result<()> {
        let layers = match self.image(&image.digest)?.kind {
            ImageKind::Container {
                layers: Some(layers),
            } => layers,
            // It was pulled for nobody who reads its files; a pull completes it.
            ImageKind::Container { layers: None } => {
                return Err(self.ledger.not_found("image", &image.digest));
            }
            ImageKind::Wasm { .. } => {
                return Err(Error::InvalidImage(format!(
                    "image {} holds WebAssembly and no root file system: it cannot be a volume",
                    image.reference
                )));
            }
        };
        let content = &self.config.content;
        let unpacked = self.volumes.ensure(content, &image.digest, layers).await;
        unpacked.map_err(|error| match error {
            LayerError::Image(reason) => {
                Error::InvalidImage(format!("image {} is no volume: {reason}", image.reference))
            }
            LayerError::Io(error) => {
                Error::io(format!("unpacking image {}", image.reference), error)
            }
        })
    }

    /// The volumes of a container, all on the host.
    pub(super) fn mounts(&self, record: &ContainerRecord) -> Result<Vec<Mount>> {
        let resolved = self.volumes.resolve(&record.config.mounts);
        resolved.map_err(|error| Error::InvalidConfig(error.to_string()))
    }

    /// Removes the files of images that went while no agent ran.
    pub(super) fn sweep_volumes(&self) {
        let images = self.config.content.images().into_iter();
        let images = images.map(|image| image.digest);
        let entries = self.ledger.entries();
        let mounts = entries.iter().flat_map(|of| &of.record.config.mounts);
        let mounted = mounts.filter_map(|mount| mount.image.clone());
        if let Err(error) = self.volumes.retain(images.chain(mounted)) {
            tracing::warn!(%error, "removing the files of images that nothing needs");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
