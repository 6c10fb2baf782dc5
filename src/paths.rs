//! Where things stand on disk. One place names every file below the data directory.
//!
//! ```text
//! DIR/kubeconfig            the admin's kubeconfig
//! DIR/registry-credentials  user:password for pushes
//! DIR/registry-address      where the embedded registry is reached
//! DIR/pki/                  CA, keys and certificates of the control plane
//! DIR/db/                   the store
//! DIR/registry/             the embedded registry
//! DIR/agent/                the node: its certificate, images, Pods, compiled guests
//! DIR/agent/cluster.json    what a worker node knows of its cluster
//! DIR/agent/seccomp/        filters of system calls that the administrator puts there for
//!                           containers (`localhostProfile`)
//! DIR/agent/pod-manifests/  manifests of Pods that the node runs by itself (static Pods)
//! ```
//!
//! DIR is its owner's alone. Guests that run as users of their own begin inside `agent/` and pass
//! through those of its folders that [`admit_guests`] names, to what is theirs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The data directory of one installation.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// The directory that was named, or else the default: the system's for root, under
    /// `XDG_DATA_HOME` for everyone else.
    pub(crate) fn new(named: Option<PathBuf>) -> Result<Self> {
        let path = match named {
            Some(path) => std::path::absolute(&path).with_context(|| {
                format!("data directory {} has no absolute path", path.display())
            })?,
            None => default_directory()?,
        };
        Ok(Self(path))
    }

    /// Makes the directory, readable by its owner only.
    pub(crate) fn create(&self) -> Result<()> {
        create_private_dir(&self.0)
    }

    /// Makes the directory, and in it the folders of a control plane, which nobody else may enter,
    /// also where the directory itself was made before and is open to all.
    pub(crate) fn create_for_server(&self) -> Result<()> {
        self.create()?;
        for folder in [self.pki(), self.store(), self.registry()] {
            create_private_dir(&folder)?;
            close(&folder)?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    pub(crate) fn registry_credentials(&self) -> PathBuf {
        self.0.join("registry-credentials")
    }

    pub(crate) fn registry_address(&self) -> PathBuf {
        self.0.join("registry-address")
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("db")
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.0.join("registry")
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }
}

fn default_directory() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/coracle".into());
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(data) = absolute("XDG_DATA_HOME") {
        return Ok(data.join("coracle"));
    }
    let home = absolute("HOME")
        .context("neither XDG_DATA_HOME nor HOME is set: name a folder with --data-dir")?;
    Ok(home.join(".local/share/coracle"))
}

/// Makes a directory and its parents for the owner only.
pub(crate) fn create_private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Takes every right from all but the owner.
fn close(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path);
    let metadata = metadata.with_context(|| format!("cannot read {}", path.display()))?;
    set_mode(path, metadata.permissions().mode() & 0o700)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}

/// Folders of a node in which something is the guests', and who makes it says whose.
const GUESTS: [&str; 5] = ["compiled", "logs", "network", "pods", "wasm"];

/// Lets guests that run as users of their own through a node's folder, by name and to those of its
/// folders that are for them. Everything else in it becomes its owner's alone, whatever an earlier
/// start has made of it.
pub(crate) fn admit_guests(node: &Path) -> Result<()> {
    for private in ["images", "pki"] {
        create_private_dir(&node.join(private))?;
    }
    let entries = fs::read_dir(node).with_context(|| format!("cannot list {}", node.display()))?;
    for entry in entries {
        let entry = entry?;
        if GUESTS.iter().any(|name| entry.file_name() == *name) {
            // Guests may be running.
            continue;
        }
        close(&entry.path())?;
    }
    for name in GUESTS {
        create_private_dir(&node.join(name))?;
        set_mode(&node.join(name), 0o711)?;
    }
    set_mode(node, 0o711)
}

/// Takes a folder for this process, for as long as the file is held.
///
/// # Errors
/// Another process has it.
pub(crate) fn lock(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
            "{} is in use by another process: stop it, or choose another --data-dir",
            folder.display()
        ),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Writes a file for the owner only, whole or not at all: a crash leaves the old one.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let staged = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        match path.parent() {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a file that may not be there.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_file_stays_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_if_present(&path).unwrap().as_deref(), Some("two"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_control_plane_keeps_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("db")).unwrap();
        set_mode(&dir.path().join("db"), 0o755).unwrap();
        let data = DataDir(dir.path().into());
        data.create_for_server().unwrap();
        for folder in [data.pki(), data.store(), data.registry()] {
            let mode = fs::metadata(&folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn guests_are_let_in_where_something_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let metadata = fs::metadata(dir.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        // As an earlier start may have left it.
        for (name, mode) in [("pki", 0o755), ("wasm", 0o700), ("other", 0o755)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(dir.path().join("lock"), "").unwrap();
        for _ in 0..2 {
            admit_guests(dir.path()).unwrap();
            for (name, expected) in [
                ("", 0o711),
                ("wasm", 0o711),
                ("pods", 0o711),
                ("pki", 0o700),
                ("images", 0o700),
                ("other", 0o700),
            ] {
                assert_eq!(mode(name), expected, "{name}");
            }
            assert_eq!(mode("lock") & 0o077, 0);
        }
    }
}
