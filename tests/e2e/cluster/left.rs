//! What runs of the tests have left that were killed: their clusters, and mounts of their volumes below
//! the folder of temporary files, which nobody can remove before they are unmounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use super::CORACLE;

/// No run takes as long: whoever is older has ended.
const AGE: Duration = Duration::from_secs(2 * 3600);

/// Resets old clusters, once. One that runs is in use, and stays as it is.
pub(super) fn reset() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let points = coracle_runtime::mountinfo::of_this_process().unwrap_or_default();
        let points = points.into_iter().map(|point| point.path);
        let temporary = std::env::temp_dir();
        let folders: BTreeSet<PathBuf> = points
            .filter(|path| path.starts_with(&temporary))
            .filter_map(|path| data_folder(&path))
            .filter(|folder| is_old(folder))
            .collect();
        for folder in folders {
            let reset = Command::new(CORACLE)
                .args(["reset", "--delete-data", "--data-dir"])
                .arg(&folder)
                .output();
            eprintln!("reset what is left in {}: {reset:?}", folder.display());
        }
    });
}

/// The folder of the cluster to which a mount of a volume belongs.
fn data_folder(point: &Path) -> Option<PathBuf> {
    let mut above = point.ancestors();
    let agent = above.find(|folder| folder.ends_with("agent"))?;
    let below = point.strip_prefix(agent).ok()?;
    below.starts_with("pods").then_some(())?;
    agent.parent().map(Path::to_owned)
}

fn is_old(folder: &Path) -> bool {
    let changed = folder.metadata().and_then(|of| of.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > AGE))
}

#[test]
fn mounts_are_of_clusters() {
    for (point, folder) in [
        (
            "/tmp/.tmpA/data/agent/pods/u/volumes/x",
            Some("/tmp/.tmpA/data"),
        ),
        ("/tmp/.tmpA/data/agent/network", None),
        ("/tmp/other", None),
    ] {
        assert_eq!(data_folder(Path::new(point)), folder.map(PathBuf::from));
    }
}
