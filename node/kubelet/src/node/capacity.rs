//! What the machine has.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::NodeSystemInfo;

/// Reads the machine.
pub struct Capacity;

impl Capacity {
    /// Processors, memory, disk space below `root`, and `max_pods` Pods.
    pub fn detect(root: &Path, max_pods: usize) -> BTreeMap<String, Quantity> {
        let mut capacity = BTreeMap::new();
        let mut put = |name: &str, text: String| {
            if let Ok(quantity) = text.parse() {
                capacity.insert(name.to_owned(), quantity);
            }
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        put("cpu", cpus.to_string());
        put("pods", max_pods.to_string());
        if let Some(kibibytes) = memory_kibibytes() {
            put("memory", format!("{kibibytes}Ki"));
        }
        if let Ok(disk) = rustix::fs::statvfs(root) {
            let bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
            put("ephemeral-storage", format!("{}Ki", bytes >> 10));
        }
        capacity
    }
}

fn memory_kibibytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// `status.nodeInfo`; the runtime's version is its name and engine's version.
pub(crate) fn system_info(runtime: &str, version: &str) -> NodeSystemInfo {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    };
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    let release = read("/etc/os-release");
    let pretty = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: version.to_owned(),
        system_uuid: if uuid.is_empty() {
            machine_id.clone()
        } else {
            uuid
        },
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        running_in_user_namespace: None,
        swap: None,
    }
}

/// The architecture in Go's words, which labels and images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
