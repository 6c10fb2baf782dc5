//! What the registry keeps on disk: which repository has which blobs, manifests and tags.
//! Everything here blocks on the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use crate::store::persist;
use crate::{ContentStore, Digest};

use super::route::Version;

/// The registry's folder.
pub(super) struct Storage {
    pub(super) content: Arc<ContentStore>,
    repositories: PathBuf,
    scratch: PathBuf,
    /// Held for writing by garbage collection and deletion, for reading by whoever links a blob
    /// or stores a manifest: a blob that was found is still there when it is referred to.
    changes: RwLock<()>,
}

/// A manifest that a repository has.
pub(super) struct StoredManifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

const BLOBS: &str = "_blobs";
const MANIFESTS: &str = "_manifests";
const TAGS: &str = "_tags";

impl Storage {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let scratch = root.join("scratch");
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&scratch)?,
        }
        fs::create_dir_all(root.join("repositories"))?;
        Ok(Self {
            content: ContentStore::open(root.join("content"))?,
            repositories: root.join("repositories"),
            scratch,
            changes: RwLock::new(()),
        })
    }

    fn path(&self, name: &str, kind: &str, key: &str) -> PathBuf {
        self.repositories.join(name).join(kind).join(key)
    }

    pub(super) fn has_repository(&self, name: &str) -> bool {
        self.repositories.join(name).join(MANIFESTS).is_dir()
            || self.repositories.join(name).join(BLOBS).is_dir()
    }

    /// Whether the repository has a blob; its size.
    pub(super) fn blob(&self, name: &str, digest: &Digest) -> io::Result<Option<u64>> {
        if self.path(name, BLOBS, &digest.hex()).is_file() {
            self.content.size(digest)
        } else {
            Ok(None)
        }
    }

    /// Gives a blob that is here to a repository; false if it is not here.
    pub(super) fn link_blob(&self, name: &str, digest: &Digest) -> io::Result<bool> {
        let _reading = self.changes.read();
        if !self.content.has(digest) {
            return Ok(false);
        }
        self.write(&self.path(name, BLOBS, &digest.hex()), b"")?;
        Ok(true)
    }

    /// Gives a blob of one repository to another; false if it has not got it.
    pub(super) fn mount(&self, from: &str, name: &str, digest: &Digest) -> io::Result<bool> {
        Ok(self.path(from, BLOBS, &digest.hex()).is_file() && self.link_blob(name, digest)?)
    }

    pub(super) fn unlink_blob(&self, name: &str, digest: &Digest) -> io::Result<bool> {
        let _writing = self.changes.write();
        remove(&self.path(name, BLOBS, &digest.hex()))
    }

    /// The manifest of a tag or digest.
    pub(super) fn manifest(
        &self,
        name: &str,
        version: &Version,
    ) -> io::Result<Option<StoredManifest>> {
        let digest = match version {
            Version::Digest(digest) => digest.clone(),
            Version::Tag(tag) => match read(&self.path(name, TAGS, tag))? {
                Some(text) => text
                    .parse()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
                None => return Ok(None),
            },
        };
        let Some(media_type) = read(&self.path(name, MANIFESTS, &digest.hex()))? else {
            return Ok(None);
        };
        let bytes = fs::read(self.content.blob_path(&digest))?;
        Ok(Some(StoredManifest {
            digest,
            media_type,
            bytes,
        }))
    }

    /// Stores a manifest whose blobs the repository has; else the first one that is missing.
    pub(super) fn put_manifest(
        &self,
        name: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
        needs: &[Needed],
    ) -> io::Result<Result<Digest, Digest>> {
        let _reading = self.changes.read();
        for needed in needs {
            let (kind, digest) = match needed {
                Needed::Blob(digest) => (BLOBS, digest),
                Needed::Manifest(digest) => (MANIFESTS, digest),
            };
            if !self.path(name, kind, &digest.hex()).is_file() || !self.content.has(digest) {
                return Ok(Err(digest.clone()));
            }
        }
        let digest = self.content.put(bytes)?;
        let manifest = self.path(name, MANIFESTS, &digest.hex());
        self.write(&manifest, media_type.as_bytes())?;
        if let Some(tag) = tag {
            let text = digest.to_string();
            self.write(&self.path(name, TAGS, tag), text.as_bytes())?;
        }
        Ok(Ok(digest))
    }

    /// Deletes a tag, or a manifest with the tags that lead to it; false if it is not there.
    pub(super) fn delete_manifest(&self, name: &str, version: &Version) -> io::Result<bool> {
        let _writing = self.changes.write();
        match version {
            Version::Tag(tag) => remove(&self.path(name, TAGS, tag)),
            Version::Digest(digest) => {
                let text = digest.to_string();
                for tag in self.tags(name)? {
                    let path = self.path(name, TAGS, &tag);
                    if read(&path)?.as_deref() == Some(text.as_str()) {
                        remove(&path)?;
                    }
                }
                remove(&self.path(name, MANIFESTS, &digest.hex()))
            }
        }
    }

    /// Tags of a repository, sorted.
    pub(super) fn tags(&self, name: &str) -> io::Result<Vec<String>> {
        names(&self.repositories.join(name).join(TAGS))
    }

    /// Digests of the manifests of a repository.
    pub(super) fn manifests(&self, name: &str) -> io::Result<Vec<Digest>> {
        digests(&self.repositories.join(name).join(MANIFESTS))
    }

    /// Names of all repositories, sorted.
    pub(super) fn repositories(&self) -> io::Result<Vec<String>> {
        let mut found = BTreeSet::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for child in names(&self.repositories.join(&folder))? {
                if child.starts_with('_') {
                    found.insert(folder.clone());
                } else if folder.is_empty() {
                    folders.push(child);
                } else {
                    folders.push(format!("{folder}/{child}"));
                }
            }
        }
        found.remove("");
        Ok(found.into_iter().collect())
    }

    /// Removes blobs that no manifest of their repository needs, and content that no repository
    /// has. What is younger than `age` stays: its manifest may be on the way.
    pub(super) fn collect_garbage(&self, age: Duration) -> io::Result<()> {
        let _writing = self.changes.write();
        let old = |path: &Path| -> io::Result<bool> {
            let modified = fs::metadata(path)?.modified()?;
            Ok(SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|since| since >= age))
        };
        let mut kept = BTreeSet::new();
        for name in self.repositories()? {
            let mut needed = BTreeSet::new();
            for digest in self.manifests(&name)? {
                if let Ok(bytes) = fs::read(self.content.blob_path(&digest)) {
                    needed.extend(needs(&bytes).into_iter().flatten());
                }
                kept.insert(digest);
            }
            for digest in digests(&self.repositories.join(&name).join(BLOBS))? {
                let path = self.path(&name, BLOBS, &digest.hex());
                if needed.contains(&Needed::Blob(digest.clone())) || !old(&path)? {
                    kept.insert(digest);
                } else {
                    remove(&path)?;
                }
            }
        }
        let mut lease = self.content.lease();
        kept.iter().for_each(|digest| lease.add(digest));
        for digest in self.content.unused_blobs()? {
            if !old(&self.content.blob_path(&digest))? {
                lease.add(&digest);
            }
        }
        self.content.remove_unused_blobs()?;
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            create_folder(folder, &self.repositories)?;
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.scratch)?;
        file.write_all(bytes)?;
        persist(file, path)
    }
}

