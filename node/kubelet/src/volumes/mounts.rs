//! Leads the mounts of a container to folders on the host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use coracle_runtime::{Mount, Propagation};
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod, Volume, VolumeMount};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::folder;
use crate::pod::expand::expand;
use crate::pod::spec;

/// Why a mount cannot be made; the container waits with `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("volume mount \"{0}\" names no volume of the pod")]
    NoVolume(String),
    #[error(transparent)]
    Volume(#[from] super::VolumeError),
    #[error("failed to prepare subPath for volumeMount \"{mount}\": {cause}")]
    SubPath { mount: String, cause: io::Error },
    #[error("subPath \"{0}\" must be relative and must not contain '..'")]
    BadSubPath(String),
    #[error("missing value for {0}")]
    NoValue(String),
    #[error("mountPath \"{0}\" must be absolute")]
    BadMountPath(String),
    #[error(
        "volume mount \"{mount}\": {path} is no folder; of the machine's files WebAssembly sees \
         whole folders only"
    )]
    NoFolder { mount: String, path: String },
}

/// The digests of images that are volumes, by the names of the volumes.
pub(crate) type VolumeImages = BTreeMap<String, String>;

/// The volumes of a container that are images, each once.
pub(crate) fn volumes_of_images<'a>(
    pod: &'a Pod,
    container: &Container,
) -> Vec<(&'a Volume, &'a ImageVolumeSource)> {
    let mounted = |volume: &Volume| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|mount| mount.name == volume.name)
    };
    let volumes = spec(pod).volumes.iter().flatten();
    let mounted = volumes.filter(|volume| mounted(volume));
    mounted
        .filter_map(|volume| Some((volume, volume.image.as_ref()?)))
        .collect()
}

/// The mounts of a container; its volumes are set up, and those that are images are there. Blocking
/// file I/O.
pub(crate) fn mounts(
    root: &Path,
    pod: &Pod,
    container: &Container,
    env: &[(String, String)],
    images: &VolumeImages,
) -> Result<Vec<Mount>, MountError> {
    let known: BTreeMap<&str, &str> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let of = |mount: &VolumeMount| {
        let mut volumes = spec(pod).volumes.iter().flatten();
        let volume = volumes.find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| MountError::NoVolume(mount.name.clone()))?;
        let folder = folder(root, pod, volume)?;
        let container_path = PathBuf::from(&mount.mount_path);
        if !container_path.is_absolute() {
            return Err(MountError::BadMountPath(mount.mount_path.clone()));
        }
        let from_expression = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty());
        let expanded = from_expression.map(|e| sub_path(e, &known)).transpose()?;
        let sub_path = expanded.as_deref().or(mount.sub_path.as_deref());
        let sub_path = sub_path.filter(|path| !path.is_empty());
        let image = images.get(&volume.name).cloned();
        let without_links = sub_path.is_some() && image.is_none();
        let host_path = match sub_path {
            None => folder,
            Some(path) if volume.image.is_some() => {
                check_sub_path(path)?;
                PathBuf::from(path)
            }
            Some(path) => {
                check_sub_path(path)?;
                below(&folder, Path::new(path)).map_err(|cause| MountError::SubPath {
                    mount: mount.name.clone(),
                    cause,
                })?
            }
        };
        // What the kubelet writes is not the container's to change.
        let owned = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
            || volume.image.is_some();
        Ok(Mount {
            host_path,
            image,
            container_path,
            read_only: mount.read_only == Some(true) || owned,
            // What is mounted can be made so at all depths by every kernel that this runs on.
            recursive_read_only: mount.read_only == Some(true)
                && matches!(
                    mount.recursive_read_only.as_deref(),
                    Some("Enabled" | "IfPossible")
                ),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::FromMachine,
                Some("Bidirectional") => Propagation::Both,
                _ => Propagation::Private,
            },
            without_links,
        })
    };
    container.volume_mounts.iter().flatten().map(of).collect()
}

