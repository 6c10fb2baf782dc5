//! Start, memory and CPU of an idle cluster.

use std::time::{Duration, Instant};

use crate::Row;
use crate::cluster::{CORACLE, Cluster, processes_of};

pub(crate) fn rows() {
    let started = Instant::now();
    let cluster = Cluster::up(&[]);
    Row::new(
        "`up` to a Ready node, empty data directory",
        format!("{:.2} s", started.elapsed().as_secs_f64()),
        "≤ 1 s",
    )
    .print();
    // The first seconds after a start are not idle.
    std::thread::sleep(Duration::from_secs(10));
    let processes = processes_of(&cluster.data());
    let cpu = |ids: &[(i32, String)]| -> u64 { ids.iter().map(|(id, _)| cpu_ticks(*id)).sum() };
    let before = cpu(&processes);
    let window = Duration::from_secs(20);
    std::thread::sleep(window);
    let used = cpu(&processes) - before;
    // By now a start's garbage has been given back, as it is at rest.
    let memory: u64 = processes.iter().map(|(id, _)| pss_kibibytes(*id)).sum();
    let binary = std::fs::metadata(CORACLE).map_or(0, |file| file.len());
    for row in [
        Row::new(
            format!(
                "memory of the idle cluster, PSS of {} processes",
                processes.len()
            ),
            format!("{:.1} MiB", memory as f64 / 1024.0),
            "≤ 60 MiB",
        ),
        Row::new(
            "CPU of the idle cluster",
            // Ticks are hundredths of a second on every Linux that we run on.
            format!("{:.2} % of a core", used as f64 / window.as_secs_f64()),
            "≤ 1 %",
        ),
        Row::new(
            "release binary",
            format!("{:.1} MB", binary as f64 / 1e6),
            "≤ 80 MB",
        ),
    ] {
        row.print();
    }
}

/// Proportional set size of a process, KiB.
pub(crate) fn pss_kibibytes(id: i32) -> u64 {
    std::fs::read_to_string(format!("/proc/{id}/smaps_rollup"))
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("Pss:"))
                .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        })
        .unwrap_or(0)
}

/// User and system time of a process, in clock ticks.
pub(crate) fn cpu_ticks(id: i32) -> u64 {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|text| {
            let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        })
        .unwrap_or(0)
}
