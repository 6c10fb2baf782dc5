//! Volumes in memory: `emptyDir` with `medium: Memory`, and those with tokens.
//!
//! A file system in memory, bounded by the smallest of the volume's `sizeLimit`, the memory limits
//! of the Pod's containers if all have one, and what the node can allocate (KEP-1967). Only root
//! can mount one; elsewhere the volume is an ordinary folder, and the Pod is told.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use crate::pod;

/// Mounts that may lie on top of each other: one, or as many as a fault has made.
const MAX_STACKED: usize = 16;

/// What a volume in memory became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// A file system in memory.
    InMemory,
    /// An ordinary folder: this process may not mount.
    OnDisk,
}

/// Mounts a file system in memory at a folder, unless that was done. A folder that holds anything
/// is left as it is: it was used before, when nothing could be mounted. `mode` is that of the new
/// file system's root.
pub(crate) fn set_up(folder: &Path, bytes: Option<u64>, mode: u32) -> io::Result<Made> {
    if is_mounted(folder)? {
        return Ok(Made::InMemory);
    }
    if std::fs::read_dir(folder)?.next().is_some() {
        return Ok(Made::OnDisk);
    }
    let size = bytes.map_or(String::new(), |bytes| format!(",size={bytes}"));
    match mount(folder, c"tmpfs", &format!("mode={mode:04o}{size}")) {
        Ok(()) => Ok(Made::InMemory),
        Err(error) => match error.raw_os_error() {
            // No right to, or a kernel without it.
            Some(libc::EPERM | libc::EACCES | libc::ENODEV | libc::ENOSYS) => Ok(Made::OnDisk),
            _ => Err(error),
        },
    }
}

/// Unmounts what is mounted at a folder, if anything is. Files that are still open stay readable.
pub(crate) fn tear_down(folder: &Path) -> io::Result<()> {
    for _ in 0..MAX_STACKED {
        if !is_mounted(folder)? {
            return Ok(());
        }
        let path = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: the path is a string that ends, and lives during the call.
        let result =
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Err(io::Error::other("too many file systems are mounted there"))
}

/// Whether a folder lies on another file system than its parent.
pub(super) fn is_mounted(folder: &Path) -> io::Result<bool> {
    let own = std::fs::symlink_metadata(folder)?;
    let Some(parent) = folder.parent() else {
        return Ok(true);
    };
    Ok(own.is_dir() && own.dev() != std::fs::metadata(parent)?.dev())
}

/// Mounts a file system of the kernel's own.
pub(super) fn mount(folder: &Path, kind: &CStr, options: &str) -> io::Result<()> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    // SAFETY: all four are strings that end, and live during the call.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
            path.as_ptr(),
            kind.as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The bound of a volume in memory, in bytes; none if nothing bounds it but the kernel's own half
/// of the memory. `node` is what the node can allocate.
pub(crate) fn size(pod: &Pod, volume: &Volume, node: Option<&Quantity>) -> Option<u64> {
    let limit = volume
        .empty_dir
        .as_ref()
        .and_then(|of| of.size_limit.as_ref());
    let limit: Option<Quantity> = limit.and_then(|limit| limit.try_into().ok());
    let bytes = |amount: &Quantity| u64::try_from(amount.value()).ok();
    // A limit of zero is none, as in the API.
    let limit = limit.as_ref().and_then(bytes).filter(|bytes| *bytes > 0);
    let smallest = [limit, memory_limit(pod), node.and_then(bytes)];
    // To the kernel no bytes are no bound.
    smallest
        .into_iter()
        .flatten()
        .min()
        .map(|bytes| bytes.max(1))
}

/// The memory that all containers together may use at once: what the Pod may as a whole, or else the
/// sum of theirs; none if one of them has no limit.
fn memory_limit(pod: &Pod) -> Option<u64> {
    let spec = pod::spec(pod);
    if let Some(whole) = resources::whole_limits(spec).get(resources::MEMORY) {
        return u64::try_from(whole.value()).ok();
    }
    let inits = spec.init_containers.iter().flatten();
    let beside = inits.filter(|init| resources::is_sidecar(init));
    let limit = |container: &Container| {
        let limits = resources::container_limits(container);
        let memory = limits.get("memory").map(Quantity::value)?;
        u64::try_from(memory).ok().filter(|bytes| *bytes > 0)
    };
    let mut limits = spec.containers.iter().chain(beside).map(limit);
    limits.try_fold(0_u64, |sum, limit| Some(sum.saturating_add(limit?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_smallest_bound_counts() {
        let limited =
            |memory: &str| json!({"name": "c", "resources": {"limits": {"memory": memory}}});
        let free = json!({"name": "d"});
        let sidecar = json!([{"name": "s", "restartPolicy": "Always",
            "resources": {"limits": {"memory": "1Ki"}}}]);
        let none = json!([]);
        type Row = (Value, Value, Value, Option<&'static str>, Option<u64>);
        let table: [Row; 7] = [
            (
                json!("1Mi"),
                json!([free]),
                none.clone(),
                Some("1Gi"),
                Some(1 << 20),
            ),
            (
                json!("2Gi"),
                json!([free]),
                none.clone(),
                Some("1Gi"),
                Some(1 << 30),
            ),
            (
                Value::Null,
                json!([limited("3Ki"), limited("1Ki")]),
                none.clone(),
                Some("1Gi"),
                Some(4096),
            ),
            (
                Value::Null,
                json!([limited("3Ki")]),
                sidecar,
                Some("1Gi"),
                Some(4096),
            ),
            (
                Value::Null,
                json!([limited("3Ki"), free]),
                none.clone(),
                Some("1Gi"),
                Some(1 << 30),
            ),
            (
                json!("0"),
                json!([free]),
                none.clone(),
                Some("1Gi"),
                Some(1 << 30),
            ),
            (Value::Null, json!([free]), none, None, None),
        ];
        for (limit, containers, inits, node, expected) in table {
            let volume = json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": limit}});
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"containers": containers, "initContainers": inits, "volumes": [volume]},
            }))
            .unwrap();
            let volume = &pod::spec(&pod).volumes.as_ref().unwrap()[0];
            let node = node.map(|text| text.parse().unwrap());
            assert_eq!(size(&pod, volume, node.as_ref()), expected, "{volume:?}");
        }
    }
}