/// Refuses what cannot be a preopened directory: a single file appears in a guest as a hard link,
/// which one of the machine's cannot have everywhere. `mounts` are those of the container, in its
/// order. Blocking file I/O.
pub(crate) fn check_for_guest(
    pod: &Pod,
    container: &Container,
    mounts: &[Mount],
) -> Result<(), MountError> {
    let volumes = || spec(pod).volumes.iter().flatten();
    // What is mounted below a folder is seen in it: a guest has the machine's mounts.
    for (asked, made) in container.volume_mounts.iter().flatten().zip(mounts) {
        let of_machine = volumes().any(|v| v.name == asked.name && v.host_path.is_some());
        if of_machine && !made.host_path.is_dir() {
            return Err(MountError::NoFolder {
                mount: asked.name.clone(),
                path: made.host_path.display().to_string(),
            });
        }
    }
    Ok(())
}

/// A path with its references expanded: one that has no value would lead to another folder than is
/// meant, or to the whole volume.
fn sub_path(expression: &str, known: &BTreeMap<&str, &str>) -> Result<String, MountError> {
    let mut missing = BTreeSet::new();
    let path = expand(expression, |name| {
        let value = known.get(name).copied();
        if value.is_none_or(str::is_empty) {
            missing.insert(name.to_owned());
        }
        value
    });
    match missing.is_empty() {
        true => Ok(path),
        false => Err(MountError::NoValue(Vec::from_iter(missing).join(", "))),
    }
}

fn check_sub_path(path: &str) -> Result<(), MountError> {
    let fine = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    match Path::new(path).components().all(fine) {
        true => Ok(()),
        false => Err(MountError::BadSubPath(path.to_owned())),
    }
}

/// Resolves a path below a volume, in which no link may lead out of it; folders that are
/// missing are made, as open as the volume is.
fn below(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty())?;
    let opened = match open_below(&root, path) {
        Err(rustix::io::Errno::NOENT) => {
            make_below(&root, path)?;
            open_below(&root, path)?
        }
        opened => opened?,
    };
    // The link of the descriptor is the resolved path.
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

fn open_below(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

fn make_below(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let mode = rustix::fs::fstat(root)?.st_mode & 0o777;
    let mut so_far = PathBuf::new();
    for part in path.components() {
        let parent = match so_far.as_os_str().is_empty() {
            true => open_below(root, Path::new("."))?,
            false => open_below(root, &so_far)?,
        };
        match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(mode)) {
            Err(error) if error != rustix::io::Errno::EXIST => return Err(error.into()),
            Err(_) => {}
            Ok(()) => open_up(&parent, part.as_os_str(), mode)?,
        }
        so_far.push(part);
    }
    Ok(())
}

/// Opens up a folder that was just made: the umask must not keep guests out, who run under other
/// users. Whoever writes to the volume may have put something else in its place meanwhile, of which
/// neither a link is followed nor a file changed.
fn open_up(parent: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", made.as_raw_fd()));
    crate::access::set_mode(&path, mode)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_stands_in_place_of_a_new_folder_is_not_opened_up() {
        let volume = tempfile::tempdir().unwrap();
        let at = |name: &str| volume.path().join(name);
        for name in ["folder", "secrets"] {
            std::fs::create_dir(at(name)).unwrap();
            crate::access::set_mode(&at(name), 0o700).unwrap();
        }
        std::fs::write(at("secret"), "x").unwrap();
        crate::access::set_mode(&at("secret"), 0o600).unwrap();
        std::os::unix::fs::symlink("secrets", at("link")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(volume.path(), flags, Mode::empty()).unwrap();
        let open_up = |name: &str| super::open_up(&parent, OsStr::new(name), 0o777);
        assert!(open_up("folder").is_ok());
        assert!(open_up("link").is_err() && open_up("secret").is_err());
        let mode = |name: &str| std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            ["folder", "secrets", "secret"].map(mode),
            [0o777, 0o700, 0o600]
        );
    }
}
