//! Volumes of a Pod: folders on the host that containers see.
//!
//! [`check`] refuses what is not supported by name; [`projection`] says purely which files a volume
//! has; [`atomic`] writes them so that a reader sees the old ones or the new ones; [`mounts`] leads
//! a container's mounts to the folders; [`memory`] holds those that lie in memory, and
//! [`huge_pages`] those that are made of such; [`tokens`] keeps those of the Pod's service account,
//! [`trust`] reads certificates; [`host_path`] checks what lies on the machine already, and
//! [`mod@env_files`] reads what containers want in their environment. An image that is a volume is
//! mounted by the runtime. Folders live under `<root>/pods/<uid>/volumes` and go with the Pod.
//!
//! Deliberately absent: volumes that come from elsewhere (persistent volumes, CSI). A `sizeLimit`
//! on disk is kept by [`crate::eviction`], which measures what [`local`] names.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_runtime::disk;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};

use crate::access::{self, Readers, set_mode};
use crate::pod::env::{References, Sources};
use crate::pod::fields::Surroundings;
use crate::pod::{self};

pub(crate) mod atomic;
mod env_files;
pub(crate) mod host_path;
mod huge_pages;
mod left;
mod memory;
pub(crate) mod mounts;
pub(crate) mod projection;
pub(crate) mod tokens;
pub(crate) mod trust;

pub(crate) use env_files::env_files;
pub use left::unmount_volumes;

