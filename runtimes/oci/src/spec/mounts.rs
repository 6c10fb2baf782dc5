//! What a container finds mounted: the file systems of the kernel, files of its sandbox, volumes.

use std::path::{Path, PathBuf};

use coracle_runtime::Mount;
use serde_json::{Value, json};

use super::Input;

/// Mounts in the order in which they are made; what lies deeper comes later.
pub(super) fn mounts(input: &Input<'_>) -> Result<Vec<Value>, String> {
    let volumes = &input.config.mounts;
    let mut bound: Vec<Mount> = Vec::new();
    for (host_path, container_path) in input.volumes {
        bound.push(Mount {
            host_path: host_path.clone(),
            container_path: container_path.clone(),
            read_only: false,
        });
    }
    for (host_path, container_path) in input.files {
        bound.push(Mount {
            host_path: host_path.clone(),
            container_path: PathBuf::from(container_path),
            read_only: input.config.security.read_only_root,
        });
    }
    if let Some(message) = &input.config.termination_message {
        bound.push(Mount {
            host_path: message.clone(),
            container_path: PathBuf::from(TERMINATION_LOG),
            read_only: false,
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
    bound.sort_by_key(|mount| clean(&mount.container_path).components().count());
    let taken = |path: &str| {
        bound
            .iter()
            .any(|mount| clean(&mount.container_path) == Path::new(path))
    };
    let mut mounts = kernel();
    mounts.retain(|mount| {
        mount["destination"]
            .as_str()
            .is_none_or(|path| !taken(path))
    });
    mounts.extend(bound.iter().map(|mount| {
        let access = if mount.read_only { "ro" } else { "rw" };
        json!({
            "destination": clean(&mount.container_path),
            "type": "bind",
            "source": mount.host_path,
            "options": ["rbind", "rprivate", access],
        })
    }));
    Ok(mounts)
}

/// The default of `terminationMessagePath` in the Pod API, as the runtime's interface has it.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Without dots and slashes that say nothing.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

fn kernel() -> Vec<Value> {
    vec![
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
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }),
        json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }),
    ]
}
