//! `process_*`: what the kernel knows of this process, read when somebody asks.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks in a second, in what the kernel tells programs: the same on all architectures served.
const TICKS: f64 = 100.0;

/// Reads them.
#[derive(Debug)]
pub(super) struct Process;

/// What `/proc` says.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    start_ticks: f64,
    virtual_bytes: f64,
}

/// Of `/proc/self/stat`: the fields after the name, which may have spaces and parentheses in it.
fn usage(stat: &str) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first here is the third of proc_pid_stat(5).
    let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Usage {
        cpu_seconds: (number(14)? + number(15)?) / TICKS,
        start_ticks: number(22)?,
        virtual_bytes: number(23)?,
    })
}

/// The number after a word at the beginning of a line.
fn after(text: &str, word: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let Some(usage) = usage(&read("/proc/self/stat")) else {
            return Ok(());
        };
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time of the process, in seconds",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(usage.cpu_seconds).encode(metric)?;
        let booted = after(&read("/proc/stat"), "btime").unwrap_or(0.0);
        let resident = after(&read("/proc/self/status"), "VmRSS:").unwrap_or(0.0) * 1024.0;
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let limit = after(&read("/proc/self/limits"), "Max open files").unwrap_or(0.0);
        for (name, help, value) in [
            (
                "process_start_time_seconds",
                "When the process began, in seconds since 1970",
                booted + usage.start_ticks / TICKS,
            ),
            (
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM",
                resident,
            ),
            (
                "process_virtual_memory_bytes",
                "Address space of the process",
                usage.virtual_bytes,
            ),
            ("process_open_fds", "Open file descriptors", open as f64),
            (
                "process_max_fds",
                "File descriptors that may be open",
                limit,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_process_does_not_confuse() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 900 4096 25 18446744073709551615";
        let want = Usage {
            cpu_seconds: 2.0,
            start_ticks: 900.0,
            virtual_bytes: 4096.0,
        };
        assert_eq!(usage(stat), Some(want));
        assert_eq!(usage("nonsense"), None);
        let limits = "Limit                     Soft Limit           Hard Limit\nMax open files            1024                 4096                 files\n";
        assert_eq!(after(limits, "Max open files"), Some(1024.0));
    }
}
