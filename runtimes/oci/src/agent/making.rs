//! What a container is made of: its specification, its folders, and what its shim is told.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use coracle_images::ImageLayer;
use coracle_runtime::cgroup::pods::pod_cgroup;
use coracle_runtime::ledger::{ContainerRecord, EXIT};
use coracle_runtime::{ContainerUser, Error, PodSandbox, Result, Seccomp, Security, disk, files};
use libcontainer::oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use super::{Inner, machine};
use crate::protocol::{Confinement, Start};
use crate::seccomp::localhost;
use crate::shim::{PROCESSES, USERS};
use crate::signals;
use crate::spec::{self, Input};

/// Name of the file with a container's [`Made`].
pub(super) const MADE: &str = "made.json";
/// Name of a container's specification, which libcontainer expects.
pub(super) const SPEC: &str = "config.json";

/// What was made of a container's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) layers: Vec<ImageLayer>,
    /// Those of images that are volumes.
    #[serde(default)]
    pub(super) volumes: Vec<Vec<ImageLayer>>,
    /// As whom it begins; unknown of those that an earlier release has made.
    #[serde(default)]
    pub(super) user: Option<ContainerUser>,
    pub(super) stop_signal: i32,
    pub(super) start: Start,
}

/// What a container writes over its image's layers, in its folder.
const UPPER: &str = "upper";
/// What it writes to the image's volumes where its root is read-only.
const VOLUMES: &str = "volumes";
/// All that it writes.
pub(super) const WRITTEN: [&str; 2] = [UPPER, VOLUMES];

impl Inner {
    /// Writes a container's specification, and makes its folders.
    pub(super) fn make(
        &self,
        record: &ContainerRecord,
        sandbox: &PodSandbox,
        image: &coracle_images::ImageConfig,
        layers: Vec<ImageLayer>,
        shim: i32,
    ) -> Result<()> {
        let records = self.ledger.records();
        let bundle = records.container_folder(&record.id);
        let users = self.snapshots.users(&layers);
        let users = users.map_err(|error| Error::io("reading the users of an image", error))?;
        let cgroup = pod_cgroup(&sandbox.config).join(&record.id.0);
        let volumes = volumes(record, image, &bundle);
        let security = &record.config.security;
        let devices = match security.privileged {
            true => machine::devices()
                .map_err(|error| Error::io("listing the machine's devices", error))?,
            false => Vec::new(),
        };
        for mount in &record.config.mounts {
            machine::check_propagation(&mount.host_path, mount.propagation)
                .map_err(Error::InvalidConfig)?;
        }
        let profile = profile(security)?;
        let app_armor = self.app_armor.of(security);
        let app_armor = app_armor.map_err(Error::InvalidConfig)?;
        let images = self.mounted_images(record)?;
        let lowers = images.iter().map(|(digest, layers)| {
            let lowers = self.snapshots.lowers_to_read(layers);
            (digest.clone(), lowers)
        });
        let lowers: BTreeMap<String, Vec<PathBuf>> = lowers.collect();
        let hierarchies = self.cgroups.hierarchies().older();
        let own = machine::capabilities()
            .map_err(|error| Error::io("reading the agent's capabilities", error))?;
        let plan = spec::plan(&Input {
            sandbox: &sandbox.config,
            config: &record.config,
            image,
            users: &users,
            cgroup: &cgroup,
            unified: self.cgroups.hierarchies().unified(),
            hierarchies: &hierarchies,
            filters_devices: self.filters_devices,
            huge_pages: self.cgroups.hierarchies().huge_pages(),
            files: &files::list(&records.sandbox_folder(&sandbox.id)),
            volumes: &volumes,
            images: &lowers,
            shim,
            pod_users: &self.shim_folder(&sandbox.id).join(USERS),
            processes: &self.shim_folder(&sandbox.id).join(PROCESSES),
            devices: &devices,
            app_armor,
            capabilities: own,
            least_oom_score: machine::least_oom_score(own),
            bundle: &bundle,
        });
        let plan = plan.map_err(Error::InvalidConfig)?;
        let joins = sandbox.config.namespaces.share_processes || record.config.target.is_some();
        let mounted = joins && !self.cgroups.hierarchies().unified();
        let below = cgroup.strip_prefix("/").unwrap_or(&cgroup);
        let cgroup_folders = match mounted {
            true => hierarchies.iter().map(|root| root.join(below)).collect(),
            false => Vec::new(),
        };
        let filter_devices = match security.privileged {
            true => None,
            false => self.cgroups.hierarchies().unified_folder(&cgroup),
        };
        let made = Made {
            user: Some(plan.user),
            stop_signal: signals::stop_signal(
                record
                    .config
                    .stop_signal
                    .as_deref()
                    .unwrap_or(&image.stop_signal),
            ),
            start: Start {
                container: record.id.clone(),
                bundle: bundle.clone(),
                lowers: self.snapshots.lowers(&layers),
                cwd: plan.spec["process"]["cwd"].as_str().unwrap_or("/").into(),
                cgroup,
                cgroup_folders,
                filter_devices: filter_devices.filter(|_| self.filters_devices),
                devices: security.privileged,
                staged: plan.staged,
                users: plan.users,
                confinement: Confinement {
                    filtered: spec::filtered(security),
                    profile,
                    capabilities: plan.capabilities,
                },
                log_file: sandbox.config.log_directory.join(&record.config.log_path),
                log_limits: record.config.log_limits,
                stdio: record.config.stdio,
                target: record.config.target.clone(),
                started_at: record.created_at,
                exit_file: bundle.join(EXIT),
            },
            layers,
            volumes: images.into_values().collect(),
        };
        let write = || -> io::Result<()> {
            for folder in ["rootfs", UPPER, "work"] {
                disk::private_dir(&bundle.join(folder))?;
            }
            // The root of the container, which everybody in it may enter.
            disk::set_mode(&bundle.join(UPPER), 0o755)?;
            for (folder, _) in &volumes {
                disk::private_dir(folder)?;
                disk::set_mode(folder, 0o755)?;
            }
            disk::write_json(&bundle.join(SPEC), &plan.spec)?;
            disk::write_json(&bundle.join(MADE), &made)
        };
        write().map_err(|error| Error::io("making a container's folder", error))
    }
}

