//! What the program keeps of memory that it has freed.
//!
//! glibc's allocator gives threads arenas of their own, up to eight for each core, and keeps in
//! each what has been freed there. A server whose requests are carried by whichever thread is free
//! leaves room in all of them. What is free goes back to the system when the program has come to
//! rest: the walk through an arena keeps out whoever wants memory from it.
//!
//! Deliberately absent: fewer arenas, and large blocks outside of them. Both take less memory yet,
//! and a third of the throughput of a busy server. Other C libraries keep less, and are left alone.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often the program is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// The CPU time in an interval below which it is at rest.
const REST: Duration = Duration::from_millis(500);
/// What it must have grown by for giving back to be worth the walk, bytes.
const WORTH: u64 = 4 << 20;

/// Gives freed memory back whenever the program rests, for as long as it is polled.
pub(crate) async fn give_back() {
    let mut kept = 0;
    let mut used = cpu_time();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = cpu_time();
        // What has gone meanwhile without this is no longer kept either.
        let resident_now = resident();
        kept = kept.min(resident_now);
        if is_due(now.saturating_sub(used), resident_now, kept) {
            // It is a walk through the whole heap.
            let _ = tokio::task::spawn_blocking(trim).await;
            kept = resident();
        }
        used = cpu_time();
    }
}

/// Whether to give back, after an interval in which that much CPU time was used, where `kept` was
/// resident when it was last done.
fn is_due(used: Duration, resident: u64, kept: u64) -> bool {
    used < REST && resident >= kept.saturating_add(WORTH)
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the allocator's own locks, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The CPU time that the process has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Bytes of the process in memory; none where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_goes_back_at_rest_and_where_it_is_worth_it() {
        const MIB: u64 = 1 << 20;
        for (millis, resident, kept, want) in [
            (10, 60 * MIB, 0, true),
            (10, 60 * MIB, 58 * MIB, false),
            (10, 62 * MIB, 58 * MIB, true),
            (900, 600 * MIB, 58 * MIB, false),
            (10, 50 * MIB, 58 * MIB, false),
            (10, 0, 0, false),
        ] {
            let got = is_due(Duration::from_millis(millis), resident, kept);
            assert_eq!(got, want, "{millis} ms, {resident} of {kept}");
        }
    }

    #[test]
    fn the_system_tells_what_is_used() {
        assert!(resident() > 1 << 20);
        assert!(cpu_time() > Duration::ZERO);
        trim();
    }
}
