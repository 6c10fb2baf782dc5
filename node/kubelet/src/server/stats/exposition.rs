//! What is used as metrics, by the names that monitoring of clusters asks for: those of
//! `/metrics/resource` are stable in Kubernetes, those of `/metrics/cadvisor` are the ones of
//! cAdvisor that there is something to say for.
//!
//! Written here and not by the library that the API server has for its own, which knows no time of
//! a sample.

use std::fmt::{Display, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Measured, Use};
use crate::pod;

/// Families of samples as text.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Display,
        at: Option<SystemTime>,
    ) {
        self.0.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let _ = write!(self.0, " {}", since.as_millis());
        }
        self.0.push('\n');
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// A sample for each container that runs.
fn containers(
    text: &mut Text,
    measured: &Measured,
    name: &str,
    more: &[(&str, &str)],
    sample: impl Fn(&super::ContainerUse) -> Option<(f64, Option<SystemTime>)>,
) {
    for of in &measured.pods {
        for container in &of.containers {
            let mut labels = more.to_vec();
            labels.extend([
                ("container", container.name.as_str()),
                ("namespace", pod::namespace(&of.pod)),
                ("pod", pod::name(&of.pod)),
            ]);
            if let Some((value, at)) = sample(container) {
                text.sample(name, &labels, value, at);
            }
        }
    }
}

fn cpu(used: &Use) -> (f64, Option<SystemTime>) {
    (used.cpu.as_secs_f64(), Some(used.at))
}

fn memory(used: &Use) -> (f64, Option<SystemTime>) {
    (used.memory_bytes as f64, Some(used.at))
}

/// `/metrics/resource`.
pub(super) fn resource(measured: &Measured) -> String {
    let mut text = Text::default();
    let name = "container_cpu_usage_seconds_total";
    text.family(
        name,
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    containers(&mut text, measured, name, &[], |of| Some(cpu(&of.used)));
    let name = "container_memory_working_set_bytes";
    text.family(
        name,
        "gauge",
        "Current working set of the container in bytes",
    );
    containers(&mut text, measured, name, &[], |of| Some(memory(&of.used)));
    let name = "container_start_time_seconds";
    text.family(
        name,
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    containers(&mut text, measured, name, &[], |of| {
        Some((seconds(of.started?), Some(of.used.at)))
    });
    let name = "node_cpu_usage_seconds_total";
    text.family(
        name,
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    if let Some((value, at)) = measured.node.used.as_ref().map(cpu) {
        text.sample(name, &[], value, at);
    }
    let name = "node_memory_working_set_bytes";
    text.family(name, "gauge", "Current working set of the node in bytes");
    if let Some((value, at)) = measured.node.used.as_ref().map(memory) {
        text.sample(name, &[], value, at);
    }
    for (name, kind, help, value) in [
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
            cpu as fn(&Use) -> _,
        ),
        (
            "pod_memory_working_set_bytes",
            "gauge",
            "Current working set of the pod in bytes",
            memory,
        ),
    ] {
        text.family(name, kind, help);
        for of in &measured.pods {
            if let Some((value, at)) = of.used().as_ref().map(value) {
                let labels = [
                    ("namespace", pod::namespace(&of.pod)),
                    ("pod", pod::name(&of.pod)),
                ];
                text.sample(name, &labels, value, at);
            }
        }
    }
    let name = "resource_scrape_error";
    text.family(
        name,
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    text.sample(name, &[], u8::from(!measured.whole), None);
    text.0
}

/// `/metrics/cadvisor`, on a machine of so many cores and so much memory.
pub(super) fn cadvisor(measured: &Measured, cores: usize, memory_bytes: u64) -> String {
    let mut text = Text::default();
    let name = "container_cpu_usage_seconds_total";
    text.family(name, "counter", "Cumulative cpu time consumed in seconds.");
    let all = [("cpu", "total")];
    containers(&mut text, measured, name, &all, |of| Some(cpu(&of.used)));
    let name = "container_last_seen";
    text.family(
        name,
        "gauge",
        "Last time a container was seen by the exporter",
    );
    containers(&mut text, measured, name, &[], |of| {
        Some((seconds(of.used.at).floor(), Some(of.used.at)))
    });
    let name = "container_memory_working_set_bytes";
    text.family(name, "gauge", "Current working set in bytes.");
    containers(&mut text, measured, name, &[], |of| Some(memory(&of.used)));
    let name = "container_start_time_seconds";
    text.family(
        name,
        "gauge",
        "Start time of the container since unix epoch in seconds.",
    );
    containers(&mut text, measured, name, &[], |of| {
        Some((seconds(of.started?), None))
    });
    text.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    text.sample("machine_cpu_cores", &[], cores, None);
    text.family(
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
    );
    text.sample("machine_memory_bytes", &[], memory_bytes, None);
    text.0
}