impl Inner {
    /// The images whose files a container mounts, by their digests.
    fn mounted_images(
        &self,
        record: &ContainerRecord,
    ) -> Result<BTreeMap<String, Vec<ImageLayer>>> {
        let mounts = record.config.mounts.iter();
        let digests = mounts.filter_map(|mount| mount.image.as_ref());
        let of = |digest: &String| {
            let image = self.image(digest)?;
            Ok((digest.clone(), self.layers(&image, digest)?))
        };
        digests.map(of).collect()
    }
}

/// The filter of a file of the machine, if a container is to have one.
fn profile(of: &Security) -> Result<Option<LinuxSeccomp>> {
    let Seccomp::Localhost(path) = &of.seccomp else {
        return Ok(None);
    };
    if of.privileged {
        return Ok(None);
    }
    let failed = |cause: String| {
        let path = path.display();
        Error::InvalidConfig(format!("cannot load seccomp profile \"{path}\": {cause}"))
    };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    localhost::parse(&text).map(Some).map_err(failed)
}

/// Folders for the image's volumes where its own files cannot be written. Elsewhere they are a part
/// of what the container writes.
fn volumes(
    record: &ContainerRecord,
    image: &coracle_images::ImageConfig,
    bundle: &Path,
) -> Vec<(PathBuf, PathBuf)> {
    if !record.config.security.read_only_root {
        return Vec::new();
    }
    let named: BTreeMap<PathBuf, usize> = image
        .volumes
        .iter()
        .enumerate()
        .map(|(index, path)| (Path::new("/").join(path), index))
        .collect();
    let folder = |index: usize| bundle.join(VOLUMES).join(index.to_string());
    named
        .into_iter()
        .map(|(path, index)| (folder(index), path))
        .collect()
}
