//! IDs of the machine for Pods with users of their own (`hostUsers: false`, KEP-127).
//!
//! Each such Pod with containers has a range of 65,536 that no other Pod of the node has, from when
//! it is joined to the network until nothing of it is left. The range is written into the Pod's
//! folder before anybody is told of it, so that the next agent knows it ([`ranges`] decides). A
//! guest has no users, and a Pod of guests alone no range.

mod ranges;

use std::io;
use std::path::Path;

use coracle_runtime::{IdRange, disk};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::access::{self, Readers};
use crate::pod;
use crate::volumes;
use ranges::{RANGES, Ranges};

/// Name of the file in a Pod's folder.
const FILE: &str = "users.json";

/// What the Pods of a node have.
pub(crate) struct PodUsers(Mutex<Ranges>);

impl PodUsers {
    /// Reads what Pods were given by an earlier agent.
    pub(crate) fn load(root: &Path) -> Self {
        let mut ranges = Ranges::default();
        for uid in volumes::uids(root) {
            match disk::read_json(&volumes::pod_folder(root, &uid).join(FILE)) {
                Ok(Some(range)) => ranges.note(&uid, range),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, uid, "cannot read which users a Pod has"),
            }
        }
        Self(Mutex::new(ranges))
    }

    /// The range of a Pod, if it is to have one; `readers` are those of its folder. Blocking file
    /// I/O, and little of it.
    pub(crate) fn give(
        &self,
        root: &Path,
        pod: &Pod,
        readers: Readers,
    ) -> Result<Option<IdRange>, String> {
        if pod::spec(pod).host_users != Some(false) {
            return Ok(None);
        }
        let uid = pod::uid(pod);
        let mut ranges = self.0.lock();
        if let Some(range) = ranges.known(uid) {
            return Ok(Some(range));
        }
        let range = ranges.give(uid).ok_or_else(|| {
            format!("all {RANGES} ranges of users for Pods with hostUsers: false are taken")
        })?;
        let written = write(root, uid, range, readers);
        if let Err(error) = written {
            ranges.release(uid);
            return Err(format!("cannot record the users of a Pod: {error}"));
        }
        Ok(Some(range))
    }

    /// Takes back the range of a Pod of which nothing is left.
    pub(crate) fn release(&self, uid: &str) {
        self.0.lock().release(uid);
    }
}

fn write(root: &Path, uid: &str, range: IdRange, readers: Readers) -> io::Result<()> {
    let folder = volumes::pod_folder(root, uid);
    access::pod_folder(root, &folder, readers)?;
    disk::write_json_durably(&folder.join(FILE), &range)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": uid},
            "spec": {"hostUsers": host_users, "containers": []},
        }))
        .unwrap()
    }

    #[test]
    fn the_next_agent_knows_what_pods_have() {
        let root = tempfile::tempdir().unwrap();
        let give = |users: &PodUsers, uid: &str| {
            let given = users.give(root.path(), &pod(uid, Some(false)), Readers::Agent);
            given.unwrap().unwrap()
        };
        let first = PodUsers::load(root.path());
        let (a, b) = (give(&first, "a"), give(&first, "b"));
        assert_ne!(a, b);
        let next = PodUsers::load(root.path());
        let c = give(&next, "c");
        assert!(c != a && c != b);
        assert_eq!((give(&next, "a"), give(&next, "b")), (a, b));
        volumes::tear_down(root.path(), "a").unwrap();
        next.release("a");
        assert_eq!(give(&next, "d"), a);
    }

    #[test]
    fn who_shares_the_machines_users_has_none() {
        let root = tempfile::tempdir().unwrap();
        let users = PodUsers::load(root.path());
        for shared in [None, Some(true)] {
            let given = users.give(root.path(), &pod("a", shared), Readers::Agent);
            assert_eq!(given, Ok(None));
        }
        assert!(volumes::uids(root.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_written_down_is_not_given() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("pods");
        std::fs::write(&file, "").unwrap();
        let users = PodUsers::load(root.path());
        let give = || users.give(root.path(), &pod("a", Some(false)), Readers::Agent);
        assert!(give().unwrap_err().contains("cannot record"));
        std::fs::remove_file(&file).unwrap();
        assert!(give().unwrap().is_some());
    }
}
