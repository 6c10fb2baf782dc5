//! Where the machine's control groups are mounted, and which controllers they have.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Cgroup;
use crate::huge_pages;

/// Where the unified hierarchy is mounted if the machine is to use it (cgroups(7)): libcontainer
/// asks no other place.
const ROOT: &str = "/sys/fs/cgroup";
/// What limits huge pages, where the machine has it.
pub(super) const HUGE_PAGES: &str = "hugetlb";

/// The control groups of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Mount points of the older hierarchies, with their controllers.
    pub(super) v1: Vec<(PathBuf, Vec<String>)>,
    /// Mount point of the unified one.
    pub(super) v2: Option<PathBuf>,
    /// Sizes of huge pages that the kernel limits, in bytes.
    pub(super) huge_pages: Vec<u64>,
}

impl Hierarchies {
    /// Those of this machine.
    pub fn detect() -> io::Result<Self> {
        let mounts = fs::read("/proc/self/mounts")?;
        let mut found = Self::parse(&String::from_utf8_lossy(&mounts));
        if found.limit_huge_pages() {
            let reserved = huge_pages::reserved(Path::new(huge_pages::FOLDER));
            found.huge_pages = reserved.into_keys().collect();
        }
        Ok(found)
    }

    fn parse(mounts: &str) -> Self {
        let mut found = Self {
            v1: Vec::new(),
            v2: None,
            huge_pages: Vec::new(),
        };
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup" => {
                    let options = options.split(',').map(str::to_owned).collect();
                    found.v1.push((path.into(), options));
                }
                // Others are mounted for containers and chroots.
                "cgroup2" if found.v2.is_none() || path == ROOT => found.v2 = Some(path.into()),
                _ => {}
            }
        }
        // Then the older ones have none of the controllers that are used here: some programs mount
        // one of another beside it.
        if found.v2.as_deref() == Some(Path::new(ROOT)) {
            found.v1.clear();
        }
        found
    }

    /// Whether the machine has the unified hierarchy alone.
    pub fn unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// Whether there is something that limits memory.
    pub fn limit_memory(&self) -> bool {
        self.controller("memory").is_some() || (self.unified() && self.v2.is_some())
    }

    /// Whether there is something that limits huge pages.
    fn limit_huge_pages(&self) -> bool {
        let controllers = self.unified_folder(Path::new("cgroup.controllers"));
        let controllers = controllers.and_then(|path| fs::read_to_string(path).ok());
        let there = |all: String| all.split_whitespace().any(|name| name == HUGE_PAGES);
        self.controller(HUGE_PAGES).is_some() || controllers.is_some_and(there)
    }

    /// Sizes of huge pages that can be limited here, in bytes: none where the kernel, or whoever has
    /// mounted the hierarchies, has left the controller out.
    pub fn huge_pages(&self) -> &[u64] {
        &self.huge_pages
    }

    /// Mount points of the older hierarchies.
    pub fn older(&self) -> Vec<PathBuf> {
        self.v1.iter().map(|(path, _)| path.clone()).collect()
    }

    /// A cgroup by its path from the root of every hierarchy.
    pub fn cgroup(&self, path: &Path) -> Cgroup {
        Cgroup {
            hierarchies: self.clone(),
            path: path.strip_prefix("/").unwrap_or(path).to_owned(),
        }
    }

    /// A cgroup's folder in the unified hierarchy, if the machine has that alone.
    pub fn unified_folder(&self, path: &Path) -> Option<PathBuf> {
        let root = self.v2.as_ref().filter(|_| self.unified())?;
        Some(root.join(path.strip_prefix("/").unwrap_or(path)))
    }

    pub(super) fn controller(&self, name: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(_, options)| options.iter().any(|option| option == name))
            .map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_among_the_mounts() {
        let hybrid = "\
            tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = Hierarchies::parse(hybrid);
        assert!(!found.unified());
        assert_eq!(found.unified_folder(Path::new("/pod")), None);
        let cgroup = found.cgroup(Path::new("/pod/c"));
        let file = cgroup.file("cpuacct", "cpuacct.usage", "cpu.stat").unwrap();
        let expected = "/sys/fs/cgroup/cpu,cpuacct/pod/c/cpuacct.usage";
        assert_eq!(file, Path::new(expected));
        assert_eq!(cgroup.folders().count(), 3);

        let unified = "\
            cgroup /run/vpn/net_cls cgroup rw,net_cls 0 0\n\
            cgroup2 /run/chroot/cgroup cgroup2 rw 0 0\n\
            cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n\
            cgroup2 /run/container/cgroup cgroup2 rw 0 0\n";
        let found = Hierarchies::parse(unified);
        assert!(found.unified());
        let folder = found.unified_folder(Path::new("/pod"));
        assert_eq!(folder.unwrap(), Path::new("/sys/fs/cgroup/pod"));
        let file = found
            .cgroup(Path::new("/pod"))
            .file("memory", "v1", "memory.max");
        assert_eq!(file.unwrap(), Path::new("/sys/fs/cgroup/pod/memory.max"));
    }

    #[test]
    fn a_unified_hierarchy_says_what_it_limits() {
        let folder = tempfile::tempdir().unwrap();
        let mut hierarchies = Hierarchies {
            v2: Some(folder.path().to_owned()),
            ..Hierarchies::default()
        };
        let controllers = folder.path().join("cgroup.controllers");
        for (text, expected) in [("cpu memory pids\n", false), ("cpu hugetlb misc\n", true)] {
            fs::write(&controllers, text).unwrap();
            assert_eq!(hierarchies.limit_huge_pages(), expected, "{text}");
        }
        // Beside an older hierarchy it has no say.
        hierarchies.v1 = vec![("/sys/fs/cgroup/memory".into(), vec!["memory".into()])];
        assert!(!hierarchies.limit_huge_pages());
    }
}
