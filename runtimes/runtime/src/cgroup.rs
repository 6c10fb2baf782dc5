//! Control groups, in whatever hierarchies the machine has.
//!
//! Those of containers are made and limited by whoever runs them; here it is read what is used, and
//! whether the kernel has ended something for want of memory, limits are changed later, and what is
//! left is ended and removed. Those of Pods, above them, are [`pods`].

pub mod pods;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{CPU_PERIOD, Resources, huge_pages, shares};

/// The control groups of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Mount points of the older hierarchies, with their controllers.
    v1: Vec<(PathBuf, Vec<String>)>,
    /// Mount point of the unified one.
    v2: Option<PathBuf>,
    /// Sizes of huge pages that the kernel limits, in bytes.
    huge_pages: Vec<u64>,
}

/// What is used of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Time of the processor.
    pub cpu: Duration,
    /// Memory that cannot be given back at once.
    pub memory_bytes: u64,
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
                "cgroup2" => found.v2 = Some(path.into()),
                _ => {}
            }
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
        let unified = self.v2.as_ref().filter(|_| self.unified());
        let controllers = unified.map(|root| root.join("cgroup.controllers"));
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

    fn controller(&self, name: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(_, options)| options.iter().any(|option| option == name))
            .map(|(path, _)| path.as_path())
    }
}

/// What a Pod's cgroup limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// And this one, where the machine has it.
const HUGE_PAGES: &str = "hugetlb";

/// How often a cgroup is made in those that shims, which are other processes, remove at the same
/// time.
const TRIES: u32 = 10;
/// How long a cgroup may take to let go of what has ended in it.
const BUSY: Duration = Duration::from_secs(1);
/// Between looks at what tells nobody when it is done.
const PAUSE: Duration = Duration::from_millis(10);

/// A cgroup.
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: PathBuf,
}

impl Cgroup {
    fn file(&self, controller: &str, v1: &str, v2: &str) -> Option<PathBuf> {
        match self.hierarchies.controller(controller) {
            Some(root) => Some(root.join(&self.path).join(v1)),
            None => Some(self.hierarchies.v2.as_ref()?.join(&self.path).join(v2)),
        }
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let v1 = self.hierarchies.v1.iter().map(|(root, _)| root);
        let roots = v1.chain(&self.hierarchies.v2);
        roots.map(|root| root.join(&self.path))
    }

    /// The cgroup and all below it, in every hierarchy; each after what is below it.
    fn tree(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self.folders().collect();
        let mut seen = 0;
        while let Some(folder) = found.get(seen) {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
            found.extend(below);
            seen += 1;
        }
        found.reverse();
        found
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.file("memory", "", "")
            .is_some_and(|folder| folder.is_dir())
    }