/// Why a volume cannot be set up. All of them are events of reason `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("volume \"{volume}\": volumes of type {kind} are not supported on this node")]
    Unsupported { volume: String, kind: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {kind} \"{name}\" not found")]
    ObjectNotFound {
        volume: String,
        kind: &'static str,
        name: String,
    },
    #[error(
        "MountVolume.SetUp failed for volume \"{volume}\" : references non-existent {kind} key: {key}"
    )]
    KeyNotFound {
        volume: String,
        kind: &'static str,
        key: String,
    },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : its token was not fetched")]
    NoToken { volume: String },
    #[error(
        "MountVolume.SetUp failed for volume \"{volume}\" : combination of signerName and labelSelector \
         matched zero ClusterTrustBundles"
    )]
    NoTrust { volume: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
    Field {
        volume: String,
        cause: pod::fields::FieldError,
    },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
    HostPath {
        volume: String,
        cause: host_path::HostPathError,
    },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
    HugePages {
        volume: String,
        cause: huge_pages::PageSizeError,
    },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : invalid path: {path}")]
    BadPath { volume: String, path: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {context}: {source}")]
    Io {
        volume: String,
        context: String,
        source: io::Error,
    },
}

/// Which kind of supported volume it is.
enum Source<'a> {
    EmptyDir,
    /// An emptyDir with `medium: Memory`.
    Memory,
    /// An emptyDir with a medium of huge pages.
    HugePages(&'a str),
    Projected(&'static str),
    /// What lies on the machine already.
    HostPath(&'a HostPathVolumeSource),
    /// The files of an image, which the runtime mounts.
    Image,
}

fn source(volume: &Volume) -> Result<Source<'_>, VolumeError> {
    let unsupported = |kind: &str| VolumeError::Unsupported {
        volume: volume.name.clone(),
        kind: kind.to_owned(),
    };
    if let Some(empty) = &volume.empty_dir {
        return match empty.medium.as_deref() {
            None | Some("") => Ok(Source::EmptyDir),
            Some("Memory") => Ok(Source::Memory),
            Some(medium) if huge_pages::is_medium(medium) => Ok(Source::HugePages(medium)),
            Some(medium) => Err(unsupported(&format!("emptyDir with medium {medium}"))),
        };
    }
    if let Some(path) = &volume.host_path {
        return Ok(Source::HostPath(path));
    }
    if volume.image.is_some() {
        return Ok(Source::Image);
    }
    if volume.config_map.is_some() {
        return Ok(Source::Projected("kubernetes.io~configmap"));
    }
    if volume.secret.is_some() {
        return Ok(Source::Projected("kubernetes.io~secret"));
    }
    if volume.downward_api.is_some() {
        return Ok(Source::Projected("kubernetes.io~downward-api"));
    }
    if let Some(projected) = &volume.projected {
        for part in projected.sources.iter().flatten() {
            if part.pod_certificate.is_some() {
                return Err(unsupported("projected podCertificate"));
            }
        }
        return Ok(Source::Projected(PROJECTED));
    }
    // A volume without a source is an emptyDir, as the API says.
    match source_name(volume) {
        Some(kind) => Err(unsupported(&kind)),
        None => Ok(Source::EmptyDir),
    }
}

/// The field of the volume's source, as the API spells it.
fn source_name(volume: &Volume) -> Option<String> {
    let serde_json::Value::Object(fields) = serde_json::to_value(volume).ok()? else {
        return None;
    };
    fields
        .into_iter()
        .map(|(key, _)| key)
        .find(|key| key != "name")
}

/// Refuses volumes that this node does not have.
pub(crate) fn check(pod: &Pod) -> Result<(), VolumeError> {
    let volumes = pod::spec(pod).volumes.iter().flatten();
    volumes
        .map(source)
        .try_for_each(|source| source.map(|_| ()))
}

/// What the volumes read from the API.
pub(crate) fn references(pod: &Pod, references: &mut References) {
    for volume in pod::spec(pod).volumes.iter().flatten() {
        if let Some(map) = &volume.config_map {
            references.config_maps.insert(map.name.clone());
        }
        if let Some(secret) = &volume.secret {
            references.secrets.extend(secret.secret_name.clone());
        }
        let parts = volume
            .projected
            .iter()
            .flat_map(|p| p.sources.iter().flatten());
        for part in parts {
            let map = part.config_map.iter().map(|map| map.name.clone());
            references.config_maps.extend(map);
            let secret = part.secret.iter().map(|secret| secret.name.clone());
            references.secrets.extend(secret);
        }
    }
}

/// Whether any volume may change while the Pod runs.
pub(crate) fn may_change(pod: &Pod) -> bool {
    let mut volumes = pod::spec(pod).volumes.iter().flatten();
    volumes.any(|volume| matches!(source(volume), Ok(Source::Projected(_))))
}

/// Folder of a Pod's emptyDir volumes among its volumes.
const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
/// Folder of its projected volumes.
const PROJECTED: &str = "kubernetes.io~projected";

/// Folder of everything that belongs to a Pod.
pub(crate) fn pod_folder(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Folder of a volume; of one that lies on the machine, where that is, which may be no folder. An
/// image's begins with itself.
pub(crate) fn folder(root: &Path, pod: &Pod, volume: &Volume) -> Result<PathBuf, VolumeError> {
    let plugin = match source(volume)? {
        Source::EmptyDir | Source::Memory | Source::HugePages(_) => EMPTY_DIR,
        Source::Projected(plugin) => plugin,
        Source::HostPath(source) => return Ok(PathBuf::from(&source.path)),
        Source::Image => return Ok(PathBuf::new()),
    };
    let pod = pod_folder(root, pod::uid(pod));
    Ok(pod.join("volumes").join(plugin).join(&volume.name))
}

/// Folders of the Pod's volumes that take the node's local disk, by volume: emptyDirs and
/// ConfigMaps. What lies in memory is bounded there.
pub(crate) fn local(root: &Path, pod: &Pod) -> Vec<(String, PathBuf)> {
    let volumes = pod::spec(pod).volumes.iter().flatten();
    let local = volumes.filter(|volume| match source(volume) {
        Ok(Source::EmptyDir | Source::Memory) => true,
        Ok(Source::Projected(_)) => volume.config_map.is_some(),
        Ok(Source::HugePages(_) | Source::HostPath(_) | Source::Image) | Err(_) => false,
    });
    local
        .filter_map(|volume| Some((volume.name.clone(), folder(root, pod, volume).ok()?)))
        .filter(|(_, folder)| !memory::is_mounted(folder).unwrap_or(true))
        .collect()
}

/// Makes all volumes of the Pod, or brings them up to date, for what runs of it. Answers with
/// the names of those that should lie in memory and do not, as this process may not mount.
/// Idempotent. Blocking file I/O.
pub(crate) fn set_up(
    root: &Path,
    pod: &Pod,
    sources: &Sources,
    around: &Surroundings,
    readers: Readers,
) -> Result<Vec<String>, VolumeError> {
    let mut on_disk = Vec::new();
    let pod_folder = pod_folder(root, pod::uid(pod));
    for volume in pod::spec(pod).volumes.iter().flatten() {
        let source = source(volume)?;
        if let Source::HostPath(source) = source {
            host_path::set_up(source).map_err(|cause| VolumeError::HostPath {
                volume: volume.name.clone(),
                cause,
            })?;
            continue;
        }
        if matches!(source, Source::Image) {
            continue;
        }
        let folder = folder(root, pod, volume)?;
        let io = |context: &str, source| VolumeError::Io {
            volume: volume.name.clone(),
            context: format!("{context} {}", folder.display()),
            source,
        };
        access::pod_folder(root, &pod_folder, readers).map_err(|e| io("cannot open up", e))?;
        let between = folder.ancestors().skip(1);
        for parent in between.take_while(|parent| *parent != pod_folder) {
            access::passage(parent, readers.guests()).map_err(|e| io("cannot make", e))?;
        }
        match source {
            Source::HostPath(_) | Source::Image => {}
            Source::EmptyDir => {
                empty_dir(&folder, readers.group()).map_err(|e| io("cannot make", e))?;
            }
            Source::Memory => {
                empty_dir(&folder, None).map_err(|e| io("cannot make", e))?;
                let size = memory::size(pod, volume, around.allocatable.get("memory"));
                let made = memory::set_up(&folder, size, 0o777);
                if made.map_err(|e| io("cannot mount", e))? == memory::Made::OnDisk {
                    on_disk.push(volume.name.clone());
                }
                empty_dir(&folder, readers.group()).map_err(|e| io("cannot open up", e))?;
            }
            Source::HugePages(medium) => {
                let size =
                    huge_pages::page_size(pod, medium).map_err(|cause| VolumeError::HugePages {
                        volume: volume.name.clone(),
                        cause,
                    })?;
                empty_dir(&folder, None).map_err(|e| io("cannot make", e))?;
                let made = huge_pages::set_up(&folder, size);
                made.map_err(|e| io("cannot mount huge pages at", e))?;
                empty_dir(&folder, readers.group()).map_err(|e| io("cannot open up", e))?;
            }
            Source::Projected(_) => {
                if has_token(volume) {
                    token_folder(&folder).map_err(|e| io("cannot mount", e))?;
                }
                let files = projection::files(pod, volume, sources, around)?;
                atomic::write(&folder, &files, readers).map_err(|e| io("cannot write", e))?;
            }
        }
    }
    Ok(on_disk)
}

/// Whether a volume has a token, which is not written to a disk where that can be helped.
fn has_token(volume: &Volume) -> bool {
    let projected = volume.projected.iter();
    let mut parts = projected.flat_map(|projected| projected.sources.iter().flatten());
    parts.any(|part| part.service_account_token.is_some())
}

/// Makes a folder in memory; on disk where this process may not mount.
fn token_folder(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Only the kubelet writes it.
    match memory::set_up(folder, None, 0o755)? {
        memory::Made::InMemory => Ok(()),
        memory::Made::OnDisk => set_mode(folder, 0o755),
    }
}

/// Makes a folder that everything of the Pod may write.
fn empty_dir(folder: &Path, group: Option<u32>) -> io::Result<()> {
    if !folder.exists() {
        std::fs::create_dir_all(folder)?;
        // Guests run under other users than the agent.
        set_mode(folder, 0o777)?;
    }
    match group {
        Some(group) => access::give_volume(folder, group),
        None => Ok(()),
    }
}

/// Gives back what volumes in memory hold, of a Pod that has ended or whose node stops. Idempotent.
/// Blocking.
pub(crate) fn release_memory(root: &Path, uid: &str) -> io::Result<()> {
    let volumes = pod_folder(root, uid).join("volumes");
    for plugin in [EMPTY_DIR, PROJECTED] {
        for entry in std::fs::read_dir(volumes.join(plugin))
            .into_iter()
            .flatten()
        {
            memory::tear_down(&entry?.path())?;
        }
    }
    Ok(())
}

/// Removes everything of a Pod. Idempotent. Blocking file I/O.
pub(crate) fn tear_down(root: &Path, uid: &str) -> io::Result<()> {
    // What is mounted is not removed with its folder.
    release_memory(root, uid)?;
    disk::remove_dir(&pod_folder(root, uid))
}

/// UIDs of Pods that have a folder.
pub(crate) fn uids(root: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root.join("pods")).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod readers_tests;
