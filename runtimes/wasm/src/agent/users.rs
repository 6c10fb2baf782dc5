//! Users of the host under which guests run: one per Kubernetes namespace.
//!
//! A user is given once and never to a second namespace: what a namespace's guests have left on
//! disk must not fall to another's. The record is therefore on disk before a user is used, and one
//! that cannot be read is an error rather than empty.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use coracle_runtime::GuestUser;
use parking_lot::Mutex;

use coracle_runtime::disk;

/// Name of the record in the runtime's folder.
const RECORD: &str = "users.json";

/// User ids by namespace.
type Given = BTreeMap<String, u32>;

/// The users of a node's guests.
pub(super) struct Users {
    record: PathBuf,
    range: Range<u32>,
    given: Mutex<Given>,
}

impl Users {
    /// Reads the record in `folder`. New users come from `range`; those that were given from
    /// another one stay.
    pub(super) fn open(folder: &Path, range: Range<u32>) -> io::Result<Self> {
        if range.start == 0 || range.len() < 2 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the range {range:?} has no users for guests: it needs two, and not root"),
            ));
        }
        let record = folder.join(RECORD);
        let given: Given = disk::read_json(&record)?.unwrap_or_default();
        let distinct: BTreeSet<u32> = given.values().copied().collect();
        if distinct.len() != given.len() || distinct.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} gives one user to two namespaces", record.display()),
            ));
        }
        Ok(Self {
            record,
            range,
            given: Mutex::new(given),
        })
    }

    /// The user of the compiler.
    pub(super) fn compiler(&self) -> GuestUser {
        same(self.range.start)
    }

    /// The user of a namespace's guests; gives it one if it has none.
    pub(super) fn of(&self, namespace: &str) -> io::Result<GuestUser> {
        let mut given = self.given.lock();
        if let Some(uid) = given.get(namespace) {
            return Ok(same(*uid));
        }
        let uid = next(&self.range, &given).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "all {} users for guests of this node were given to other namespaces: drain \
                     the node, stop its agent and remove its data directory",
                    self.range.len() - 1
                ),
            )
        })?;
        let mut more = given.clone();
        more.insert(namespace.to_owned(), uid);
        disk::write_json_durably(&self.record, &more)?;
        *given = more;
        Ok(same(uid))
    }
}

fn same(id: u32) -> GuestUser {
    GuestUser { uid: id, gid: id }
}

/// The lowest user that is free; the first of the range is the compiler's.
fn next(range: &Range<u32>, given: &Given) -> Option<u32> {
    let taken: BTreeSet<u32> = given.values().copied().collect();
    (range.start + 1..range.end).find(|uid| !taken.contains(uid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_its_user_and_none_has_two() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path(), 100..103).unwrap();
        assert_eq!(users.compiler().uid, 100);
        let (a, b) = (users.of("a").unwrap(), users.of("b").unwrap());
        assert_eq!((a.uid, a.gid, b.uid), (101, 101, 102));
        let error = users.of("c").unwrap_err().to_string();
        assert!(error.contains("all 2 users"), "{error}");
        drop(users);
        let users = Users::open(folder.path(), 100..104).unwrap();
        assert_eq!((users.of("b").unwrap(), users.of("a").unwrap()), (b, a));
        assert_eq!(users.of("c").unwrap().uid, 103);
        // Another range, of which a part was given.
        let users = Users::open(folder.path(), 101..105).unwrap();
        assert_eq!(
            (users.of("d").unwrap().uid, users.of("a").unwrap()),
            (104, a)
        );
    }

    #[test]
    fn a_record_that_cannot_be_trusted_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{", "{\"a\": 5, \"b\": 5}", "{\"a\": 0}"] {
            std::fs::write(folder.path().join(RECORD), text).unwrap();
            assert!(Users::open(folder.path(), 100..110).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_without_room_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for range in [0..10, 5..5, 5..6] {
            assert!(
                Users::open(folder.path(), range.clone()).is_err(),
                "{range:?}"
            );
        }
    }
}