    /// Makes the cgroup, and those above it, in which limits can be set.
    pub fn create(&self) -> io::Result<()> {
        // A shim that ends takes the class along with the last Pod of it, also from under this.
        for _ in 1..TRIES {
            match self.try_create() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                created => return created,
            }
        }
        self.try_create()
    }

    fn try_create(&self) -> io::Result<()> {
        let failed = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        // Also where it limits nothing: libcontainer makes a container's cgroup in all hierarchies,
        // and what is in use below them is taken away by nobody meanwhile.
        for (root, _) in &self.hierarchies.v1 {
            let path = root.join(&self.path);
            fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
        if let Some(root) = self
            .hierarchies
            .v2
            .as_ref()
            .filter(|_| self.hierarchies.unified())
        {
            let mut all = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
            if !self.hierarchies.huge_pages.is_empty() {
                all = format!("{all} +{HUGE_PAGES}");
            }
            let mut at = root.clone();
            for part in &self.path {
                // What is below may be limited in what is named here.
                let control = at.join("cgroup.subtree_control");
                fs::write(&control, &all).map_err(|error| failed(&control, error))?;
                at.push(part);
                fs::create_dir_all(&at).map_err(|error| failed(&at, error))?;
            }
        }
        Ok(())
    }

    /// Limits the processes and threads in it.
    pub fn limit_pids(&self, limit: Option<u64>) -> io::Result<()> {
        let limit = limit.map_or("max".to_owned(), |limit| limit.to_string());
        self.write("pids", "pids.max", &limit)
    }

    /// Limits the huge pages of each size that can be limited. They do not change while it is there.
    pub fn limit_huge_pages(&self, resources: &Resources) -> io::Result<()> {
        let limit = match self.hierarchies.unified() {
            true => "max",
            false => "limit_in_bytes",
        };
        for (size, bytes) in resources.huge_page_limits(&self.hierarchies.huge_pages) {
            let bytes = bytes.to_string();
            self.write(HUGE_PAGES, &format!("hugetlb.{size}.{limit}"), &bytes)?;
            // Kernels since 5.7 count pages also when they are mapped, before they are touched.
            let mapped = format!("hugetlb.{size}.rsvd.{limit}");
            let path = self.file(HUGE_PAGES, &mapped, &mapped);
            if path.is_some_and(|path| path.exists()) {
                self.write(HUGE_PAGES, &mapped, &bytes)?;
            }
        }
        Ok(())
    }

    /// Sets its share of the processor, by thousandths of a core that were asked for.
    pub fn weigh(&self, millis: u64) -> io::Result<()> {
        let shares = shares(millis);
        match self.hierarchies.unified() {
            true => self.write("cpu", "cpu.weight", &weight(shares).to_string()),
            false => self.write("cpu", "cpu.shares", &shares.to_string()),
        }
    }

    /// Whether the kernel has killed a process of the cgroup because it had no memory left. The
    /// counts go with the cgroup.
    pub fn out_of_memory(&self) -> bool {
        let path = self.file("memory", "memory.oom_control", "memory.events");
        let text = path.and_then(|path| fs::read_to_string(path).ok());
        text.is_some_and(|text| value(&text, "oom_kill").is_some_and(|kills| kills > 0))
    }

    /// What is used now; none once the cgroup is gone.
    pub fn usage(&self) -> Option<Usage> {
        let read = |path: Option<PathBuf>| fs::read_to_string(path?).ok();
        let memory: u64 = read(self.file("memory", "memory.usage_in_bytes", "memory.current"))?
            .trim()
            .parse()
            .ok()?;
        let stat = read(self.file("memory", "memory.stat", "memory.stat"))?;
        let inactive = value(&stat, "total_inactive_file").or(value(&stat, "inactive_file"));
        let cpu = read(self.file("cpuacct", "cpuacct.usage", "cpu.stat"))?;
        let cpu = match cpu.trim().parse() {
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
            Err(_) => Duration::from_micros(value(&cpu, "usage_usec")?),
        };
        Some(Usage {
            cpu,
            // What can be given back at once is not counted, as the kubelet has it.
            memory_bytes: memory.saturating_sub(inactive.unwrap_or(0)),
        })
    }

    /// Changes the limits of what runs.
    pub fn update(&self, resources: &Resources) -> io::Result<()> {
        let shares = resources.cpu_shares();
        let period = CPU_PERIOD;
        let quota = resources.cpu_quota();
        let memory = resources.memory_limit();
        if self.hierarchies.unified() {
            let weight = weight(shares);
            let or_max = |value: Option<i64>| value.map_or("max".to_owned(), |v| v.to_string());
            self.write("cpu", "cpu.weight", &weight.to_string())?;
            self.write("cpu", "cpu.max", &format!("{} {period}", or_max(quota)))?;
            return self.write("memory", "memory.max", &or_max(memory));
        }
        let or_none = |value: Option<i64>| value.map_or("-1".to_owned(), |v| v.to_string());
        self.write("cpu", "cpu.shares", &shares.to_string())?;
        self.write("cpu", "cpu.cfs_period_us", &period.to_string())?;
        self.write("cpu", "cpu.cfs_quota_us", &or_none(quota))?;
        let memory = or_none(memory);
        let (limit, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let swap = self
            .file("memory", both, both)
            .is_some_and(|path| path.exists());
        // Both together is never less than memory alone: which is changed first depends on
        // whether it grows.
        if !swap {
            return self.write("memory", limit, &memory);
        }
        self.write("memory", both, &memory)
            .and_then(|()| self.write("memory", limit, &memory))
            .or_else(|_| {
                self.write("memory", limit, &memory)?;
                self.write("memory", both, &memory)
            })
    }

    fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        match self.file(controller, file, file) {
            Some(path) => fs::write(&path, value).map_err(|error| {
                let path = path.display();
                io::Error::new(error.kind(), format!("writing {value} to {path}: {error}"))
            }),
            None => Err(io::Error::other(format!(
                "no cgroup has the controller {controller}"
            ))),
        }
    }

    /// Kills whatever is in the cgroup or below it, until nothing is.
    fn kill(&self) {
        for _ in 0..100 {
            let mut alive = false;
            for folder in self.tree() {
                let Ok(processes) = fs::read_to_string(folder.join("cgroup.procs")) else {
                    continue;
                };
                for pid in processes
                    .lines()
                    .flat_map(str::parse)
                    .flat_map(Pid::from_raw)
                {
                    alive = true;
                    // It may have ended since.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            if !alive {
                return;
            }
            // What is killed takes a moment to go, and tells nobody here.
            std::thread::sleep(PAUSE);
        }
        tracing::warn!(cgroup = %self.path.display(), "processes of a cgroup do not end");
    }

    /// Ends what is left in the cgroup, and removes it with all below it. Blocks.
    pub fn clear(&self) -> io::Result<()> {
        self.kill();
        let until = Instant::now() + BUSY;
        for folder in self.tree() {
            loop {
                match fs::remove_dir(&folder) {
                    // A process that has ended leaves a moment later.
                    Err(error)
                        if error.kind() == io::ErrorKind::ResourceBusy
                            && Instant::now() < until =>
                    {
                        std::thread::sleep(PAUSE);
                    }
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        let folder = folder.display();
                        return Err(io::Error::new(error.kind(), format!("{folder}: {error}")));
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Removes the cgroup and those above it, but for those in which something is.
    pub fn remove_upwards(&self) {
        for path in self.path.ancestors().filter(|path| *path != Path::new("")) {
            for folder in self.hierarchies.cgroup(path).folders() {
                match fs::remove_dir(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::debug!(folder = %folder.display(), %error, "a cgroup stays");
                    }
                    _ => {}
                }
            }
        }
    }
}

/// From shares, 2 to 262144, to a weight, 1 to 10000, as in KEP-2254.
fn weight(shares: u64) -> u64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// The number that follows a name on a line of its own.
fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(found, _)| *found == name)?
        .1
        .trim()
        .parse()
        .ok()
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
        let cgroup = found.cgroup(Path::new("/pod/c"));
        let file = cgroup.file("cpuacct", "cpuacct.usage", "cpu.stat").unwrap();
        let expected = "/sys/fs/cgroup/cpu,cpuacct/pod/c/cpuacct.usage";
        assert_eq!(file, Path::new(expected));
        assert_eq!(cgroup.folders().count(), 3);

        let found = Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert!(found.unified());
        let file = found
            .cgroup(Path::new("/pod"))
            .file("memory", "v1", "memory.max");
        assert_eq!(file.unwrap(), Path::new("/sys/fs/cgroup/pod/memory.max"));
    }

    #[test]
    fn huge_pages_of_a_size_without_a_limit_are_none() {
        for unified in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().to_owned();
            let older = vec![(root.clone(), vec![HUGE_PAGES.to_owned()])];
            let hierarchies = Hierarchies {
                v1: if unified { Vec::new() } else { older },
                v2: Some(root.clone()),
                huge_pages: vec![2 << 20, 1 << 30],
            };
            let limit = if unified { "max" } else { "limit_in_bytes" };
            let file = |name: &str| root.join("pod").join(format!("hugetlb.{name}.{limit}"));
            fs::create_dir(root.join("pod")).unwrap();
            // A kernel that counts what is mapped for one size alone, to see that it is looked for.
            fs::write(file("2MB.rsvd"), "").unwrap();
            let resources = Resources {
                huge_pages: [(2 << 20, 8 << 20)].into(),
                ..Resources::default()
            };
            let cgroup = hierarchies.cgroup(Path::new("/pod"));
            cgroup.limit_huge_pages(&resources).unwrap();
            let read = |name| fs::read_to_string(file(name)).unwrap();
            assert_eq!(
                ["2MB", "2MB.rsvd", "1GB"].map(read),
                ["8388608", "8388608", "0"]
            );
            assert!(!file("1GB.rsvd").exists());
        }
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

    #[test]
    fn values_are_read_by_their_names() {
        let events = "low 0\noom 3\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(value(events, "oom_kill"), Some(1));
        assert_eq!(value(events, "oom_kil"), None);
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(value(control, "oom_kill"), Some(2));
    }
}
