//! What is in use of the machine, as the system tells it.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// The unit of `/proc/stat`: programs are told hundredths of a second on every Linux.
const TICK_MILLIS: u64 = 10;

/// Memory of the machine, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// All but what is free.
    pub(crate) in_use: u64,
    /// All but what is free or can be given back at once.
    pub(crate) working_set: u64,
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskUse {
    pub(crate) at: SystemTime,
    pub(crate) capacity: u64,
    pub(crate) used: u64,
    /// To whom is not root.
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// Memory; none where the system does not tell.
pub(crate) fn memory() -> Option<Memory> {
    parse_memory(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// As the kubelet counts for the whole machine: pages of files that were not used for long do not
/// belong to the working set.
fn parse_memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes = line.strip_prefix(':')?.trim().strip_suffix("kB")?;
        Some(kibibytes.trim().parse::<u64>().ok()? << 10)
    };
    let total = bytes("MemTotal")?;
    let in_use = total.saturating_sub(bytes("MemFree")?);
    let inactive = bytes("Inactive(file)")?;
    Some(Memory {
        total,
        in_use,
        working_set: in_use.saturating_sub(inactive),
    })
}

/// The machine's name for itself; none where the system does not tell.
pub(crate) fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// CPU time that was used since the machine has started; none where the system does not tell.
pub(crate) fn cpu_time() -> Option<Duration> {
    parse_cpu(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// user, nice, system, irq, softirq and steal; what guests of the machine use is within user and
/// nice, and idle and iowait are no use.
fn parse_cpu(text: &str) -> Option<Duration> {
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = all
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let used = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| fields.get(*i));
    let ticks: u64 = used.sum();
    Some(Duration::from_millis(ticks.saturating_mul(TICK_MILLIS)))
}

/// When the machine has started.
pub(crate) fn boot_time() -> Option<SystemTime> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    let since = Duration::from_secs(seconds.trim().parse().ok()?);
    Some(SystemTime::UNIX_EPOCH + since)
}

/// Processes and threads that there are, and that there may be; none where the system does not tell.
pub(crate) fn processes() -> Option<(u64, u64)> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let used = parse_processes(&read("/proc/loadavg")?)?;
    let most = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    Some((used, most))
}

/// All that the scheduler knows: the second half of the fourth field.
fn parse_processes(text: &str) -> Option<u64> {
    let (_, all) = text.split_whitespace().nth(3)?.split_once('/')?;
    all.parse().ok()
}

/// The disk on which a folder is.
pub(crate) fn disk(folder: &Path) -> Option<DiskUse> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(DiskUse {
        at: SystemTime::now(),
        capacity: bytes(disk.f_blocks),
        used: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)),
        available: bytes(disk.f_bavail),
        inodes: disk.f_files,
        inodes_free: disk.f_ffree.min(disk.f_files),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_cannot_be_given_back() {
        let text =
            "MemTotal:  1000 kB\nMemFree:  300 kB\nInactive(anon): 5 kB\nInactive(file): 200 kB\n";
        let want = Memory {
            total: 1000 << 10,
            in_use: 700 << 10,
            working_set: 500 << 10,
        };
        assert_eq!(parse_memory(text), Some(want));
        assert_eq!(parse_memory("MemTotal: 1 kB\n"), None);
        assert!(memory().is_some_and(|memory| memory.working_set > 0));
    }

    #[test]
    fn processes_are_all_that_are_scheduled() {
        assert_eq!(parse_processes("0.1 0.2 0.3 3/217 4321\n"), Some(217));
        assert_eq!(parse_processes("0.1 0.2"), None);
        assert!(processes().is_some_and(|(used, most)| 0 < used && used < most));
    }

    #[test]
    fn time_at_rest_is_no_use() {
        let text = "cpu  10 20 30 1000 2000 1 2 3 400 500\ncpu0 1 1 1 1\nbtime 7\n";
        let want = Some(Duration::from_millis(660));
        assert_eq!(parse_cpu(text), want);
        assert_eq!(parse_cpu("intr 1\n"), None);
        assert!(cpu_time().is_some_and(|time| time > Duration::ZERO));
        assert!(boot_time().is_some_and(|at| at < SystemTime::now()));
    }
}
