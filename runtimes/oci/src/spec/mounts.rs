//! What a container finds mounted: the file systems of the kernel, files of its sandbox, volumes.

use std::path::{Path, PathBuf};

use coracle_runtime::{Mount, Propagation, TERMINATION_LOG};
use serde_json::{Value, json};

use super::Input;
use crate::place;
use crate::protocol::Staged;

/// Mounts in the order in which they are made; what lies deeper comes later. And those volumes that
/// are put below the container's folder first.
pub(super) fn mounts(input: &Input<'_>) -> Result<(Vec<Value>, Vec<Staged>), String> {
    let volumes = &input.config.mounts;
    let mut bound: Vec<Mount> = Vec::new();
    for (host_path, container_path) in input.volumes {
        bound.push(Mount {
            host_path: host_path.clone(),
            container_path: container_path.clone(),
            ..Mount::default()
        });
    }
    for (host_path, container_path) in input.files {
        bound.push(Mount {
            host_path: host_path.clone(),
            container_path: PathBuf::from(container_path),
            read_only: input.config.security.read_only_root,
            ..Mount::default()
        });
    }
    if let Some(message) = &input.config.termination_message {
        let path = input.config.termination_path.as_deref();
        bound.push(Mount {
            host_path: message.clone(),
            container_path: path.unwrap_or(Path::new(TERMINATION_LOG)).to_owned(),
            ..Mount::default()
        });
    }
    bound.retain(|own| {
        volumes
            .iter()
            .all(|v| clean(&v.container_path) != clean(&own.container_path))
    });
    bound.extend(volumes.iter().cloned());
    for mount in &bound {
        if !mount.container_path.is_absolute() {
            return Err(format!(
                "mount path {:?} is not absolute",
                mount.container_path.display().to_string()
            ));
        }
    }
    if volumes
        .iter()
        .any(|v| clean(&v.container_path) == Path::new("/dev"))
    {
        return Err(
            "a volume cannot be mounted at /dev, where the runtime makes devices; a privileged \
             container finds the machine's there"
                .into(),
        );
    }
    bound.sort_by_key(|mount| clean(&mount.container_path).components().count());
    let taken = |path: &str| {
        bound
            .iter()
            .any(|mount| clean(&mount.container_path) == Path::new(path))
    };
    let mut mounts = kernel(input);
    mounts.retain(|mount| {
        mount["destination"]
            .as_str()
            .is_none_or(|path| !taken(path))
    });
    let mut staged = Vec::new();
    for mount in &bound {
        let read_only = mount.read_only || mount.image.is_some();
        let access = match (read_only, mount.recursive_read_only) {
            (false, _) => "rw",
            (true, false) => "ro",
            (true, true) => "rro",
        };
        let propagation = match mount.propagation {
            Propagation::Private => "rprivate",
            Propagation::FromMachine => "rslave",
            Propagation::Both => "rshared",
        };
        let mut options = vec!["rbind", propagation, access];
        if mount.recursive_read_only {
            options.push("ro");
        }
        // An image's files are to be read, and run by nobody (`volumes[].image`).
        if mount.image.is_some() {
            options.extend(["noexec", "nodev"]);
        }
        let lowers = match &mount.image {
            None => Vec::new(),
            Some(digest) => match input.images.get(digest) {
                Some(lowers) => lowers.clone(),
                None => return Err(format!("image {digest} of a volume is not there")),
            },
        };
        // Where no filter of devices is there, a volume brings none.
        if input.unified && !input.config.security.privileged {
            options.push("rnodev");
        }
        let users = input.sandbox.namespaces.users;
        if users.is_some() && mount.propagation == Propagation::Both {
            return Err(format!(
                "volume at {}: mountPropagation Bidirectional is not supported with \
                 hostUsers: false, whose mounts the machine does not take",
                mount.container_path.display()
            ));
        }
        let source = match (mount.propagation, mount.without_links) {
            (Propagation::Private, false) if lowers.is_empty() && users.is_none() => {
                mount.host_path.clone()
            }
            (propagation, without_links) => {
                let at = match users {
                    Some(_) => place::volume(staged.len()),
                    None => input.bundle.join("staged").join(staged.len().to_string()),
                };
                staged.push(Staged {
                    source: mount.host_path.clone(),
                    at: at.clone(),
                    propagation,
                    without_links,
                    lowers,
                });
                at
            }
        };
        mounts.push(json!({
            "destination": clean(&mount.container_path),
            "type": "bind",
            "source": source,
            "options": options,
        }));
    }
    Ok((mounts, staged))
}

/// Without dots and slashes that say nothing.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

/// What of the kernel a container sees; one with all rights may write it.
fn kernel(input: &Input<'_>) -> Vec<Value> {
    let access = match input.config.security.privileged {
        true => "rw",
        false => "ro",
    };
    let mut mounts = vec![
        json!({
            "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"],
        }),
        json!({
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        }),
        json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        }),
        json!({
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        }),
        json!({
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        }),
        json!({
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access],
        }),
    ];
    if input.unified || !input.joins_processes() {
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access],
        }));
        return mounts;
    }
    // libcontainer looks the older hierarchies up by the number that the container's process has in
    // its namespace, which is another process's on the machine unless it is the first.
    mounts.push(json!({
        "destination": "/sys/fs/cgroup", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=755"],
    }));
    let cgroup = input.cgroup.strip_prefix("/").unwrap_or(input.cgroup);
    for hierarchy in input.hierarchies {
        let Some(name) = hierarchy.file_name() else {
            continue;
        };
        mounts.push(json!({
            "destination": Path::new("/sys/fs/cgroup").join(name),
            "type": "bind", "source": hierarchy.join(cgroup),
            "options": ["rbind", access],
        }));
    }
    mounts
}
