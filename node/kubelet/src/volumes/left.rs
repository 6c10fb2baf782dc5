//! Mounts that a kubelet has left behind.

use std::io;
use std::path::{Path, PathBuf};

use coracle_runtime::mountinfo::{self, MountPoint};

use super::memory;

/// Unmounts everything below the folder of a kubelet that does not run: what one left that was
/// killed. Volumes in a folder that is not there are none.
///
/// # Errors
/// Something stays mounted.
pub fn unmount_volumes(root_dir: &Path) -> io::Result<()> {
    if !root_dir.is_dir() {
        return Ok(());
    }
    let folder = root_dir.canonicalize()?;
    for point in points_below(&folder, mountinfo::of_this_process()?) {
        memory::tear_down(&point)?;
    }
    Ok(())
}

/// Mount points below a folder, the innermost first.
fn points_below(folder: &Path, table: Vec<MountPoint>) -> Vec<PathBuf> {
    let points = table.into_iter().map(|point| point.path);
    let mut points: Vec<PathBuf> = points
        .filter(|point| point.starts_with(folder) && point != folder)
        .collect();
    // Later mounts lie over earlier ones.
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_found() {
        let table = b"\
            22 1 0:21 / / rw - ext4 /dev/vda rw\n\
            30 22 0:30 / /data/agent rw - tmpfs a rw\n\
            31 22 0:31 / /data/agent/pods/a/with\\040blank rw shared:7 - tmpfs b rw\n\
            32 31 0:32 / /data/agent/pods/a/with\\040blank/in rw - tmpfs c rw\n\
            33 22 0:33 / /data/agent-2/pods rw - tmpfs d rw\n";
        assert_eq!(
            points_below(Path::new("/data/agent"), mountinfo::parse(table)),
            [
                Path::new("/data/agent/pods/a/with blank/in"),
                Path::new("/data/agent/pods/a/with blank"),
            ]
        );
    }
}
