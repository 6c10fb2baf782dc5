//! Volumes of a guest: preopened directories.
//!
//! WASI knows directories only. A volume that is a single file (`subPath`, the termination log)
//! appears in a folder made for it, as a hard link to the host's file; the guest sees that folder
//! under the parent of the path that the Pod names. As with `subPath` under any runtime, a file
//! that is replaced on the host stays the old one for the guest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use coracle_runtime::Mount;
use rustix::fs::{AtFlags, CWD, linkat};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

/// A folder that a guest finds opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preopen {
    pub host: PathBuf,
    pub guest: String,
    pub read_only: bool,
}

/// Works out the folders of a guest, and prepares those for single files under `scratch`.
pub(crate) fn prepare(mounts: &[Mount], scratch: &Path) -> io::Result<Vec<Preopen>> {
    let mut folders = Vec::new();
    let mut files: BTreeMap<(PathBuf, bool), Vec<&Mount>> = BTreeMap::new();
    for mount in mounts {
        let guest = mount.container_path.to_string_lossy().into_owned();
        if !mount.container_path.is_absolute() {
            return Err(invalid(format!("volume path {guest} is not absolute")));
        }
        let metadata = fs::metadata(&mount.host_path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("volume for {guest}: {}: {error}", mount.host_path.display()),
            )
        })?;
        if metadata.is_dir() {
            folders.push(Preopen {
                host: mount.host_path.clone(),
                guest,
                read_only: mount.read_only,
            });
        } else if !metadata.is_file() {
            // To read a pipe or a device may take for ever, and others wait for this process.
            return Err(invalid(format!(
                "volume for {guest}: {} is neither a file nor a folder, and a guest can have no \
                 other: mount a file or a folder, or use a container",
                mount.host_path.display()
            )));
        } else {
            let parent = mount.container_path.parent().unwrap_or(Path::new("/"));
            files
                .entry((parent.to_owned(), mount.read_only))
                .or_default()
                .push(mount);
        }
    }
    for (number, ((parent, read_only), mounts)) in files.into_iter().enumerate() {
        let folder = scratch.join(number.to_string());
        coracle_runtime::disk::private_dir(&folder)?;
        for mount in mounts {
            let Some(name) = mount.container_path.file_name() else {
                continue;
            };
            link(&mount.host_path, &folder.join(name), read_only)?;
        }
        folders.push(Preopen {
            host: folder,
            guest: parent.to_string_lossy().into_owned(),
            read_only,
        });
    }
    Ok(folders)
}

fn link(host: &Path, path: &Path, read_only: bool) -> io::Result<()> {
    // Through links, such as those of a projected volume. The path stays as it was given: the
    // process may not be able to reach its folders from the root.
    match linkat(CWD, host, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) if read_only => fs::copy(host, path).map(drop),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "a writable file volume must lie on the file system of the data directory: {}: {error}",
                host.display()
            ),
        )),
        Ok(()) => Ok(()),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// The folders of a container, opened when its first instance begins and shared by all: a Pod that
/// nobody calls holds none open, and a request opens none.
pub(crate) struct Volumes {
    preopens: Vec<Preopen>,
    opened: OnceLock<WasiFilesystemCtx>,
}

impl Volumes {
    pub(crate) fn new(preopens: Vec<Preopen>) -> Self {
        Self {
            preopens,
            opened: OnceLock::new(),
        }
    }

    /// Opens the folders for the only instance of a container.
    pub(crate) fn open(&self, builder: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for preopen in &self.preopens {
            let permissions = if preopen.read_only {
                FsPerms::ReadOnly
            } else {
                FsPerms::ReadWrite
            };
            builder.preopened_dir(&preopen.host, &preopen.guest, permissions)?;
        }
        Ok(())
    }

    /// The folders for one of many instances. `may_block` as in
    /// [`super::state::Environment::may_block`].
    pub(crate) fn opened(&self, may_block: bool) -> wasmtime::Result<WasiFilesystemCtx> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened.clone());
        }
        let mut builder = WasiCtxBuilder::new();
        builder.allow_blocking_current_thread(may_block);
        self.open(&mut builder)?;
        let opened = builder.build().filesystem().clone();
        Ok(self.opened.get_or_init(|| opened).clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_in_a_folder_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let file = folder.path().join("termination");
        fs::write(&file, "").unwrap();
        let mount = |host: &Path, inside: &str| Mount {
            host_path: host.to_owned(),
            container_path: inside.into(),
            read_only: false,
            ..Mount::default()
        };
        let mounts = [mount(&data, "/data"), mount(&file, "/dev/termination-log")];
        let preopens = prepare(&mounts, &folder.path().join("scratch")).unwrap();
        assert_eq!(preopens[0].host, data);
        assert_eq!(preopens[1].guest, "/dev");
        fs::write(preopens[1].host.join("termination-log"), "bye").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "bye");
    }

    #[test]
    fn no_pipe_or_device_is_opened_for_a_guest() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for host_path in [pipe, "/dev/zero".into()] {
            let mount = Mount {
                host_path,
                container_path: "/data/pipe".into(),
                read_only: true,
                ..Mount::default()
            };
            let error = prepare(&[mount], folder.path()).unwrap_err().to_string();
            assert!(error.contains("neither a file nor a folder"), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mount = Mount {
            host_path: folder.path().join("none"),
            container_path: "/data".into(),
            read_only: true,
            ..Mount::default()
        };
        let error = prepare(&[mount], folder.path()).unwrap_err();
        assert!(error.to_string().contains("/data"), "{error}");
    }
}