/// What a manifest refers to and its repository must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needed {
    Blob(Digest),
    Manifest(Digest),
}

/// What a manifest refers to; an error says why it is none.
pub(super) fn needs(bytes: &[u8]) -> Result<Vec<Needed>, String> {
    use oci_client::manifest::OciManifest;
    let manifest: OciManifest =
        serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
    let digest = |text: &str| text.parse::<Digest>().map_err(|error| error.to_string());
    match manifest {
        OciManifest::Image(image) => std::iter::once(&image.config)
            .chain(image.layers.iter().filter(|layer| layer.urls.is_none()))
            .map(|descriptor| digest(&descriptor.digest).map(Needed::Blob))
            .collect(),
        OciManifest::ImageIndex(index) => index
            .manifests
            .iter()
            .map(|entry| digest(&entry.digest).map(Needed::Manifest))
            .collect(),
    }
}

/// Makes folders below `base`, each of them on the disk.
fn create_folder(folder: &Path, base: &Path) -> io::Result<()> {
    if folder.is_dir() || folder == base {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent, base)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(parent)?.sync_all()?,
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn digests(folder: &Path) -> io::Result<Vec<Digest>> {
    let names = names(folder)?;
    Ok(names
        .iter()
        .filter_map(|name| format!("sha256:{name}").parse().ok())
        .collect())
}
