//! Control groups, in whatever hierarchies the machine has.
//!
//! Those of containers are made and limited by whoever runs them; here it is read what is used, and
//! whether the kernel has ended something for want of memory, limits are changed later, and what is
//! left is ended and removed. Those of Pods, above them, are [`pods`].

mod hierarchies;
pub mod pods;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::hierarchies::HUGE_PAGES;
use crate::{CPU_PERIOD, Resources, shares};

pub use self::hierarchies::Hierarchies;

/// What is used of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Time of the processor.
    pub cpu: Duration,
    /// Memory that cannot be given back at once.
    pub memory_bytes: u64,
}

/// What a Pod's cgroup limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Where processes go that are in the way: groups are in a cgroup or processes, but for the root of
/// the machine. In a container that is a machine, the root that it sees has its first ones.
const PROCESSES: &str = "init";

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
        if let Some(mut at) = self.hierarchies.unified_folder(Path::new("")) {
            let mut all = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
            if !self.hierarchies.huge_pages.is_empty() {
                all = format!("{all} +{HUGE_PAGES}");
            }
            for (depth, part) in self.path.iter().enumerate() {
                let control = at.join("cgroup.subtree_control");
                enable(&at, &all, depth == 0).map_err(|error| failed(&control, error))?;
                at.push(part);
                fs::create_dir_all(&at).map_err(|error| failed(&at, error))?;
            }
        }
        Ok(())
    }

    /// Keeps what is in it from being swapped out, so that a limit of memory is one, as kubelets do
    /// where they are not told otherwise. In the older hierarchies it goes with the limit.
    fn keep_from_swap(&self) -> io::Result<()> {
        let file = "memory.swap.max";
        let path = self.file("memory", file, file);
        // Kernels may count no swap.
        match self.hierarchies.unified() && path.is_some_and(|path| path.exists()) {
            true => self.write("memory", file, "0"),
            false => Ok(()),
        }
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
            true => self.write("cpu", "cpu.weight", &pod_weight(shares).to_string()),
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

    /// Changes the limits of a container that runs.
    pub fn update(&self, resources: &Resources) -> io::Result<()> {
        self.limit(resources, container_weight)
    }

    fn limit(&self, resources: &Resources, weight: fn(u64) -> u64) -> io::Result<()> {
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
        // All at once, also what is forked meanwhile; kernels before 5.14 have no such file.
        if let Some(folder) = self.hierarchies.unified_folder(&self.path) {
            let _ = fs::write(folder.join("cgroup.kill"), "1");
        }
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
                    Err(error) if is_busy(&error) && Instant::now() < until => {
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

/// `ESRCH`.
const NO_PROCESS: i32 = rustix::io::Errno::SRCH.raw_os_error();

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// Has what is below a cgroup limited in what is named.
fn enable(folder: &Path, controllers: &str, root: bool) -> io::Result<()> {
    let control = folder.join("cgroup.subtree_control");
    let mut enabled = fs::write(&control, controllers);
    for _ in 1..TRIES {
        if !root || !enabled.as_ref().is_err_and(is_busy) {
            break;
        }
        // More may be forked meanwhile.
        move_processes(folder, &folder.join(PROCESSES))?;
        enabled = fs::write(&control, controllers);
    }
    enabled
}

/// Moves all processes of a cgroup to one below it.
fn move_processes(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let processes = fs::read_to_string(from.join("cgroup.procs"))?;
    // Those of which no number is seen here are 0.
    for pid in processes.lines().filter(|pid| *pid != "0") {
        match fs::write(to.join("cgroup.procs"), pid) {
            // It has ended since.
            Err(error) if error.raw_os_error() == Some(NO_PROCESS) => {}
            moved => moved?,
        }
    }
    Ok(())
}

/// From shares, 2 to 262144, to a weight, 1 to 10000, as kubelets weigh Pods (KEP-2254): in
/// proportion.
fn pod_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The same as runtimes weigh containers since runc 1.3.2, where the defaults of both, 1024 and 100,
/// are the same; so does libcontainer for those that begin.
fn container_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    let exponent = (shares.min(262_144) as f64).log2();
    let exponent = (exponent * exponent + 125.0 * exponent) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
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
    fn shares_become_weights() {
        // Those of containers as runc's own tests have them.
        for (shares, pod, container) in [
            (2, 1, 1),
            (102, 4, 17),
            (512, 20, 59),
            (1024, 39, 100),
            (2048, 79, 174),
            (262_144, 10_000, 10_000),
        ] {
            let weights = (pod_weight(shares), container_weight(shares));
            assert_eq!(weights, (pod, container), "{shares}");
        }
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
