//! IDs of the machine: which of them are for Pods, and which another node of the machine has given.
//!
//! `/etc/subuid` and `/etc/subgid` may give the user `kubelet` a range, as with the kubelet of
//! Kubernetes; without one, Pods have a range that nobody is known to use. What a Pod is given is
//! claimed by a link that bears the first of its IDs and leads to the file in which its node has
//! written it down: a claim holds as long as that file is there.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use coracle_runtime::IdRange;

use super::ranges::Pool;

/// The user whose range it is.
const USER: &str = "kubelet";

/// Where the machine tells of its IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPlaces {
    /// Ranges of users, as in subuid(5).
    pub subuid: PathBuf,
    /// Ranges of groups.
    pub subgid: PathBuf,
    /// The folder of what nodes of this machine have given, which is lost when it starts.
    pub claims: PathBuf,
}

impl UserPlaces {
    /// Where they are on this machine.
    pub fn of_machine() -> Self {
        Self::below(Path::new("/"))
    }

    /// The same below another root than the machine's.
    pub fn below(root: &Path) -> Self {
        Self {
            subuid: root.join("etc/subuid"),
            subgid: root.join("etc/subgid"),
            claims: root.join("run/coracle/users"),
        }
    }

    /// The IDs for Pods, or why they cannot be known.
    pub(super) fn pool(&self) -> Result<Pool, String> {
        let read = |path: &Path| match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|error| format!("cannot read {}: {error}", path.display())),
        };
        let found = pool(&read(&self.subuid)?, &read(&self.subgid)?)?;
        Ok(found.unwrap_or_default())
    }
}

/// What the two files say of the user; none where neither says anything.
fn pool(uids: &str, gids: &str) -> Result<Option<Pool>, String> {
    let refused = |what: &str| {
        Err(format!(
            "hostUsers: false: the range of the user {USER} in /etc/subuid and /etc/subgid {what}"
        ))
    };
    let (of_users, of_groups) = (of_user(uids), of_user(gids));
    let (first, length) = match (&of_users[..], &of_groups[..]) {
        ([], []) => return Ok(None),
        ([users], [groups]) if users == groups => *users,
        _ => return refused("has to be one, and the same in both"),
    };
    let unit = u64::from(IdRange::LENGTH);
    let whole = |count: u64| count > 0 && count.is_multiple_of(unit);
    if !whole(first) || !whole(length) {
        return refused("has to begin with a multiple of 65536 and to have such a length");
    }
    let end = first.checked_add(length);
    let first = u32::try_from(first).ok();
    match (first, end.filter(|end| *end <= 1 << 32)) {
        (Some(first), Some(_)) => Ok(Some(Pool {
            first,
            ranges: u32::try_from(length / unit).unwrap_or(u32::MAX),
        })),
        _ => refused("goes beyond the last ID"),
    }
}

/// First IDs and lengths of the user's ranges; a line that is none says nothing.
fn of_user(text: &str) -> Vec<(u64, u64)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == USER).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

/// Claims a range that was written down in that file; false where another node of this machine has
/// given it. Blocking file I/O.
pub(super) fn claim(folder: &Path, range: IdRange, file: &Path) -> io::Result<bool> {
    fs::create_dir_all(folder)?;
    let _lock = lock(folder)?;
    let link = link(folder, range);
    match fs::read_link(&link) {
        Ok(held) if held == file => return Ok(true),
        // What cannot be looked at is taken for held.
        Ok(held) if held.try_exists().unwrap_or(true) => return Ok(false),
        Ok(_) => fs::remove_file(&link)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    symlink(file, &link)?;
    Ok(true)
}

/// Gives up a claim, if it is that of the file.
pub(super) fn disclaim(folder: &Path, range: IdRange, file: &Path) {
    let link = link(folder, range);
    if let Ok(_lock) = lock(folder)
        && fs::read_link(&link).is_ok_and(|held| held == file)
    {
        // What stays holds nothing without its file.
        let _ = fs::remove_file(link);
    }
}

/// Who finds that a claim holds no more is not to remove another's that is new.
fn lock(folder: &Path) -> io::Result<File> {
    let lock = File::open(folder)?;
    lock.lock()?;
    Ok(lock)
}

fn link(folder: &Path, range: IdRange) -> PathBuf {
    folder.join(range.first.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_the_user_is_whole_and_the_same_for_groups() {
        let own = "root:1:2\nkubelet:131072:196608\nother:65536:65536\n";
        let range = Pool {
            first: 131_072,
            ranges: 3,
        };
        assert_eq!(pool(own, own), Ok(Some(range)));
        assert_eq!(pool("", "other:65536:65536\n"), Ok(None));
        for (uids, gids, named) in [
            (own, "", "the same in both"),
            (own, "kubelet:131072:65536", "the same in both"),
            (&*own.repeat(2), &*own.repeat(2), "has to be one"),
            ("kubelet:1:65536", "kubelet:1:65536", "multiple of 65536"),
            ("kubelet:0:65536", "kubelet:0:65536", "multiple of 65536"),
            ("kubelet:65536:5", "kubelet:65536:5", "multiple of 65536"),
            (
                "kubelet:4294901760:131072",
                "kubelet:4294901760:131072",
                "beyond the last",
            ),
        ] {
            let refused = pool(uids, gids).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn a_claim_holds_as_long_as_what_it_is_of() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run/claims");
        let range = IdRange { first: 1 << 20 };
        let [a, b] = ["a", "b"].map(|name| root.path().join(name));
        fs::write(&a, "").unwrap();
        fs::write(&b, "").unwrap();
        assert!(claim(&folder, range, &a).unwrap());
        assert!(claim(&folder, range, &a).unwrap(), "again");
        assert!(!claim(&folder, range, &b).unwrap());
        disclaim(&folder, range, &b);
        assert!(!claim(&folder, range, &b).unwrap());
        fs::remove_file(&a).unwrap();
        assert!(claim(&folder, range, &b).unwrap());
        disclaim(&folder, range, &b);
        fs::write(&a, "").unwrap();
        assert!(claim(&folder, range, &a).unwrap());
    }
}
