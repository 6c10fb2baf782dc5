//! What of the machine a container is told: its devices, and how mounts of its propagate.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use coracle_runtime::Propagation;
use coracle_runtime::mountinfo::{self, MountPoint};

use crate::spec::Device;

/// Folders of `/dev` that a container has of its own.
const OWN: [&str; 4] = ["pts", "shm", "mqueue", "fd"];
/// How deep folders of devices are.
const DEPTH: usize = 8;

/// The devices of the machine, for a container that may do with them what root may.
pub(super) fn devices() -> io::Result<Vec<Device>> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, depth: usize, into: &mut Vec<Device>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Devices come and go.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let own = OWN.iter().any(|name| path == Path::new("/dev").join(name));
            if !own && depth < DEPTH {
                collect(&path, depth + 1, into)?;
            }
            continue;
        }
        // A terminal of a container's is its own.
        let device = kind.is_char_device() || kind.is_block_device();
        // Nor is one of a name that a specification cannot hold.
        if !device || path == Path::new("/dev/console") || path.to_str().is_none() {
            continue;
        }
        into.push(Device {
            block: kind.is_block_device(),
            major: libc::major(metadata.rdev()),
            minor: libc::minor(metadata.rdev()),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            path,
        });
    }
    Ok(())
}

/// The capabilities of this process, a bit for each.
pub(super) fn capabilities() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// The right to spare a process where memory runs out.
const SYS_RESOURCE: u64 = 1 << 24;

/// The least `oom_score_adj` that processes may be given by this one, which has those capabilities:
/// its own, unless it has the right among the machine's users.
pub(super) fn least_oom_score(capabilities: u64) -> i32 {
    let read = |file: &str| fs::read_to_string(Path::new("/proc/self").join(file));
    let users = read("uid_map").unwrap_or_default();
    let of_machine = users.split_whitespace().eq(["0", "0", "4294967295"]);
    if capabilities & SYS_RESOURCE != 0 && of_machine {
        return -1000;
    }
    let own = read("oom_score_adj").ok();
    own.and_then(|own| own.trim().parse().ok()).unwrap_or(0)
}

/// Refuses a propagation that the mount below a volume does not have.
pub(super) fn check_propagation(source: &Path, wanted: Propagation) -> Result<(), String> {
    if wanted == Propagation::Private {
        return Ok(());
    }
    let failed = |error: io::Error| format!("reading how {} is mounted: {error}", source.display());
    let table = mountinfo::of_this_process().map_err(failed)?;
    let path = source.canonicalize().map_err(failed)?;
    propagates(&path, wanted, &table)
}

/// The same from the table of mounts, with the words of containerd.
fn propagates(path: &Path, wanted: Propagation, table: &[MountPoint]) -> Result<(), String> {
    let above = table.iter().filter(|point| path.starts_with(&point.path));
    // Of mounts at one point the last lies on top.
    let mount = above.max_by_key(|point| point.path.components().count());
    let Some(mount) = mount else {
        return Err(format!("{} is mounted nowhere", path.display()));
    };
    let (fine, what) = match wanted {
        Propagation::Private => (true, ""),
        Propagation::FromMachine => (mount.shared || mount.slave, "a shared or slave mount"),
        Propagation::Both => (mount.shared, "a shared mount"),
    };
    match fine {
        true => Ok(()),
        false => Err(format!(
            "path {:?} is mounted on {:?} but it is not {what}",
            path.display().to_string(),
            mount.path.display().to_string()
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_but_for_those_of_terminals() {
        let found = devices().unwrap();
        let null = found.iter().find(|d| d.path == Path::new("/dev/null"));
        let null = null.unwrap();
        assert_eq!((null.block, null.major, null.minor), (false, 1, 3));
        assert!(!found.iter().any(|d| d.path.starts_with("/dev/pts")));
    }

    #[test]
    fn propagation_is_that_of_the_mount_below() {
        let table = b"\
            22 1 0:21 / / rw - ext4 /dev/vda rw\n\
            30 22 0:30 / /data\\040one rw shared:7 - tmpfs a rw\n\
            31 22 0:31 / /data\\040one/in rw master:7 - tmpfs b rw\n";
        let table = mountinfo::parse(table);
        let check = |path: &str, wanted| propagates(Path::new(path), wanted, &table);
        assert_eq!(check("/data one/x", Propagation::Both), Ok(()));
        assert_eq!(check("/data one/x", Propagation::FromMachine), Ok(()));
        assert_eq!(check("/data one/in/x", Propagation::FromMachine), Ok(()));
        let not = |path: &str, on: &str, what: &str| {
            Err(format!(
                "path {path:?} is mounted on {on:?} but it is not {what}"
            ))
        };
        let shared = not("/data one/in", "/data one/in", "a shared mount");
        assert_eq!(check("/data one/in", Propagation::Both), shared);
        let either = not("/data", "/", "a shared or slave mount");
        assert_eq!(check("/data", Propagation::FromMachine), either);
    }
}
