//! IDs of the machine for Pods with users of their own (`hostUsers: false`, KEP-127).
//!
//! Each such Pod with containers has a range of 65,536 that no other Pod of the node has, from when
//! it is joined to the network until nothing of it is left. The range is written into the Pod's
//! folder before anybody is told of it, so that the next agent knows it ([`ranges`] decides), and
//! claimed, so that other nodes of the machine do ([`machine`]). A guest has no users, and a Pod of
//! guests alone no range.

mod machine;
mod ranges;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_runtime::{IdRange, disk};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::access::{self, Readers};
use crate::pod;
use crate::volumes;
pub use machine::UserPlaces;
use ranges::Ranges;

/// Name of the file in a Pod's folder.
const FILE: &str = "users.json";

/// What the Pods of a node have.
pub(crate) struct PodUsers {
    /// The kubelet's folder, absolute.
    root: PathBuf,
    claims: PathBuf,
    /// Or why none are given.
    ranges: Mutex<Result<Ranges, String>>,
}

impl PodUsers {
    /// Reads what Pods were given by an earlier agent.
    pub(crate) fn load(root: &Path, places: &UserPlaces) -> Self {
        let users = Self {
            root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            claims: places.claims.clone(),
            ranges: Mutex::new(places.pool().map(Ranges::of)),
        };
        if let Ok(ranges) = &mut *users.ranges.lock() {
            for uid in volumes::uids(root) {
                match disk::read_json(&users.file(&uid)) {
                    Ok(Some(range)) if users.claim(range, &uid) => ranges.note(&uid, range),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, uid, "cannot read which users a Pod has"),
                }
            }
        }
        users
    }

    /// Where the range of a Pod is written down.
    fn file(&self, uid: &str) -> PathBuf {
        volumes::pod_folder(&self.root, uid).join(FILE)
    }

    /// Whether no other node of this machine has given a range. Where that cannot be known, none has.
    fn claim(&self, range: IdRange, uid: &str) -> bool {
        let claimed = machine::claim(&self.claims, range, &self.file(uid));
        claimed.unwrap_or_else(|error| {
            let folder = self.claims.display();
            tracing::warn!(%error, %folder, "other nodes are not told which users a Pod has");
            true
        })
    }

    /// The range of a Pod, if it is to have one; `readers` are those of its folder. Blocking file
    /// I/O, and little of it.
    pub(crate) fn give(&self, pod: &Pod, readers: Readers) -> Result<Option<IdRange>, String> {
        if pod::spec(pod).host_users != Some(false) {
            return Ok(None);
        }
        let uid = pod::uid(pod);
        let mut known = self.ranges.lock();
        let ranges = known.as_mut().map_err(|refused| refused.clone())?;
        if let Some(range) = ranges.known(uid) {
            return Ok(Some(range));
        }
        let mut elsewhere = BTreeSet::new();
        loop {
            let range = ranges.give(uid, &elsewhere).ok_or(
                "all ranges of users for Pods with hostUsers: false are taken on this machine",
            )?;
            // What is not written down holds no claim.
            if let Err(error) = write(&self.root, uid, range, readers) {
                ranges.release(uid);
                return Err(format!("cannot record the users of a Pod: {error}"));
            }
            if self.claim(range, uid) {
                return Ok(Some(range));
            }
            ranges.release(uid);
            elsewhere.insert(range.first);
        }
    }

    /// Takes back the range of a Pod of which nothing is left.
    pub(crate) fn release(&self, uid: &str) {
        if let Ok(ranges) = &mut *self.ranges.lock() {
            if let Some(range) = ranges.known(uid) {
                machine::disclaim(&self.claims, range, &self.file(uid));
            }
            ranges.release(uid);
        }
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

    fn load(root: &Path) -> PodUsers {
        PodUsers::load(root, &UserPlaces::below(&root.join("machine")))
    }

    #[test]
    fn the_next_agent_knows_what_pods_have() {
        let root = tempfile::tempdir().unwrap();
        let give = |users: &PodUsers, uid: &str| {
            let given = users.give(&pod(uid, Some(false)), Readers::Agent);
            given.unwrap().unwrap()
        };
        let first = load(root.path());
        let (a, b) = (give(&first, "a"), give(&first, "b"));
        assert_ne!(a, b);
        let next = load(root.path());
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
        let users = load(root.path());
        for shared in [None, Some(true)] {
            let given = users.give(&pod("a", shared), Readers::Agent);
            assert_eq!(given, Ok(None));
        }
        assert!(volumes::uids(root.path()).is_empty());
    }

    #[test]
    fn what_cannot_be_written_down_is_not_given() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("pods");
        std::fs::write(&file, "").unwrap();
        let users = load(root.path());
        let give = || users.give(&pod("a", Some(false)), Readers::Agent);
        assert!(give().unwrap_err().contains("cannot record"));
        std::fs::remove_file(&file).unwrap();
        assert!(give().unwrap().is_some());
    }

    #[test]
    fn nodes_of_one_machine_give_no_range_twice() {
        let machine = tempfile::tempdir().unwrap();
        let places = UserPlaces::below(machine.path());
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = roots
            .each_ref()
            .map(|root| PodUsers::load(root.path(), &places));
        let give = |users: &PodUsers, uid: &str| {
            let given = users.give(&pod(uid, Some(false)), Readers::Agent);
            given.unwrap().unwrap()
        };
        let (a, b) = (give(&one, "a"), give(&other, "b"));
        assert_ne!(a, b);
        one.release("a");
        assert_eq!(give(&other, "c"), a);
        assert_ne!(give(&one, "a"), a, "it is another's now");
    }

    #[test]
    fn a_range_of_the_machine_that_is_none_is_told() {
        let machine = tempfile::tempdir().unwrap();
        let places = UserPlaces::below(machine.path());
        std::fs::create_dir_all(places.subuid.parent().unwrap()).unwrap();
        std::fs::write(&places.subuid, "kubelet:7:65536\n").unwrap();
        let users = PodUsers::load(machine.path(), &places);
        let refused = users.give(&pod("a", Some(false)), Readers::Agent);
        assert!(refused.unwrap_err().contains("/etc/subuid"));
        assert_eq!(users.give(&pod("a", None), Readers::Agent), Ok(None));
    }
}
